// Parses expressions with Jinja2's grammar; the base of the statement parser.
#ifndef RETICLE_TOKENIZER_JINJA_EXPRESSION_PARSER_H_
#define RETICLE_TOKENIZER_JINJA_EXPRESSION_PARSER_H_

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tokenizer/jinja/ast.h"
#include "tokenizer/jinja/lexer.h"

namespace reticle::tokenizer::jinja {

class ExpressionParser {
 public:
  // Nested expressions and tags, and the depth of an expression's tree.
  static constexpr int kMaxDepth = 200;

 protected:
  explicit ExpressionParser(std::vector<Token> tokens);
  ~ExpressionParser() = default;

  const Token& Current() const { return tokens_[next_]; }
  const Token& Look() const { return tokens_[next_ + 1 < tokens_.size() ? next_ + 1 : next_]; }
  void Advance() {
    if (next_ + 1 < tokens_.size()) ++next_;
  }
  bool IsOperator(std::string_view op) const { return Is(Current(), TokenType::kOperator, op); }
  bool IsName(std::string_view name) const { return Is(Current(), TokenType::kName, name); }
  bool SkipOperator(std::string_view op);
  bool SkipName(std::string_view name);
  absl::Status ExpectOperator(std::string_view op);
  absl::Status ExpectName(std::string_view name);
  absl::Status Expect(TokenType type, std::string_view what);
  // The name at the cursor, which it passes.
  absl::StatusOr<std::string> TakeName();
  absl::Status Unexpected(std::string_view expected) const;

  absl::StatusOr<ExprPtr> ParseExpression();
  // Without a conditional expression at the top, as `if` and `for .. in` take it.
  absl::StatusOr<ExprPtr> ParseOr();
  // Expressions with commas between them become a tuple; `end_name` ends it too if not empty.
  absl::StatusOr<ExprPtr> ParseTuple(bool conditional, std::string_view end_name = "",
                                     bool in_parentheses = false);
  absl::StatusOr<ExprPtr> ParsePrimary();
  // Filters after an expression; `node` is null in filter blocks, where the first name follows at
  // once.
  absl::StatusOr<ExprPtr> ParseFilters(ExprPtr node, bool starts_inline);
  uint32_t NameId(std::string_view name);

  // Keeps recursion within kMaxDepth.
  class Nesting {
   public:
    explicit Nesting(ExpressionParser& parser) : parser_(parser) { ++parser_.depth_; }
    ~Nesting() { --parser_.depth_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;
    absl::Status status() const;

   private:
    ExpressionParser& parser_;
  };

  // Which of the special names a macro's body mentions, by Ast id.
  std::vector<std::vector<bool>> special_names_;
  std::vector<Value> names_;

 private:
  static bool Is(const Token& token, TokenType type, std::string_view text) {
    return token.type == type && token.text == text;
  }
  ExprPtr Make(Expr::Kind kind, Position position) const;
  // Adds a child and keeps `depth`; an error when the tree gets too deep.
  absl::Status Adopt(Expr& parent, ExprPtr child) const;
  absl::StatusOr<ExprPtr> Binary(Expr::Kind kind, Operator op, ExprPtr left, ExprPtr right,
                                 Position position) const;

  absl::StatusOr<ExprPtr> ParseAnd();
  absl::StatusOr<ExprPtr> ParseNot();
  absl::StatusOr<ExprPtr> ParseCompare();
  absl::StatusOr<ExprPtr> ParseSum();
  absl::StatusOr<ExprPtr> ParseConcatenation();
  absl::StatusOr<ExprPtr> ParseProduct();
  absl::StatusOr<ExprPtr> ParsePower();
  absl::StatusOr<ExprPtr> ParseUnary(bool with_filters);
  absl::StatusOr<ExprPtr> ParsePostfix(ExprPtr node);
  absl::StatusOr<ExprPtr> ParseSubscript(ExprPtr node);
  absl::StatusOr<ExprPtr> ParseFilterExpression(ExprPtr node);
  absl::StatusOr<ExprPtr> ParseTest(ExprPtr node);
  absl::StatusOr<ExprPtr> ParseCall(ExprPtr node);
  absl::StatusOr<ExprPtr> ParseList();
  absl::StatusOr<ExprPtr> ParseDict();
  absl::Status ParseArguments(Expr& call);
  absl::StatusOr<std::string> ParseDottedName();

  const std::vector<Token> tokens_;
  size_t next_ = 0;
  int depth_ = 0;
  absl::flat_hash_map<std::string, uint32_t> name_ids_;
};

}  // namespace reticle::tokenizer::jinja

#endif  // RETICLE_TOKENIZER_JINJA_EXPRESSION_PARSER_H_
