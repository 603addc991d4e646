// Python's arithmetic on values.
#ifndef RETICLE_TOKENIZER_JINJA_OPERATORS_H_
#define RETICLE_TOKENIZER_JINJA_OPERATORS_H_

#include "absl/status/statusor.h"
#include "tokenizer/jinja/ast.h"
#include "tokenizer/jinja/runtime.h"
#include "tokenizer/jinja/value.h"

namespace reticle::tokenizer::jinja {

// left op right for +, -, *, /, //, %, **. A type error as Python has it; OUT_OF_RANGE where the
// result does not fit in 64 bits.
absl::StatusOr<Value> Arithmetic(Runtime& runtime, Operator op, const Value& left,
                                 const Value& right);
// left op right for comparisons, `in` and `not in`.
absl::StatusOr<bool> Compare(Runtime& runtime, Operator op, const Value& left, const Value& right);
absl::StatusOr<Value> Negate(const Value& value);
absl::StatusOr<Value> Plus(const Value& value);

// Python's `format % argument`; a tuple gives several arguments, a dict named ones.
absl::StatusOr<Value> PercentFormat(Runtime& runtime, const Text& format, const Value& argument);
// str.format.
absl::StatusOr<Value> BraceFormat(Runtime& runtime, const Text& format, const CallArgs& args);

}  // namespace reticle::tokenizer::jinja

#endif  // RETICLE_TOKENIZER_JINJA_OPERATORS_H_
