// A metadata value of a GGUF file.
#ifndef RETICLE_MODELS_GGUF_VALUE_H_
#define RETICLE_MODELS_GGUF_VALUE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace reticle::models {

// The type of a metadata value, numbered as in the specification.
enum class GgufValueType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

// "uint32", "array" and so on; "unknown" for a number that the specification lacks.
std::string_view GgufValueTypeName(GgufValueType type);
// Bytes of a value in a file; 0 for strings and arrays, whose length varies.
size_t GgufValueTypeSize(GgufValueType type);

class GgufCursor;

// A view of a value whose bytes were checked when the file was opened: cheap to copy, immutable,
// and valid as long as the file. As* return INVALID_ARGUMENT, naming both types, when the value is
// of another type. AsUint and AsInt accept any integer type whose value fits, AsFloat both floats.
class GgufValue {
 public:
  // Parses the value of `type` at `cursor` and moves the cursor behind it. DATA_LOSS when the bytes
  // end too early, INVALID_ARGUMENT for an unknown type, a bool other than 0 or 1, or arrays nested
  // deeper than kMaxDepth; each with the byte offset.
  static absl::StatusOr<GgufValue> Parse(GgufValueType type, GgufCursor& cursor);
  static constexpr int kMaxDepth = 8;

  GgufValueType type() const { return type_; }
  absl::StatusOr<uint64_t> AsUint() const;
  absl::StatusOr<int64_t> AsInt() const;
  absl::StatusOr<double> AsFloat() const;
  absl::StatusOr<bool> AsBool() const;
  absl::StatusOr<std::string_view> AsString() const;

  // Arrays. `size` and `element_type` are 0 and kUint8 for other values.
  uint64_t size() const { return size_; }
  GgufValueType element_type() const { return element_type_; }
  // The elements one by one, for arrays of any type, nested ones too.
  absl::StatusOr<std::vector<GgufValue>> AsArray() const;
  absl::StatusOr<std::vector<std::string_view>> AsStringArray() const;
  absl::StatusOr<std::vector<int64_t>> AsIntArray() const;  // any integer type
  absl::StatusOr<std::vector<float>> AsFloatArray() const;  // float32 or float64

  // The value as it stands in the file: without its type, with the lengths of strings and the
  // element type and length of arrays.
  std::span<const std::byte> encoded() const { return encoded_; }

 private:
  GgufValue(GgufValueType type, std::span<const std::byte> encoded)
      : type_(type), encoded_(encoded) {}
  static absl::StatusOr<GgufValue> ParseAtDepth(GgufValueType type, GgufCursor& cursor, int depth);
  absl::Status WrongType(std::string_view wanted) const;
  absl::Status ExpectArray(std::string_view wanted, bool element_type_fits) const;
  std::span<const std::byte> elements() const;

  GgufValueType type_;
  GgufValueType element_type_ = GgufValueType::kUint8;
  uint64_t size_ = 0;
  std::span<const std::byte> encoded_;
};

}  // namespace reticle::models

#endif  // RETICLE_MODELS_GGUF_VALUE_H_
