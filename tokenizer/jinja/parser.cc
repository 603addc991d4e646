#include "tokenizer/jinja/parser.h"

#include <algorithm>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "tokenizer/jinja/expression_parser.h"

namespace reticle::tokenizer::jinja {
namespace {

using EndNames = std::initializer_list<std::string_view>;

class Parser final : public ExpressionParser {
 public:
  explicit Parser(std::vector<Token> tokens) : ExpressionParser(std::move(tokens)) {}

  absl::StatusOr<std::unique_ptr<const Ast>> Run() {
    auto ast = std::make_unique<Ast>();
    RETURN_IF_ERROR(ParseBody({}, ast->body));
    ast->names = std::move(names_);
    return std::unique_ptr<const Ast>(std::move(ast));
  }

 private:
  // Statements up to a tag that begins with one of `ends`, whose name is left at the cursor; up to
  // the end of the template if there are none.
  absl::Status ParseBody(EndNames ends, Body& body) {
    Nesting nesting(*this);
    RETURN_IF_ERROR(nesting.status());
    for (;;) {
      Stmt statement;
      statement.position = Current().position;
      switch (Current().type) {
        case TokenType::kEnd:
          if (ends.size() == 0) return absl::OkStatus();
          return Unexpected(absl::StrFormat("a tag '%s'", *std::prev(ends.end())));
        case TokenType::kData:
          statement.kind = Stmt::Kind::kText;
          statement.text = Value(Current().text);
          Advance();
          body.push_back(std::move(statement));
          break;
        case TokenType::kVariableBegin: {
          Advance();
          statement.kind = Stmt::Kind::kPrint;
          ASSIGN_OR_RETURN(statement.expr, ParseTuple(true));
          RETURN_IF_ERROR(Expect(TokenType::kVariableEnd, "'}}'"));
          body.push_back(std::move(statement));
          break;
        }
        case TokenType::kBlockBegin: {
          Advance();
          if (Current().type != TokenType::kName) return Unexpected("the name of a tag");
          if (std::find(ends.begin(), ends.end(), Current().text) != ends.end()) {
            return absl::OkStatus();
          }
          RETURN_IF_ERROR(ParseStatement(body));
          RETURN_IF_ERROR(Expect(TokenType::kBlockEnd, "'%}'"));
          break;
        }
        default:
          return Unexpected("template text");
      }
    }
  }

  // The rest of an opening tag and the body after it. The name of the tag that ends it is left at
  // the cursor.
  absl::Status ParseTagBody(EndNames ends, Body& body) {
    SkipOperator(":");
    RETURN_IF_ERROR(Expect(TokenType::kBlockEnd, "'%}'"));
    return ParseBody(ends, body);
  }

  // The same for a body with one possible end, which is passed.
  absl::Status ParseWholeBody(std::string_view end, Body& body) {
    RETURN_IF_ERROR(ParseTagBody({end}, body));
    Advance();
    return absl::OkStatus();
  }

  // A body that is a function of its own, which no `break` leaves.
  absl::Status ParseFunctionBody(std::string_view end, Body& body) {
    const int outer_loops = std::exchange(loops_, 0);
    absl::Status status = ParseWholeBody(end, body);
    loops_ = outer_loops;
    return status;
  }

  absl::Status ParseStatement(Body& body) {
    Nesting nesting(*this);
    RETURN_IF_ERROR(nesting.status());
    Stmt statement;
    statement.position = Current().position;
    const std::string tag = Current().text;
    Advance();
    if (tag == "print") return ParsePrint(statement.position, body);
    if (tag == "if") {
      RETURN_IF_ERROR(ParseIf(statement));
    } else if (tag == "for") {
      RETURN_IF_ERROR(ParseFor(statement));
    } else if (tag == "set") {
      RETURN_IF_ERROR(ParseSet(statement));
    } else if (tag == "macro") {
      RETURN_IF_ERROR(ParseMacro(statement));
    } else if (tag == "call") {
      RETURN_IF_ERROR(ParseCallBlock(statement));
    } else if (tag == "filter") {
      statement.kind = Stmt::Kind::kFilterBlock;
      ASSIGN_OR_RETURN(statement.expr, ParseFilters(nullptr, true));
      RETURN_IF_ERROR(ParseWholeBody("endfilter", statement.body));
    } else if (tag == "with") {
      RETURN_IF_ERROR(ParseWith(statement));
    } else if (tag == "generation") {
      statement.kind = Stmt::Kind::kScope;
      RETURN_IF_ERROR(ParseFunctionBody("endgeneration", statement.body));
    } else if (tag == "break" || tag == "continue") {
      statement.kind = tag == "break" ? Stmt::Kind::kBreak : Stmt::Kind::kContinue;
      if (loops_ == 0) {
        return SyntaxError(statement.position, absl::StrFormat("'%s' outside a loop", tag));
      }
    } else {
      return SyntaxError(statement.position, absl::StrFormat("unknown tag '%s'", tag));
    }
    body.push_back(std::move(statement));
    return absl::OkStatus();
  }

  absl::Status ParsePrint(Position position, Body& body) {
    bool first = true;
    while (Current().type != TokenType::kBlockEnd) {
      if (!first) RETURN_IF_ERROR(ExpectOperator(","));
      first = false;
      Stmt statement;
      statement.position = position;
      statement.kind = Stmt::Kind::kPrint;
      ASSIGN_OR_RETURN(statement.expr, ParseExpression());
      body.push_back(std::move(statement));
    }
    return absl::OkStatus();
  }

  absl::Status ParseIf(Stmt& statement) {
    statement.kind = Stmt::Kind::kIf;
    for (;;) {
      auto& branch = statement.branches.emplace_back();
      ASSIGN_OR_RETURN(branch.first, ParseTuple(false));
      RETURN_IF_ERROR(ParseTagBody({"elif", "else", "endif"}, branch.second));
      if (SkipName("elif")) continue;
      if (SkipName("else")) {
        return ParseWholeBody("endif", statement.branches.emplace_back().second);
      }
      Advance();
      return absl::OkStatus();
    }
  }

  absl::Status ParseFor(Stmt& statement) {
    statement.kind = Stmt::Kind::kFor;
    ASSIGN_OR_RETURN(statement.target, ParseTarget("in"));
    RETURN_IF_ERROR(ExpectName("in"));
    ASSIGN_OR_RETURN(statement.expr, ParseTuple(false, "recursive"));
    if (SkipName("if")) {
      ASSIGN_OR_RETURN(statement.filter, ParseExpression());
    }
    statement.recursive = SkipName("recursive");
    special_names_.emplace_back(Ast::kVarargs + 1, false);
    ++loops_;
    absl::Status status = ParseTagBody({"endfor", "else"}, statement.body);
    --loops_;
    statement.uses_loop = special_names_.back()[Ast::kLoop] || statement.recursive;
    special_names_.pop_back();
    RETURN_IF_ERROR(status);
    if (SkipName("else")) return ParseWholeBody("endfor", statement.else_body);
    Advance();
    return absl::OkStatus();
  }

  absl::Status ParseSet(Stmt& statement) {
    if (Look().type == TokenType::kOperator && Look().text == ".") {
      statement.target.kind = Target::Kind::kNamespace;
      statement.target.position = Current().position;
      ASSIGN_OR_RETURN(const std::string name, TakeName());
      statement.target.name_id = NameId(name);
      RETURN_IF_ERROR(ExpectOperator("."));
      ASSIGN_OR_RETURN(std::string attribute, TakeName());
      statement.target.attribute = Value(std::move(attribute));
    } else {
      ASSIGN_OR_RETURN(statement.target, ParseTarget(""));
    }
    if (SkipOperator("=")) {
      statement.kind = Stmt::Kind::kSet;
      ASSIGN_OR_RETURN(statement.expr, ParseTuple(true));
      return absl::OkStatus();
    }
    statement.kind = Stmt::Kind::kSetBlock;
    ASSIGN_OR_RETURN(statement.expr, ParseFilters(nullptr, false));
    return ParseWholeBody("endset", statement.body);
  }

  absl::StatusOr<uint32_t> ParseTargetName() {
    const Position position = Current().position;
    ASSIGN_OR_RETURN(const std::string name, TakeName());
    for (const char* constant : {"true", "false", "none", "True", "False", "None"}) {
      if (name == constant) {
        return SyntaxError(position, absl::StrFormat("cannot assign to '%s'", name));
      }
    }
    return NameId(name);
  }

  // Names with commas between them, up to `end_name` or the end of the tag.
  absl::StatusOr<Target> ParseTarget(std::string_view end_name) {
    Nesting nesting(*this);
    RETURN_IF_ERROR(nesting.status());
    Target tuple;
    tuple.kind = Target::Kind::kTuple;
    tuple.position = Current().position;
    bool has_comma = false;
    while (Current().type != TokenType::kBlockEnd && !IsOperator(")") &&
           (end_name.empty() || !IsName(end_name))) {
      Target item;
      item.position = Current().position;
      if (SkipOperator("(")) {
        ASSIGN_OR_RETURN(item, ParseTarget(""));
        RETURN_IF_ERROR(ExpectOperator(")"));
      } else {
        ASSIGN_OR_RETURN(item.name_id, ParseTargetName());
      }
      tuple.items.push_back(std::move(item));
      if (!SkipOperator(",")) break;
      has_comma = true;
    }
    if (has_comma) return tuple;
    if (tuple.items.empty()) return Unexpected("a name");
    Target single = std::move(tuple.items[0]);
    return single;
  }

  absl::Status ParseSignature(MacroDefinition& macro) {
    RETURN_IF_ERROR(ExpectOperator("("));
    while (!IsOperator(")")) {
      if (!macro.parameters.empty()) RETURN_IF_ERROR(ExpectOperator(","));
      Parameter parameter;
      ASSIGN_OR_RETURN(parameter.name_id, ParseTargetName());
      for (const Parameter& other : macro.parameters) {
        if (other.name_id == parameter.name_id) {
          return SyntaxError(Current().position, "duplicate parameter");
        }
      }
      if (SkipOperator("=")) {
        ASSIGN_OR_RETURN(parameter.default_value, ParseExpression());
      } else if (!macro.parameters.empty() && macro.parameters.back().default_value != nullptr) {
        return SyntaxError(Current().position,
                           "parameter without a default after one that has a default");
      }
      if (macro.parameters.size() == kMaxParameters) {
        return SyntaxError(Current().position, "more than 255 parameters");
      }
      macro.parameters.push_back(std::move(parameter));
    }
    return ExpectOperator(")");
  }

  absl::Status ParseMacroBody(std::string_view end, MacroDefinition& macro) {
    special_names_.emplace_back(Ast::kVarargs + 1, false);
    absl::Status status = ParseFunctionBody(end, macro.body);
    macro.uses_caller = special_names_.back()[Ast::kCaller];
    macro.uses_kwargs = special_names_.back()[Ast::kKwargs];
    macro.uses_varargs = special_names_.back()[Ast::kVarargs];
    special_names_.pop_back();
    return status;
  }

  absl::Status ParseMacro(Stmt& statement) {
    statement.kind = Stmt::Kind::kMacro;
    statement.macro = std::make_unique<MacroDefinition>();
    ASSIGN_OR_RETURN(statement.target.name_id, ParseTargetName());
    statement.macro->name = names_[statement.target.name_id];
    RETURN_IF_ERROR(ParseSignature(*statement.macro));
    return ParseMacroBody("endmacro", *statement.macro);
  }

  absl::Status ParseCallBlock(Stmt& statement) {
    statement.kind = Stmt::Kind::kCall;
    statement.macro = std::make_unique<MacroDefinition>();
    statement.macro->name = Value("caller");
    if (IsOperator("(")) RETURN_IF_ERROR(ParseSignature(*statement.macro));
    ASSIGN_OR_RETURN(statement.expr, ParseExpression());
    if (statement.expr->kind != Expr::Kind::kCall) {
      return SyntaxError(statement.expr->position, "expected a call");
    }
    return ParseMacroBody("endcall", *statement.macro);
  }

  absl::Status ParseWith(Stmt& statement) {
    statement.kind = Stmt::Kind::kWith;
    while (Current().type != TokenType::kBlockEnd && !IsOperator(":")) {
      if (!statement.assignments.empty()) RETURN_IF_ERROR(ExpectOperator(","));
      Target target;
      target.position = Current().position;
      ASSIGN_OR_RETURN(target.name_id, ParseTargetName());
      RETURN_IF_ERROR(ExpectOperator("="));
      ASSIGN_OR_RETURN(ExprPtr value, ParseExpression());
      statement.assignments.emplace_back(std::move(target), std::move(value));
    }
    return ParseWholeBody("endwith", statement.body);
  }

  static constexpr size_t kMaxParameters = 255;

  int loops_ = 0;  // open `for` bodies that a break could leave
};

}  // namespace

absl::StatusOr<std::unique_ptr<const Ast>> Parse(std::string_view source) {
  ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return Parser(std::move(tokens)).Run();
}

}  // namespace reticle::tokenizer::jinja
