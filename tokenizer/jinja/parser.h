// Parses a template into its Ast.
#ifndef RETICLE_TOKENIZER_JINJA_PARSER_H_
#define RETICLE_TOKENIZER_JINJA_PARSER_H_

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "tokenizer/jinja/ast.h"

namespace reticle::tokenizer::jinja {

// INVALID_ARGUMENT with line and column for a syntax error or a tag that is not supported (extends,
// include, import, block); RESOURCE_EXHAUSTED for one nested too deep. Takes time linear in the
// source.
absl::StatusOr<std::unique_ptr<const Ast>> Parse(std::string_view source);

}  // namespace reticle::tokenizer::jinja

#endif  // RETICLE_TOKENIZER_JINJA_PARSER_H_
