// The element types of GGUF tensors that Reticle reads, and their block geometry.
// Numbers and block sizes as in the GGUF specification (ggml_type).
#ifndef RETICLE_MODELS_TENSOR_TYPE_H_
#define RETICLE_MODELS_TENSOR_TYPE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "absl/status/statusor.h"

namespace reticle::models {

enum class TensorType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBF16 = 30,
};

// A row of a tensor is a run of blocks: `elements` values stored in `bytes` bytes.
struct TensorTypeTraits {
  std::string_view name;  // as GGUF tools print it, for example "Q4_K"
  size_t elements;        // values in a block; 1 for plain floats
  size_t bytes;           // bytes of a block
};

// The traits of a type, or nullopt for a number that Reticle does not read.
std::optional<TensorTypeTraits> GetTensorTypeTraits(uint32_t ggml_type);
TensorTypeTraits Traits(TensorType type);
std::string_view TensorTypeName(TensorType type);
// The name of any element type that ggml defines, read or not ("IQ2_XS"); empty for other numbers.
std::string_view GgmlTypeName(uint32_t ggml_type);
// All types that Reticle reads, by number.
std::span<const TensorType> AllTensorTypes();

// Bytes that a tensor of `shape` (innermost first) occupies. INVALID_ARGUMENT, naming the
// dimension, when there are none or more than kMaxTensorDimensions, one is zero, the row is no
// whole number of blocks, or the product does not fit 63 bits.
inline constexpr size_t kMaxTensorDimensions = 4;
absl::StatusOr<uint64_t> TensorSizeBytes(TensorType type, std::span<const uint64_t> shape);

}  // namespace reticle::models

#endif  // RETICLE_MODELS_TENSOR_TYPE_H_
