#include "models/tensor_type.h"

#include <array>
#include <limits>

#include "base/check.h"
#include "base/status.h"

namespace reticle::models {
namespace {

constexpr std::array kAllTypes = {
    TensorType::kF32,  TensorType::kF16,  TensorType::kQ4_0, TensorType::kQ4_1,
    TensorType::kQ5_0, TensorType::kQ5_1, TensorType::kQ8_0, TensorType::kQ4_K,
    TensorType::kQ5_K, TensorType::kQ6_K, TensorType::kBF16,
};

// Indexed by ggml_type; numbers that ggml has withdrawn are empty.
constexpr std::array<std::string_view, 43> kGgmlNames = {
    "F32",     "F16",   "Q4_0",   "Q4_1",  "",      "",       "Q5_0", "Q5_1",    "Q8_0",
    "Q8_1",    "Q2_K",  "Q3_K",   "Q4_K",  "Q5_K",  "Q6_K",   "Q8_K", "IQ2_XXS", "IQ2_XS",
    "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "I8",   "I16",     "I32",
    "I64",     "F64",   "IQ1_M",  "BF16",  "",      "",       "",     "TQ1_0",   "TQ2_0",
    "",        "",      "",       "MXFP4", "NVFP4", "Q1_0",   "Q2_0",
};

}  // namespace

std::optional<TensorTypeTraits> GetTensorTypeTraits(uint32_t ggml_type) {
  switch (static_cast<TensorType>(ggml_type)) {
    case TensorType::kF32:
      return TensorTypeTraits{"F32", 1, 4};
    case TensorType::kF16:
      return TensorTypeTraits{"F16", 1, 2};
    case TensorType::kBF16:
      return TensorTypeTraits{"BF16", 1, 2};
    case TensorType::kQ4_0:
      return TensorTypeTraits{"Q4_0", 32, 18};
    case TensorType::kQ4_1:
      return TensorTypeTraits{"Q4_1", 32, 20};
    case TensorType::kQ5_0:
      return TensorTypeTraits{"Q5_0", 32, 22};
    case TensorType::kQ5_1:
      return TensorTypeTraits{"Q5_1", 32, 24};
    case TensorType::kQ8_0:
      return TensorTypeTraits{"Q8_0", 32, 34};
    case TensorType::kQ4_K:
      return TensorTypeTraits{"Q4_K", 256, 144};
    case TensorType::kQ5_K:
      return TensorTypeTraits{"Q5_K", 256, 176};
    case TensorType::kQ6_K:
      return TensorTypeTraits{"Q6_K", 256, 210};
  }
  return std::nullopt;
}

TensorTypeTraits Traits(TensorType type) {
  const std::optional<TensorTypeTraits> traits = GetTensorTypeTraits(static_cast<uint32_t>(type));
  RETICLE_CHECK(traits.has_value());
  return *traits;
}

std::string_view TensorTypeName(TensorType type) { return Traits(type).name; }

std::string_view GgmlTypeName(uint32_t ggml_type) {
  return ggml_type < kGgmlNames.size() ? kGgmlNames[ggml_type] : std::string_view();
}

std::span<const TensorType> AllTensorTypes() { return kAllTypes; }

absl::StatusOr<uint64_t> TensorSizeBytes(TensorType type, std::span<const uint64_t> shape) {
  const TensorTypeTraits traits = Traits(type);
  if (shape.empty() || shape.size() > kMaxTensorDimensions) {
    return InvalidArgumentError("has %d dimensions; it must have 1 to %d", shape.size(),
                                kMaxTensorDimensions);
  }
  uint64_t elements = 1;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == 0) return InvalidArgumentError("has dimension %d of length 0", i);
    if (__builtin_mul_overflow(elements, shape[i], &elements)) {
      return InvalidArgumentError("has dimension %d of length %d, too many elements for 64 bits", i,
                                  shape[i]);
    }
  }
  if (shape[0] % traits.elements != 0) {
    return InvalidArgumentError("has rows of %d elements, no multiple of the %d of a %s block",
                                shape[0], traits.elements, traits.name);
  }
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(elements / traits.elements, uint64_t{traits.bytes}, &bytes) ||
      bytes > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return InvalidArgumentError("has %d elements of type %s, more bytes than 63 bits count",
                                elements, traits.name);
  }
  return bytes;
}

}  // namespace reticle::models
