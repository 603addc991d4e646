#include "models/gguf_value.h"

#include <cstring>
#include <limits>

#include "base/check.h"
#include "base/status.h"
#include "models/gguf_cursor.h"

namespace reticle::models {
namespace {

constexpr uint64_t kArrayHeaderBytes = 12;

bool IsInteger(GgufValueType type) {
  switch (type) {
    case GgufValueType::kUint8:
    case GgufValueType::kInt8:
    case GgufValueType::kUint16:
    case GgufValueType::kInt16:
    case GgufValueType::kUint32:
    case GgufValueType::kInt32:
    case GgufValueType::kUint64:
    case GgufValueType::kInt64:
      return true;
    default:
      return false;
  }
}

bool IsFloat(GgufValueType type) {
  return type == GgufValueType::kFloat32 || type == GgufValueType::kFloat64;
}

template <typename T>
T Load(const std::byte* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

// An integer of any type: the bits, and whether they are to be read as a negative int64.
struct Integer {
  uint64_t bits;
  bool negative;
};

Integer FromSigned(int64_t value) { return {static_cast<uint64_t>(value), value < 0}; }

Integer LoadInteger(GgufValueType type, const std::byte* bytes) {
  switch (type) {
    case GgufValueType::kUint8:
      return {Load<uint8_t>(bytes), false};
    case GgufValueType::kInt8:
      return FromSigned(Load<int8_t>(bytes));
    case GgufValueType::kUint16:
      return {Load<uint16_t>(bytes), false};
    case GgufValueType::kInt16:
      return FromSigned(Load<int16_t>(bytes));
    case GgufValueType::kUint32:
      return {Load<uint32_t>(bytes), false};
    case GgufValueType::kInt32:
      return FromSigned(Load<int32_t>(bytes));
    case GgufValueType::kUint64:
      return {Load<uint64_t>(bytes), false};
    default:
      return FromSigned(Load<int64_t>(bytes));
  }
}

bool FitsInt64(const Integer& integer) {
  return integer.negative ||
         integer.bits <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
}

double LoadFloat(GgufValueType type, const std::byte* bytes) {
  return type == GgufValueType::kFloat32 ? Load<float>(bytes) : Load<double>(bytes);
}

absl::Status CheckBools(std::span<const std::byte> bytes, uint64_t offset) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    const int value = std::to_integer<int>(bytes[i]);
    if (value > 1) {
      return InvalidArgumentError("bool at byte %d is %d; it must be 0 or 1", offset + i, value);
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::string_view GgufValueTypeName(GgufValueType type) {
  constexpr std::string_view kNames[] = {"uint8",  "int8",    "uint16", "int16",  "uint32",
                                         "int32",  "float32", "bool",   "string", "array",
                                         "uint64", "int64",   "float64"};
  const uint32_t number = static_cast<uint32_t>(type);
  return number < std::size(kNames) ? kNames[number] : "unknown";
}

size_t GgufValueTypeSize(GgufValueType type) {
  switch (type) {
    case GgufValueType::kUint8:
    case GgufValueType::kInt8:
    case GgufValueType::kBool:
      return 1;
    case GgufValueType::kUint16:
    case GgufValueType::kInt16:
      return 2;
    case GgufValueType::kUint32:
    case GgufValueType::kInt32:
    case GgufValueType::kFloat32:
      return 4;
    case GgufValueType::kUint64:
    case GgufValueType::kInt64:
    case GgufValueType::kFloat64:
      return 8;
    case GgufValueType::kString:
    case GgufValueType::kArray:
      break;
  }
  return 0;
}

absl::StatusOr<GgufValue> GgufValue::Parse(GgufValueType type, GgufCursor& cursor) {
  return ParseAtDepth(type, cursor, 0);
}

absl::StatusOr<GgufValue> GgufValue::ParseAtDepth(GgufValueType type, GgufCursor& cursor,
                                                  int depth) {
  if (type > GgufValueType::kFloat64) {
    return InvalidArgumentError("value type before byte %d is %d; it must be 0 to 12",
                                cursor.offset(), static_cast<uint32_t>(type));
  }
  const uint64_t begin = cursor.offset();
  if (const size_t size = GgufValueTypeSize(type); size > 0) {
    ASSIGN_OR_RETURN(const auto bytes, cursor.Take(size, GgufValueTypeName(type)));
    if (type == GgufValueType::kBool) RETURN_IF_ERROR(CheckBools(bytes, begin));
    return GgufValue(type, bytes);
  }
  if (type == GgufValueType::kString) {
    RETURN_IF_ERROR(cursor.ReadString("string").status());
    return GgufValue(type, cursor.Since(begin));
  }

  if (depth >= kMaxDepth) {
    return InvalidArgumentError("array at byte %d is nested %d deep; the limit is %d", begin,
                                depth + 1, kMaxDepth);
  }
  ASSIGN_OR_RETURN(const uint32_t element_number, cursor.Read<uint32_t>("array element type"));
  const auto element_type = static_cast<GgufValueType>(element_number);
  if (element_type > GgufValueType::kFloat64) {
    return InvalidArgumentError("array element type at byte %d is %d; it must be 0 to 12", begin,
                                element_number);
  }
  const size_t fixed_size = GgufValueTypeSize(element_type);
  const uint64_t min_size = fixed_size > 0                           ? fixed_size
                            : element_type == GgufValueType::kString ? sizeof(uint64_t)
                                                                     : kArrayHeaderBytes;
  ASSIGN_OR_RETURN(const uint64_t count, cursor.ReadCount(min_size, "array length"));
  if (fixed_size > 0) {
    const uint64_t data_offset = cursor.offset();
    ASSIGN_OR_RETURN(const auto bytes, cursor.Take(count * fixed_size, "array"));
    if (element_type == GgufValueType::kBool) RETURN_IF_ERROR(CheckBools(bytes, data_offset));
  } else if (element_type == GgufValueType::kString) {
    for (uint64_t i = 0; i < count; ++i) {
      RETURN_IF_ERROR(cursor.ReadString("string of an array").status());
    }
  } else {
    for (uint64_t i = 0; i < count; ++i) {
      RETURN_IF_ERROR(ParseAtDepth(element_type, cursor, depth + 1).status());
    }
  }
  GgufValue value(type, cursor.Since(begin));
  value.element_type_ = element_type;
  value.size_ = count;
  return value;
}

absl::Status GgufValue::WrongType(std::string_view wanted) const {
  if (type_ == GgufValueType::kArray) {
    return InvalidArgumentError("is of type array of %s; %s is expected",
                                GgufValueTypeName(element_type_), wanted);
  }
  return InvalidArgumentError("is of type %s; %s is expected", GgufValueTypeName(type_), wanted);
}

absl::Status GgufValue::ExpectArray(std::string_view wanted, bool element_type_fits) const {
  // An empty array has no elements of a wrong type: writers choose any type for it.
  if (type_ == GgufValueType::kArray && (element_type_fits || size_ == 0)) {
    return absl::OkStatus();
  }
  return WrongType(wanted);
}

std::span<const std::byte> GgufValue::elements() const {
  return encoded_.subspan(kArrayHeaderBytes);
}

absl::StatusOr<uint64_t> GgufValue::AsUint() const {
  if (!IsInteger(type_)) return WrongType("an unsigned integer");
  const Integer integer = LoadInteger(type_, encoded_.data());
  if (integer.negative) {
    return InvalidArgumentError("is %d; it must not be negative",
                                static_cast<int64_t>(integer.bits));
  }
  return integer.bits;
}

absl::StatusOr<int64_t> GgufValue::AsInt() const {
  if (!IsInteger(type_)) return WrongType("an integer");
  const Integer integer = LoadInteger(type_, encoded_.data());
  if (!FitsInt64(integer)) {
    return InvalidArgumentError("is %d; the limit is %d", integer.bits,
                                std::numeric_limits<int64_t>::max());
  }
  return static_cast<int64_t>(integer.bits);
}

absl::StatusOr<double> GgufValue::AsFloat() const {
  if (!IsFloat(type_)) return WrongType("a float");
  return LoadFloat(type_, encoded_.data());
}

absl::StatusOr<bool> GgufValue::AsBool() const {
  if (type_ != GgufValueType::kBool) return WrongType("bool");
  return encoded_[0] != std::byte{0};
}

absl::StatusOr<std::string_view> GgufValue::AsString() const {
  if (type_ != GgufValueType::kString) return WrongType("string");
  const auto text = encoded_.subspan(sizeof(uint64_t));
  return std::string_view(reinterpret_cast<const char*>(text.data()), text.size());
}

absl::StatusOr<std::vector<GgufValue>> GgufValue::AsArray() const {
  RETURN_IF_ERROR(ExpectArray("array", true));
  std::vector<GgufValue> values;
  values.reserve(size_);
  GgufCursor cursor(elements());
  for (uint64_t i = 0; i < size_; ++i) {
    ASSIGN_OR_RETURN(const GgufValue value, Parse(element_type_, cursor));
    values.push_back(value);
  }
  return values;
}

absl::StatusOr<std::vector<std::string_view>> GgufValue::AsStringArray() const {
  RETURN_IF_ERROR(ExpectArray("array of string", element_type_ == GgufValueType::kString));
  std::vector<std::string_view> strings;
  strings.reserve(size_);
  GgufCursor cursor(elements());
  for (uint64_t i = 0; i < size_; ++i) {
    ASSIGN_OR_RETURN(const std::string_view text, cursor.ReadString("string of an array"));
    strings.push_back(text);
  }
  return strings;
}

absl::StatusOr<std::vector<int64_t>> GgufValue::AsIntArray() const {
  RETURN_IF_ERROR(ExpectArray("array of integers", IsInteger(element_type_)));
  std::vector<int64_t> integers;
  integers.reserve(size_);
  const size_t stride = GgufValueTypeSize(element_type_);
  const std::span<const std::byte> bytes = elements();
  for (uint64_t i = 0; i < size_; ++i) {
    const Integer integer = LoadInteger(element_type_, bytes.data() + i * stride);
    if (!FitsInt64(integer)) {
      return InvalidArgumentError("element %d is %d; the limit is %d", i, integer.bits,
                                  std::numeric_limits<int64_t>::max());
    }
    integers.push_back(static_cast<int64_t>(integer.bits));
  }
  return integers;
}

absl::StatusOr<std::vector<float>> GgufValue::AsFloatArray() const {
  RETURN_IF_ERROR(ExpectArray("array of floats", IsFloat(element_type_)));
  std::vector<float> floats;
  floats.reserve(size_);
  const size_t stride = GgufValueTypeSize(element_type_);
  const std::span<const std::byte> bytes = elements();
  for (uint64_t i = 0; i < size_; ++i) {
    floats.push_back(static_cast<float>(LoadFloat(element_type_, bytes.data() + i * stride)));
  }
  return floats;
}

}  // namespace reticle::models
