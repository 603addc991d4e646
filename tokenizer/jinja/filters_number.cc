#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>

#include "base/status.h"
#include "tokenizer/jinja/filters.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/strings.h"

namespace reticle::tokenizer::jinja::filters {
namespace {

absl::StatusOr<Value> Truncated(double value) {
  if (std::isnan(value)) return InvalidArgumentError("cannot convert float NaN to integer");
  if (!(std::abs(value) < 9223372036854775808.0)) {
    return OutOfRangeError("%g does not fit in a 64-bit integer", value);
  }
  return Value(static_cast<int64_t>(value));
}

// Correctly rounded, ties to even, as Python's round().
double RoundFloat(double value, int64_t precision) {
  if (!std::isfinite(value) || precision > 300) return value;
  if (precision >= 0) {
    const std::string digits = absl::StrFormat("%.*f", static_cast<int>(precision), value);
    return std::strtod(digits.c_str(), nullptr);
  }
  if (precision < -308) return std::copysign(0.0, value);
  const double scale = std::pow(10.0, static_cast<double>(-precision));
  return std::nearbyint(value / scale) * scale;
}

absl::StatusOr<Value> RoundInteger(int64_t value, int64_t precision) {
  if (precision >= 0) return Value(value);
  if (precision < -18) return Value(int64_t{0});
  int64_t scale = 1;
  for (int64_t i = precision; i < 0; ++i) scale *= 10;
  const int64_t remainder = ((value % scale) + scale) % scale;
  int64_t rounded = 0;
  if (__builtin_sub_overflow(value, remainder, &rounded)) {
    return OutOfRangeError("rounded integer does not fit in 64 bits");
  }
  const bool is_odd = (rounded / scale) % 2 != 0;
  const bool up = remainder > scale / 2 || (remainder == scale / 2 && is_odd);
  if (up && __builtin_add_overflow(rounded, scale, &rounded)) {
    return OutOfRangeError("rounded integer does not fit in 64 bits");
  }
  return Value(rounded);
}

}  // namespace

absl::StatusOr<Value> Abs(Runtime& runtime, const Value& self, const CallArgs& args) {
  RETURN_IF_ERROR(ExpectNoArguments("abs", args));
  if (self.is_integral()) return self.integer() < 0 ? Negate(self) : Value(self.integer());
  if (self.is_number()) return Value(std::abs(self.number()));
  if (self.is_undefined()) return UndefinedError(self);
  return InvalidArgumentError("bad operand type for abs(): '%s'", self.TypeName());
}

absl::StatusOr<Value> Int(Runtime& runtime, const Value& self, const CallArgs& args) {
  static constexpr const char* kNames[] = {"default", "base"};
  ASSIGN_OR_RETURN(const auto bound, Bind("int", args, kNames));
  const Value fallback = bound[0] != nullptr ? *bound[0] : Value(int64_t{0});
  int64_t base = 10;
  if (bound[1] != nullptr) {
    ASSIGN_OR_RETURN(base, IntegerArgument(*bound[1], "base"));
  }
  if (self.is_undefined()) return UndefinedError(self);
  if (self.is_integral()) return Value(self.integer());
  if (self.kind() == Value::Kind::kBigInt) return self;
  if (self.is_number()) {
    return std::isnan(self.number()) ? absl::StatusOr<Value>(fallback) : Truncated(self.number());
  }
  if (!self.is_string()) return fallback;
  RETURN_IF_ERROR(runtime.Read(self.text().size()));
  if (base >= 0 && base <= 36) {
    const auto value = ParseInteger(self.view(), static_cast<int>(base));
    if (value.has_value()) return Value(*value);
  }
  const auto number = ParseFloat(self.view());
  if (!number.has_value() || std::isnan(*number)) return fallback;
  return Truncated(*number);
}

absl::StatusOr<Value> Float(Runtime& runtime, const Value& self, const CallArgs& args) {
  static constexpr const char* kNames[] = {"default"};
  ASSIGN_OR_RETURN(const auto bound, Bind("float", args, kNames));
  if (self.is_undefined()) return UndefinedError(self);
  if (self.is_number()) return Value(self.number());
  if (self.is_string()) {
    RETURN_IF_ERROR(runtime.Read(self.text().size()));
    const auto number = ParseFloat(self.view());
    if (number.has_value()) return Value(*number);
  }
  return bound[0] != nullptr ? *bound[0] : Value(0.0);
}

absl::StatusOr<Value> Round(Runtime& runtime, const Value& self, const CallArgs& args) {
  static constexpr const char* kNames[] = {"precision", "method"};
  ASSIGN_OR_RETURN(const auto bound, Bind("round", args, kNames));
  int64_t precision = 0;
  if (bound[0] != nullptr) {
    ASSIGN_OR_RETURN(precision, IntegerArgument(*bound[0], "precision"));
  }
  std::string method = "common";
  if (bound[1] != nullptr) {
    ASSIGN_OR_RETURN(const Text* given, StringArgument(*bound[1], "method"));
    method = given->str();
  }
  if (self.is_undefined()) return UndefinedError(self);
  if (!self.is_number()) {
    return InvalidArgumentError("type %s doesn't define __round__ method", self.TypeName());
  }
  if (method == "common") {
    if (self.is_integral()) return RoundInteger(self.integer(), precision);
    return Value(RoundFloat(self.number(), precision));
  }
  if (method != "ceil" && method != "floor") {
    return InvalidArgumentError("method must be common, ceil or floor");
  }
  const double scale =
      std::pow(10.0, static_cast<double>(std::clamp<int64_t>(precision, -300, 300)));
  const double scaled = self.number() * scale;
  return Value((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

}  // namespace reticle::tokenizer::jinja::filters
