// Splits a template into tokens, with Jinja2's rules for whitespace around tags as chat templates
// have it (trim_blocks, lstrip_blocks, one newline at the end dropped).
#ifndef RETICLE_TOKENIZER_JINJA_LEXER_H_
#define RETICLE_TOKENIZER_JINJA_LEXER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace reticle::tokenizer::jinja {

struct Position {
  uint32_t line = 1;    // from 1
  uint32_t column = 1;  // in bytes, from 1
};

enum class TokenType : uint8_t {
  kData,           // text between tags; `text`
  kVariableBegin,  // {{
  kVariableEnd,
  kBlockBegin,  // {%
  kBlockEnd,
  kName,
  kString,  // `text`, escapes resolved
  kInteger,
  kFloat,
  kOperator,  // `text`
  kEnd,
};

struct Token {
  TokenType type = TokenType::kEnd;
  Position position;
  std::string text;
  int64_t integer = 0;
  double number = 0;
};

// The tokens, the last one kEnd. INVALID_ARGUMENT with line and column for what is not a template.
absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source);

// INVALID_ARGUMENT "line L, column C: what".
absl::Status SyntaxError(Position position, std::string_view what);

}  // namespace reticle::tokenizer::jinja

#endif  // RETICLE_TOKENIZER_JINJA_LEXER_H_
