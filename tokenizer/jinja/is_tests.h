// What stands after `is`. All have the signature of Builtin and give a bool.
#ifndef RETICLE_TOKENIZER_JINJA_IS_TESTS_H_
#define RETICLE_TOKENIZER_JINJA_IS_TESTS_H_

#include "absl/status/statusor.h"
#include "tokenizer/jinja/runtime.h"

namespace reticle::tokenizer::jinja::is_tests {

#define RETICLE_DECLARE_TEST(Name) \
  absl::StatusOr<Value> Name(Runtime& runtime, const Value& self, const CallArgs& args);

RETICLE_DECLARE_TEST(Boolean)
RETICLE_DECLARE_TEST(Callable)
RETICLE_DECLARE_TEST(Defined)
RETICLE_DECLARE_TEST(DivisibleBy)
RETICLE_DECLARE_TEST(Equal)
RETICLE_DECLARE_TEST(Escaped)
RETICLE_DECLARE_TEST(Even)
RETICLE_DECLARE_TEST(False)
RETICLE_DECLARE_TEST(Filter)
RETICLE_DECLARE_TEST(Float)
RETICLE_DECLARE_TEST(Greater)
RETICLE_DECLARE_TEST(GreaterEqual)
RETICLE_DECLARE_TEST(In)
RETICLE_DECLARE_TEST(Integer)
RETICLE_DECLARE_TEST(Iterable)
RETICLE_DECLARE_TEST(Less)
RETICLE_DECLARE_TEST(LessEqual)
RETICLE_DECLARE_TEST(Lower)
RETICLE_DECLARE_TEST(Mapping)
RETICLE_DECLARE_TEST(None)
RETICLE_DECLARE_TEST(NotEqual)
RETICLE_DECLARE_TEST(Number)
RETICLE_DECLARE_TEST(Odd)
RETICLE_DECLARE_TEST(SameAs)
RETICLE_DECLARE_TEST(Sequence)
RETICLE_DECLARE_TEST(String)
RETICLE_DECLARE_TEST(Test)
RETICLE_DECLARE_TEST(True)
RETICLE_DECLARE_TEST(Undefined)
RETICLE_DECLARE_TEST(Upper)

#undef RETICLE_DECLARE_TEST

}  // namespace reticle::tokenizer::jinja::is_tests

#endif  // RETICLE_TOKENIZER_JINJA_IS_TESTS_H_
