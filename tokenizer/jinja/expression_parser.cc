#include "tokenizer/jinja/expression_parser.h"

#include <algorithm>
#include <optional>

#include "base/status.h"

namespace reticle::tokenizer::jinja {
namespace {

std::string Describe(const Token& token) {
  switch (token.type) {
    case TokenType::kName:
    case TokenType::kOperator:
      return absl::StrFormat("'%s'", token.text);
    case TokenType::kString:
      return "a string";
    case TokenType::kInteger:
    case TokenType::kFloat:
      return "a number";
    case TokenType::kVariableEnd:
      return "the end of the print statement";
    case TokenType::kBlockEnd:
      return "the end of the tag";
    case TokenType::kEnd:
      return "the end of the template";
    default:
      return "template text";
  }
}

std::optional<Operator> ComparisonOf(const Token& token) {
  if (token.type != TokenType::kOperator) return std::nullopt;
  if (token.text == "==") return Operator::kEqual;
  if (token.text == "!=") return Operator::kNotEqual;
  if (token.text == "<") return Operator::kLess;
  if (token.text == "<=") return Operator::kLessEqual;
  if (token.text == ">") return Operator::kGreater;
  if (token.text == ">=") return Operator::kGreaterEqual;
  return std::nullopt;
}

}  // namespace

ExpressionParser::ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {
  for (const char* name : {"loop", "caller", "kwargs", "varargs"}) NameId(name);
}

absl::Status ExpressionParser::Nesting::status() const {
  if (parser_.depth_ <= kMaxDepth) return absl::OkStatus();
  const Position position = parser_.Current().position;
  return ResourceExhaustedError("line %d, column %d: nested deeper than the limit of %d",
                                position.line, position.column, kMaxDepth);
}

uint32_t ExpressionParser::NameId(std::string_view name) {
  const auto [entry, added] =
      name_ids_.try_emplace(std::string(name), static_cast<uint32_t>(names_.size()));
  if (added) names_.emplace_back(std::string(name));
  return entry->second;
}

bool ExpressionParser::SkipOperator(std::string_view op) {
  if (!IsOperator(op)) return false;
  Advance();
  return true;
}

bool ExpressionParser::SkipName(std::string_view name) {
  if (!IsName(name)) return false;
  Advance();
  return true;
}

absl::Status ExpressionParser::Unexpected(std::string_view expected) const {
  return SyntaxError(Current().position,
                     absl::StrFormat("expected %s, got %s", expected, Describe(Current())));
}

absl::Status ExpressionParser::ExpectOperator(std::string_view op) {
  if (SkipOperator(op)) return absl::OkStatus();
  return Unexpected(absl::StrFormat("'%s'", op));
}

absl::Status ExpressionParser::ExpectName(std::string_view name) {
  if (SkipName(name)) return absl::OkStatus();
  return Unexpected(absl::StrFormat("'%s'", name));
}

absl::Status ExpressionParser::Expect(TokenType type, std::string_view what) {
  if (Current().type != type) return Unexpected(what);
  Advance();
  return absl::OkStatus();
}

absl::StatusOr<std::string> ExpressionParser::TakeName() {
  if (Current().type != TokenType::kName) return Unexpected("a name");
  std::string name = Current().text;
  Advance();
  return name;
}

ExprPtr ExpressionParser::Make(Expr::Kind kind, Position position) const {
  auto node = std::make_unique<Expr>();
  node->kind = kind;
  node->position = position;
  return node;
}

absl::Status ExpressionParser::Adopt(Expr& parent, ExprPtr child) const {
  if (child != nullptr) {
    parent.depth = std::max(parent.depth, child->depth + 1);
    if (parent.depth > kMaxDepth) {
      return ResourceExhaustedError("line %d, column %d: expression deeper than the limit of %d",
                                    parent.position.line, parent.position.column, kMaxDepth);
    }
  }
  parent.children.push_back(std::move(child));
  return absl::OkStatus();
}

absl::StatusOr<ExprPtr> ExpressionParser::Binary(Expr::Kind kind, Operator op, ExprPtr left,
                                                 ExprPtr right, Position position) const {
  ExprPtr node = Make(kind, position);
  node->operators.push_back(op);
  RETURN_IF_ERROR(Adopt(*node, std::move(left)));
  RETURN_IF_ERROR(Adopt(*node, std::move(right)));
  return node;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseExpression() {
  Nesting nesting(*this);
  RETURN_IF_ERROR(nesting.status());
  const Position position = Current().position;
  ASSIGN_OR_RETURN(ExprPtr node, ParseOr());
  while (SkipName("if")) {
    ExprPtr conditional = Make(Expr::Kind::kConditional, position);
    RETURN_IF_ERROR(Adopt(*conditional, std::move(node)));
    ASSIGN_OR_RETURN(ExprPtr condition, ParseOr());
    RETURN_IF_ERROR(Adopt(*conditional, std::move(condition)));
    ExprPtr otherwise;
    if (SkipName("else")) {
      ASSIGN_OR_RETURN(otherwise, ParseExpression());
    }
    RETURN_IF_ERROR(Adopt(*conditional, std::move(otherwise)));
    node = std::move(conditional);
  }
  return node;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseOr() {
  ASSIGN_OR_RETURN(ExprPtr left, ParseAnd());
  while (IsName("or")) {
    const Position position = Current().position;
    Advance();
    ASSIGN_OR_RETURN(ExprPtr right, ParseAnd());
    ASSIGN_OR_RETURN(
        left, Binary(Expr::Kind::kOr, Operator::kIn, std::move(left), std::move(right), position));
  }
  return left;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseAnd() {
  ASSIGN_OR_RETURN(ExprPtr left, ParseNot());
  while (IsName("and")) {
    const Position position = Current().position;
    Advance();
    ASSIGN_OR_RETURN(ExprPtr right, ParseNot());
    ASSIGN_OR_RETURN(
        left, Binary(Expr::Kind::kAnd, Operator::kIn, std::move(left), std::move(right), position));
  }
  return left;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseNot() {
  if (!IsName("not")) return ParseCompare();
  Nesting nesting(*this);
  RETURN_IF_ERROR(nesting.status());
  ExprPtr node = Make(Expr::Kind::kNot, Current().position);
  Advance();
  ASSIGN_OR_RETURN(ExprPtr operand, ParseNot());
  RETURN_IF_ERROR(Adopt(*node, std::move(operand)));
  return node;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseCompare() {
  ExprPtr compare = Make(Expr::Kind::kCompare, Current().position);
  ASSIGN_OR_RETURN(ExprPtr first, ParseSum());
  for (;;) {
    Operator op;
    if (const auto comparison = ComparisonOf(Current())) {
      op = *comparison;
      Advance();
    } else if (SkipName("in")) {
      op = Operator::kIn;
    } else if (IsName("not") && Is(Look(), TokenType::kName, "in")) {
      Advance();
      Advance();
      op = Operator::kNotIn;
    } else {
      break;
    }
    if (first != nullptr) RETURN_IF_ERROR(Adopt(*compare, std::move(first)));
    ASSIGN_OR_RETURN(ExprPtr operand, ParseSum());
    compare->operators.push_back(op);
    RETURN_IF_ERROR(Adopt(*compare, std::move(operand)));
  }
  return first != nullptr ? std::move(first) : std::move(compare);
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseSum() {
  ASSIGN_OR_RETURN(ExprPtr left, ParseConcatenation());
  while (IsOperator("+") || IsOperator("-")) {
    const Position position = Current().position;
    const Operator op = IsOperator("+") ? Operator::kAdd : Operator::kSubtract;
    Advance();
    ASSIGN_OR_RETURN(ExprPtr right, ParseConcatenation());
    ASSIGN_OR_RETURN(left,
                     Binary(Expr::Kind::kBinary, op, std::move(left), std::move(right), position));
  }
  return left;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseConcatenation() {
  ASSIGN_OR_RETURN(ExprPtr first, ParseProduct());
  if (!IsOperator("~")) return first;
  ExprPtr node = Make(Expr::Kind::kConcatenate, Current().position);
  RETURN_IF_ERROR(Adopt(*node, std::move(first)));
  while (SkipOperator("~")) {
    ASSIGN_OR_RETURN(ExprPtr next, ParseProduct());
    RETURN_IF_ERROR(Adopt(*node, std::move(next)));
  }
  return node;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseProduct() {
  ASSIGN_OR_RETURN(ExprPtr left, ParsePower());
  for (;;) {
    Operator op;
    if (IsOperator("*")) {
      op = Operator::kMultiply;
    } else if (IsOperator("/")) {
      op = Operator::kDivide;
    } else if (IsOperator("//")) {
      op = Operator::kFloorDivide;
    } else if (IsOperator("%")) {
      op = Operator::kModulo;
    } else {
      return left;
    }
    const Position position = Current().position;
    Advance();
    ASSIGN_OR_RETURN(ExprPtr right, ParsePower());
    ASSIGN_OR_RETURN(left,
                     Binary(Expr::Kind::kBinary, op, std::move(left), std::move(right), position));
  }
}

absl::StatusOr<ExprPtr> ExpressionParser::ParsePower() {
  ASSIGN_OR_RETURN(ExprPtr left, ParseUnary(true));
  while (IsOperator("**")) {
    const Position position = Current().position;
    Advance();
    ASSIGN_OR_RETURN(ExprPtr right, ParseUnary(true));
    ASSIGN_OR_RETURN(left, Binary(Expr::Kind::kBinary, Operator::kPower, std::move(left),
                                  std::move(right), position));
  }
  return left;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseUnary(bool with_filters) {
  ExprPtr node;
  if (IsOperator("-") || IsOperator("+")) {
    Nesting nesting(*this);
    RETURN_IF_ERROR(nesting.status());
    node = Make(IsOperator("-") ? Expr::Kind::kNegate : Expr::Kind::kPlus, Current().position);
    Advance();
    ASSIGN_OR_RETURN(ExprPtr operand, ParseUnary(false));
    RETURN_IF_ERROR(Adopt(*node, std::move(operand)));
  } else {
    ASSIGN_OR_RETURN(node, ParsePrimary());
  }
  ASSIGN_OR_RETURN(node, ParsePostfix(std::move(node)));
  if (with_filters) return ParseFilterExpression(std::move(node));
  return node;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParsePrimary() {
  const Token& token = Current();
  ExprPtr node = Make(Expr::Kind::kConstant, token.position);
  switch (token.type) {
    case TokenType::kName:
      if (token.text == "true" || token.text == "True") {
        node->value = true;
      } else if (token.text == "false" || token.text == "False") {
        node->value = false;
      } else if (token.text == "none" || token.text == "None") {
        node->value = Value::None{};
      } else {
        node->kind = Expr::Kind::kName;
        node->name_id = NameId(token.text);
        if (node->name_id <= Ast::kVarargs) {
          for (auto& mentioned : special_names_) mentioned[node->name_id] = true;
        }
      }
      Advance();
      return node;
    case TokenType::kString: {
      std::string text = token.text;
      Advance();
      for (; Current().type == TokenType::kString; Advance()) text += Current().text;
      node->value = Value(std::move(text));
      return node;
    }
    case TokenType::kInteger:
      node->value = token.integer;
      Advance();
      return node;
    case TokenType::kFloat:
      node->value = token.number;
      Advance();
      return node;
    case TokenType::kOperator:
      if (token.text == "(") {
        Nesting nesting(*this);
        RETURN_IF_ERROR(nesting.status());
        Advance();
        ASSIGN_OR_RETURN(node, ParseTuple(true, "", true));
        RETURN_IF_ERROR(ExpectOperator(")"));
        return node;
      }
      if (token.text == "[") return ParseList();
      if (token.text == "{") return ParseDict();
      break;
    default:
      break;
  }
  return Unexpected("an expression");
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseTuple(bool conditional, std::string_view end_name,
                                                     bool in_parentheses) {
  ExprPtr tuple = Make(Expr::Kind::kTuple, Current().position);
  bool has_comma = false;
  for (;;) {
    const bool at_end = Current().type == TokenType::kVariableEnd ||
                        Current().type == TokenType::kBlockEnd || IsOperator(")") ||
                        (!end_name.empty() && IsName(end_name));
    if (at_end) break;
    ASSIGN_OR_RETURN(ExprPtr item, conditional ? ParseExpression() : ParseOr());
    RETURN_IF_ERROR(Adopt(*tuple, std::move(item)));
    if (!SkipOperator(",")) break;
    has_comma = true;
  }
  if (has_comma) return tuple;
  if (!tuple->children.empty()) return std::move(tuple->children[0]);
  if (!in_parentheses) return Unexpected("an expression");
  return tuple;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseList() {
  ExprPtr node = Make(Expr::Kind::kList, Current().position);
  RETURN_IF_ERROR(ExpectOperator("["));
  while (!IsOperator("]")) {
    if (!node->children.empty()) {
      RETURN_IF_ERROR(ExpectOperator(","));
      if (IsOperator("]")) break;
    }
    ASSIGN_OR_RETURN(ExprPtr item, ParseExpression());
    RETURN_IF_ERROR(Adopt(*node, std::move(item)));
  }
  RETURN_IF_ERROR(ExpectOperator("]"));
  return node;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseDict() {
  ExprPtr node = Make(Expr::Kind::kDict, Current().position);
  RETURN_IF_ERROR(ExpectOperator("{"));
  while (!IsOperator("}")) {
    if (!node->children.empty()) {
      RETURN_IF_ERROR(ExpectOperator(","));
      if (IsOperator("}")) break;
    }
    ASSIGN_OR_RETURN(ExprPtr key, ParseExpression());
    RETURN_IF_ERROR(Adopt(*node, std::move(key)));
    RETURN_IF_ERROR(ExpectOperator(":"));
    ASSIGN_OR_RETURN(ExprPtr value, ParseExpression());
    RETURN_IF_ERROR(Adopt(*node, std::move(value)));
  }
  RETURN_IF_ERROR(ExpectOperator("}"));
  return node;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParsePostfix(ExprPtr node) {
  for (;;) {
    if (IsOperator(".") || IsOperator("[")) {
      ASSIGN_OR_RETURN(node, ParseSubscript(std::move(node)));
    } else if (IsOperator("(")) {
      ASSIGN_OR_RETURN(node, ParseCall(std::move(node)));
    } else {
      return node;
    }
  }
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseFilterExpression(ExprPtr node) {
  for (;;) {
    if (IsOperator("|")) {
      ASSIGN_OR_RETURN(node, ParseFilters(std::move(node), false));
    } else if (IsName("is")) {
      ASSIGN_OR_RETURN(node, ParseTest(std::move(node)));
    } else if (IsOperator("(")) {
      ASSIGN_OR_RETURN(node, ParseCall(std::move(node)));
    } else {
      return node;
    }
  }
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseSubscript(ExprPtr node) {
  const Position position = Current().position;
  if (SkipOperator(".")) {
    const Token& token = Current();
    if (token.type == TokenType::kName) {
      ExprPtr attribute = Make(Expr::Kind::kAttribute, position);
      attribute->value = Value(token.text);
      Advance();
      RETURN_IF_ERROR(Adopt(*attribute, std::move(node)));
      return attribute;
    }
    if (token.type != TokenType::kInteger) return Unexpected("a name or a number");
    ExprPtr item = Make(Expr::Kind::kItem, position);
    RETURN_IF_ERROR(Adopt(*item, std::move(node)));
    ExprPtr index = Make(Expr::Kind::kConstant, token.position);
    index->value = token.integer;
    Advance();
    RETURN_IF_ERROR(Adopt(*item, std::move(index)));
    return item;
  }
  RETURN_IF_ERROR(ExpectOperator("["));
  ExprPtr item = Make(Expr::Kind::kItem, position);
  RETURN_IF_ERROR(Adopt(*item, std::move(node)));
  std::vector<ExprPtr> bounds(1);
  if (!IsOperator(":")) {
    ASSIGN_OR_RETURN(bounds[0], ParseExpression());
  }
  while (bounds.size() < 3 && SkipOperator(":")) {
    bounds.emplace_back();
    if (!IsOperator(":") && !IsOperator("]") && !IsOperator(",")) {
      ASSIGN_OR_RETURN(bounds.back(), ParseExpression());
    }
  }
  if (bounds.size() > 1) {
    item->kind = Expr::Kind::kSlice;
    bounds.resize(3);
  } else if (IsOperator(",")) {
    return SyntaxError(Current().position, "subscripts with commas are not supported");
  }
  for (ExprPtr& bound : bounds) RETURN_IF_ERROR(Adopt(*item, std::move(bound)));
  RETURN_IF_ERROR(ExpectOperator("]"));
  return item;
}

absl::Status ExpressionParser::ParseArguments(Expr& call) {
  RETURN_IF_ERROR(ExpectOperator("("));
  auto arguments = std::make_unique<Arguments>();
  // Arguments are children for the tree's depth only.
  const auto check = [&](const ExprPtr& child) {
    call.depth = std::max(call.depth, child->depth + 1);
    if (call.depth <= kMaxDepth) return absl::OkStatus();
    return ResourceExhaustedError("line %d, column %d: expression deeper than the limit of %d",
                                  call.position.line, call.position.column, kMaxDepth);
  };
  bool needs_comma = false;
  while (!IsOperator(")")) {
    if (needs_comma) {
      RETURN_IF_ERROR(ExpectOperator(","));
      if (IsOperator(")")) break;
    }
    needs_comma = true;
    const Position position = Current().position;
    const bool is_named =
        Current().type == TokenType::kName && Is(Look(), TokenType::kOperator, "=");
    if ((IsOperator("*") && (arguments->star != nullptr || arguments->double_star != nullptr)) ||
        (IsOperator("**") && arguments->double_star != nullptr) ||
        (is_named && arguments->double_star != nullptr)) {
      return SyntaxError(position, "invalid order of arguments in a call");
    }
    if (SkipOperator("*")) {
      ASSIGN_OR_RETURN(arguments->star, ParseExpression());
      RETURN_IF_ERROR(check(arguments->star));
    } else if (SkipOperator("**")) {
      ASSIGN_OR_RETURN(arguments->double_star, ParseExpression());
      RETURN_IF_ERROR(check(arguments->double_star));
    } else if (is_named) {
      std::string name = Current().text;
      Advance();
      Advance();
      ASSIGN_OR_RETURN(ExprPtr value, ParseExpression());
      RETURN_IF_ERROR(check(value));
      arguments->named.emplace_back(std::move(name), std::move(value));
    } else {
      if (arguments->star != nullptr || arguments->double_star != nullptr ||
          !arguments->named.empty()) {
        return SyntaxError(position, "invalid order of arguments in a call");
      }
      ASSIGN_OR_RETURN(ExprPtr value, ParseExpression());
      RETURN_IF_ERROR(check(value));
      arguments->positional.push_back(std::move(value));
    }
  }
  RETURN_IF_ERROR(ExpectOperator(")"));
  call.arguments = std::move(arguments);
  return absl::OkStatus();
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseCall(ExprPtr node) {
  ExprPtr call = Make(Expr::Kind::kCall, Current().position);
  RETURN_IF_ERROR(Adopt(*call, std::move(node)));
  RETURN_IF_ERROR(ParseArguments(*call));
  return call;
}

absl::StatusOr<std::string> ExpressionParser::ParseDottedName() {
  ASSIGN_OR_RETURN(std::string name, TakeName());
  while (SkipOperator(".")) {
    ASSIGN_OR_RETURN(const std::string part, TakeName());
    name += "." + part;
  }
  return name;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseFilters(ExprPtr node, bool starts_inline) {
  while (starts_inline || SkipOperator("|")) {
    starts_inline = false;
    ExprPtr filter = Make(Expr::Kind::kFilter, Current().position);
    ASSIGN_OR_RETURN(std::string name, ParseDottedName());
    filter->builtin = FindFilter(name);
    filter->value = Value(std::move(name));
    RETURN_IF_ERROR(Adopt(*filter, std::move(node)));
    if (IsOperator("(")) RETURN_IF_ERROR(ParseArguments(*filter));
    node = std::move(filter);
  }
  return node;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseTest(ExprPtr node) {
  ExprPtr test = Make(Expr::Kind::kTest, Current().position);
  RETURN_IF_ERROR(ExpectName("is"));
  const bool negated = SkipName("not");
  ASSIGN_OR_RETURN(std::string name, ParseDottedName());
  test->builtin = FindTest(name);
  test->value = Value(std::move(name));
  RETURN_IF_ERROR(Adopt(*test, std::move(node)));
  if (IsOperator("(")) {
    RETURN_IF_ERROR(ParseArguments(*test));
  } else if ((Current().type == TokenType::kName && !IsName("else") && !IsName("or") &&
              !IsName("and")) ||
             Current().type == TokenType::kString || Current().type == TokenType::kInteger ||
             Current().type == TokenType::kFloat || IsOperator("[") || IsOperator("{")) {
    if (IsName("is")) return SyntaxError(Current().position, "tests with 'is' cannot be chained");
    Nesting nesting(*this);
    RETURN_IF_ERROR(nesting.status());
    ASSIGN_OR_RETURN(ExprPtr argument, ParsePrimary());
    ASSIGN_OR_RETURN(argument, ParsePostfix(std::move(argument)));
    test->depth = std::max(test->depth, argument->depth + 1);
    test->arguments = std::make_unique<Arguments>();
    test->arguments->positional.push_back(std::move(argument));
  }
  if (!negated) return test;
  ExprPtr inverted = Make(Expr::Kind::kNot, test->position);
  RETURN_IF_ERROR(Adopt(*inverted, std::move(test)));
  return inverted;
}

}  // namespace reticle::tokenizer::jinja
