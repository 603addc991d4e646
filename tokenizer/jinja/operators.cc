#include "tokenizer/jinja/operators.h"

#include <cmath>
#include <limits>
#include <vector>

#include "base/status.h"
#include "tokenizer/jinja/strings.h"

namespace reticle::tokenizer::jinja {
namespace {

const char* Symbol(Operator op) {
  switch (op) {
    case Operator::kAdd:
      return "+";
    case Operator::kSubtract:
      return "-";
    case Operator::kMultiply:
      return "*";
    case Operator::kDivide:
      return "/";
    case Operator::kFloorDivide:
      return "//";
    case Operator::kModulo:
      return "%";
    case Operator::kPower:
      return "** or pow()";
    case Operator::kLess:
      return "<";
    case Operator::kLessEqual:
      return "<=";
    case Operator::kGreater:
      return ">";
    case Operator::kGreaterEqual:
      return ">=";
    default:
      return "operator";
  }
}

absl::Status Overflow() { return OutOfRangeError("integer result does not fit in 64 bits"); }

absl::Status ZeroDivision() { return InvalidArgumentError("division by zero"); }

int64_t FloorDivide(int64_t a, int64_t b) {
  const int64_t quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

double FloatModulo(double a, double b) {
  const double remainder = std::fmod(a, b);
  if (remainder == 0) return std::copysign(0.0, b);
  return (remainder < 0) != (b < 0) ? remainder + b : remainder;
}

double FloatFloorDivide(double a, double b) {
  const double remainder = FloatModulo(a, b);
  const double quotient = (a - remainder) / b;
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double floored = std::floor(quotient);
  return quotient - floored > 0.5 ? floored + 1 : floored;
}

absl::StatusOr<Value> IntegerPower(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) return InvalidArgumentError("0.0 cannot be raised to a negative power");
    return Value(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  if (base == 0 || base == 1) return Value(exponent == 0 ? int64_t{1} : base);
  if (base == -1) return Value(exponent % 2 == 0 ? int64_t{1} : int64_t{-1});
  int64_t result = 1;
  for (; exponent > 0; --exponent) {
    if (__builtin_mul_overflow(result, base, &result)) return Overflow();
  }
  return Value(result);
}

absl::StatusOr<Value> Integers(Operator op, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (op) {
    case Operator::kAdd:
      if (__builtin_add_overflow(a, b, &result)) return Overflow();
      return Value(result);
    case Operator::kSubtract:
      if (__builtin_sub_overflow(a, b, &result)) return Overflow();
      return Value(result);
    case Operator::kMultiply:
      if (__builtin_mul_overflow(a, b, &result)) return Overflow();
      return Value(result);
    case Operator::kDivide:
      if (b == 0) return ZeroDivision();
      return Value(static_cast<double>(a) / static_cast<double>(b));
    case Operator::kFloorDivide:
      if (b == 0) return ZeroDivision();
      if (b == -1) {
        if (__builtin_sub_overflow(int64_t{0}, a, &result)) return Overflow();
        return Value(result);
      }
      return Value(FloorDivide(a, b));
    case Operator::kModulo:
      if (b == 0) return ZeroDivision();
      return Value(b == -1 ? int64_t{0} : a - b * FloorDivide(a, b));
    default:
      return IntegerPower(a, b);
  }
}

absl::StatusOr<Value> Floats(Operator op, double a, double b) {
  switch (op) {
    case Operator::kAdd:
      return Value(a + b);
    case Operator::kSubtract:
      return Value(a - b);
    case Operator::kMultiply:
      return Value(a * b);
    case Operator::kDivide:
      if (b == 0) return ZeroDivision();
      return Value(a / b);
    case Operator::kFloorDivide:
      if (b == 0) return ZeroDivision();
      return Value(FloatFloorDivide(a, b));
    case Operator::kModulo:
      if (b == 0) return ZeroDivision();
      return Value(FloatModulo(a, b));
    default: {
      if (a == 0 && b < 0) return ZeroDivision();
      if (a < 0 && b != std::floor(b) && std::isfinite(a)) {
        return InvalidArgumentError("complex numbers are not supported");
      }
      const double result = std::pow(a, b);
      if (std::isinf(result) && std::isfinite(a) && std::isfinite(b)) {
        return OutOfRangeError("float result is out of range");
      }
      return Value(result);
    }
  }
}

absl::Status TypeMismatch(Operator op, const Value& left, const Value& right) {
  if (left.is_undefined()) return UndefinedError(left);
  if (right.is_undefined()) return UndefinedError(right);
  if (left.kind() == Value::Kind::kBigInt || right.kind() == Value::Kind::kBigInt) {
    return OutOfRangeError("integers beyond 64 bits cannot be calculated with");
  }
  if (op == Operator::kAdd && left.is_string()) {
    return InvalidArgumentError("can only concatenate str (not \"%s\") to str", right.TypeName());
  }
  return InvalidArgumentError("unsupported operand type(s) for %s: '%s' and '%s'", Symbol(op),
                              left.TypeName(), right.TypeName());
}

absl::StatusOr<Value> JoinTwo(Runtime& runtime, const Text& left, const Text& right) {
  if (left.is_markup() == right.is_markup()) {
    Text joined = left;
    joined.Append(right);
    return Value(std::move(joined));
  }
  ASSIGN_OR_RETURN(const Text escaped, EscapeHtml(runtime, left.is_markup() ? right : left));
  Text joined = left.is_markup() ? left : escaped;
  joined.Append(left.is_markup() ? escaped : right);
  return Value(std::move(joined));
}

absl::StatusOr<Value> Concatenate(Runtime& runtime, const Value& left, const Value& right) {
  if (left.is_string() && right.is_string()) {
    RETURN_IF_ERROR(runtime.Allocate(left.text().size() + right.text().size()));
    return JoinTwo(runtime, left.text(), right.text());
  }
  const Sequence& a = left.sequence();
  const Sequence& b = right.sequence();
  RETURN_IF_ERROR(runtime.Allocate((a.items.size() + b.items.size()) * sizeof(Value)));
  std::vector<Value> items;
  items.reserve(a.items.size() + b.items.size());
  items.insert(items.end(), a.items.begin(), a.items.end());
  items.insert(items.end(), b.items.begin(), b.items.end());
  return runtime.List(std::move(items),
                      a.is_tuple() ? Sequence::Type::kTuple : Sequence::Type::kList);
}

absl::StatusOr<Value> Repeat(Runtime& runtime, const Value& value, int64_t count) {
  const uint64_t times = count < 0 ? 0 : static_cast<uint64_t>(count);
  const size_t size =
      value.is_string() ? value.text().size() : value.items().size() * sizeof(Value);
  if (size > 0 && times > runtime.limits().max_allocated_bytes / size) {
    RETURN_IF_ERROR(runtime.Allocate(std::numeric_limits<size_t>::max() / 2));
  }
  RETURN_IF_ERROR(runtime.Allocate(size * times));
  RETURN_IF_ERROR(runtime.Step(size == 0 ? 0 : times));
  if (value.is_string()) {
    Text out;
    out.set_markup(value.text().is_markup());
    for (uint64_t i = 0; size > 0 && i < times; ++i) out.Append(value.text());
    return Value(std::move(out));
  }
  std::vector<Value> items;
  items.reserve(value.items().size() * times);
  for (uint64_t i = 0; size > 0 && i < times; ++i) {
    items.insert(items.end(), value.items().begin(), value.items().end());
  }
  return runtime.List(std::move(items),
                      value.sequence().is_tuple() ? Sequence::Type::kTuple : Sequence::Type::kList);
}

bool IsConcatenable(const Value& value) {
  return value.is_sequence() &&
         (value.sequence().is_tuple() || value.sequence().type == Sequence::Type::kList);
}

}  // namespace

absl::StatusOr<Value> Arithmetic(Runtime& runtime, Operator op, const Value& left,
                                 const Value& right) {
  if (left.is_integral() && right.is_integral()) {
    return Integers(op, left.integer(), right.integer());
  }
  if (left.is_number() && right.is_number()) return Floats(op, left.number(), right.number());
  if (op == Operator::kAdd) {
    if (left.is_string() && right.is_string()) return Concatenate(runtime, left, right);
    if (IsConcatenable(left) && IsConcatenable(right) &&
        left.sequence().is_tuple() == right.sequence().is_tuple()) {
      return Concatenate(runtime, left, right);
    }
  } else if (op == Operator::kMultiply) {
    if ((left.is_string() || IsConcatenable(left)) && right.is_integral()) {
      return Repeat(runtime, left, right.integer());
    }
    if ((right.is_string() || IsConcatenable(right)) && left.is_integral()) {
      return Repeat(runtime, right, left.integer());
    }
  } else if (op == Operator::kModulo && left.is_string()) {
    return PercentFormat(runtime, left.text(), right);
  }
  return TypeMismatch(op, left, right);
}

absl::StatusOr<bool> Compare(Runtime& runtime, Operator op, const Value& left, const Value& right) {
  switch (op) {
    case Operator::kEqual:
      return runtime.Equal(left, right);
    case Operator::kNotEqual: {
      ASSIGN_OR_RETURN(const bool equal, runtime.Equal(left, right));
      return !equal;
    }
    case Operator::kIn:
      return runtime.Contains(right, left);
    case Operator::kNotIn: {
      ASSIGN_OR_RETURN(const bool contains, runtime.Contains(right, left));
      return !contains;
    }
    case Operator::kLess:
      return runtime.Less(left, right, "<");
    case Operator::kGreater:
      return runtime.Less(right, left, ">");
    default: {
      // Not the negation of the other order: neither holds for NaN.
      const bool less = op == Operator::kLessEqual;
      ASSIGN_OR_RETURN(const bool strict, less ? runtime.Less(left, right, Symbol(op))
                                               : runtime.Less(right, left, Symbol(op)));
      return strict ? absl::StatusOr<bool>(true) : runtime.Equal(left, right);
    }
  }
}

absl::StatusOr<Value> Negate(const Value& value) {
  if (value.is_integral()) {
    int64_t result = 0;
    if (__builtin_sub_overflow(int64_t{0}, value.integer(), &result)) return Overflow();
    return Value(result);
  }
  if (value.is_number()) return Value(-value.number());
  if (value.is_undefined()) return UndefinedError(value);
  return InvalidArgumentError("bad operand type for unary -: '%s'", value.TypeName());
}

absl::StatusOr<Value> Plus(const Value& value) {
  if (value.is_integral()) return Value(value.integer());
  if (value.is_number()) return value;
  if (value.is_undefined()) return UndefinedError(value);
  return InvalidArgumentError("bad operand type for unary +: '%s'", value.TypeName());
}

}  // namespace reticle::tokenizer::jinja
