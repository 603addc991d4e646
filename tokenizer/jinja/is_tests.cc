#include "tokenizer/jinja/is_tests.h"

#include <string_view>

#include "base/status.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/unicode.h"

namespace reticle::tokenizer::jinja::is_tests {
namespace {

using Kind = Value::Kind;

// A test without arguments.
#define RETICLE_PLAIN_TEST(Name, name, condition)                                         \
  absl::StatusOr<Value> Name(Runtime& runtime, const Value& self, const CallArgs& args) { \
    RETURN_IF_ERROR(ExpectNoArguments(name, args));                                       \
    return Value(condition);                                                              \
  }

absl::StatusOr<const Value*> OneArgument(const CallArgs& args, const char* name) {
  if (args.positional.size() == 1 && args.named.empty()) return &args.positional[0];
  return InvalidArgumentError("test '%s' takes one argument", name);
}

absl::StatusOr<Value> Compared(Runtime& runtime, const Value& self, const CallArgs& args,
                               Operator op, const char* name) {
  ASSIGN_OR_RETURN(const Value* other, OneArgument(args, name));
  ASSIGN_OR_RETURN(const bool holds, Compare(runtime, op, self, *other));
  return Value(holds);
}

absl::StatusOr<Value> Divides(Runtime& runtime, const Value& self, const Value& divisor,
                              int64_t remainder) {
  ASSIGN_OR_RETURN(const Value rest, Arithmetic(runtime, Operator::kModulo, self, divisor));
  ASSIGN_OR_RETURN(const bool holds, runtime.Equal(rest, Value(remainder)));
  return Value(holds);
}

// str.isupper and str.islower: all cased characters have the case, and there is one.
absl::StatusOr<Value> HasCase(Runtime& runtime, const Value& self, const CallArgs& args,
                              const char* name, bool (*wanted)(char32_t)) {
  RETURN_IF_ERROR(ExpectNoArguments(name, args));
  ASSIGN_OR_RETURN(const Text text, runtime.ToText(self));
  RETURN_IF_ERROR(runtime.Read(text.size() * 4));
  bool any = false;
  for (size_t pos = 0; pos < text.size();) {
    const std::string_view character = CharacterAt(text.view(), pos);
    const char32_t c = DecodeCharacter(character);
    if (IsCased(c)) {
      if (!wanted(c)) return Value(false);
      any = true;
    }
    pos += character.size();
  }
  return Value(any);
}

bool IsSame(const Value& a, const Value& b) {
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kNone:
      return true;
    case Kind::kBool:
    case Kind::kInt:
      return a.integer() == b.integer();
    case Kind::kString:
      return a.shared_text() == b.shared_text();
    case Kind::kSequence:
      return a.shared_sequence() == b.shared_sequence();
    case Kind::kDict:
      return &a.dict() == &b.dict();
    case Kind::kNative:
      return &a.native() == &b.native();
    default:
      return false;
  }
}

bool IsIterable(const Value& value) {
  return value.is_undefined() || value.is_string() || value.is_sequence() || value.is_dict() ||
         (value.is_native() && value.native().IsIterable());
}

}  // namespace

RETICLE_PLAIN_TEST(Boolean, "boolean", self.is_bool())
RETICLE_PLAIN_TEST(Callable, "callable",
                   self.is_undefined() || (self.is_native() && self.native().IsCallable()))
RETICLE_PLAIN_TEST(Defined, "defined", !self.is_undefined())
RETICLE_PLAIN_TEST(Escaped, "escaped", self.is_string() && self.text().is_markup())
RETICLE_PLAIN_TEST(False, "false", self.is_bool() && !self.boolean())
RETICLE_PLAIN_TEST(Float, "float", self.kind() == Kind::kFloat)
RETICLE_PLAIN_TEST(Integer, "integer", self.kind() == Kind::kInt || self.kind() == Kind::kBigInt)
RETICLE_PLAIN_TEST(Iterable, "iterable", IsIterable(self))
RETICLE_PLAIN_TEST(Mapping, "mapping", self.is_dict())
RETICLE_PLAIN_TEST(None, "none", self.is_none())
RETICLE_PLAIN_TEST(Number, "number", self.is_number() || self.kind() == Kind::kBigInt)
RETICLE_PLAIN_TEST(Sequence, "sequence",
                   self.is_undefined() || self.is_string() || self.is_dict() ||
                       (self.is_sequence() && !self.sequence().is_view()))
RETICLE_PLAIN_TEST(String, "string", self.is_string())
RETICLE_PLAIN_TEST(True, "true", self.is_bool() && self.boolean())
RETICLE_PLAIN_TEST(Undefined, "undefined", self.is_undefined())
RETICLE_PLAIN_TEST(Filter, "filter", self.is_string() && FindFilter(self.view()) != nullptr)
RETICLE_PLAIN_TEST(Test, "test", self.is_string() && FindTest(self.view()) != nullptr)

absl::StatusOr<Value> DivisibleBy(Runtime& runtime, const Value& self, const CallArgs& args) {
  ASSIGN_OR_RETURN(const Value* divisor, OneArgument(args, "divisibleby"));
  return Divides(runtime, self, *divisor, 0);
}

absl::StatusOr<Value> Even(Runtime& runtime, const Value& self, const CallArgs& args) {
  RETURN_IF_ERROR(ExpectNoArguments("even", args));
  return Divides(runtime, self, Value(int64_t{2}), 0);
}

absl::StatusOr<Value> Odd(Runtime& runtime, const Value& self, const CallArgs& args) {
  RETURN_IF_ERROR(ExpectNoArguments("odd", args));
  return Divides(runtime, self, Value(int64_t{2}), 1);
}

absl::StatusOr<Value> Equal(Runtime& runtime, const Value& self, const CallArgs& args) {
  return Compared(runtime, self, args, Operator::kEqual, "eq");
}

absl::StatusOr<Value> NotEqual(Runtime& runtime, const Value& self, const CallArgs& args) {
  return Compared(runtime, self, args, Operator::kNotEqual, "ne");
}

absl::StatusOr<Value> Less(Runtime& runtime, const Value& self, const CallArgs& args) {
  return Compared(runtime, self, args, Operator::kLess, "lt");
}

absl::StatusOr<Value> LessEqual(Runtime& runtime, const Value& self, const CallArgs& args) {
  return Compared(runtime, self, args, Operator::kLessEqual, "le");
}

absl::StatusOr<Value> Greater(Runtime& runtime, const Value& self, const CallArgs& args) {
  return Compared(runtime, self, args, Operator::kGreater, "gt");
}

absl::StatusOr<Value> GreaterEqual(Runtime& runtime, const Value& self, const CallArgs& args) {
  return Compared(runtime, self, args, Operator::kGreaterEqual, "ge");
}

absl::StatusOr<Value> In(Runtime& runtime, const Value& self, const CallArgs& args) {
  return Compared(runtime, self, args, Operator::kIn, "in");
}

absl::StatusOr<Value> SameAs(Runtime& runtime, const Value& self, const CallArgs& args) {
  ASSIGN_OR_RETURN(const Value* other, OneArgument(args, "sameas"));
  return Value(IsSame(self, *other));
}

absl::StatusOr<Value> Lower(Runtime& runtime, const Value& self, const CallArgs& args) {
  return HasCase(runtime, self, args, "lower", IsLower);
}

absl::StatusOr<Value> Upper(Runtime& runtime, const Value& self, const CallArgs& args) {
  return HasCase(runtime, self, args, "upper", IsUpper);
}

}  // namespace reticle::tokenizer::jinja::is_tests
