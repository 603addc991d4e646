// The block formats of GGUF tensors: their layouts, the exact reference decoder and reference
// encoders. The formats are ggml's (https://github.com/ggml-org/ggml); a block stands for a run of
// values of one row. `half` fields are IEEE binary16 (models/half.h). Every struct is packed as in
// the file, without padding, with an alignment of 2 or 1.
#ifndef RETICLE_MODELS_QUANTIZATION_H_
#define RETICLE_MODELS_QUANTIZATION_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/tensor_type.h"

namespace reticle::models {

inline constexpr size_t kSmallBlock = 32;   // values of a Q4_0 .. Q8_0 block
inline constexpr size_t kSuperBlock = 256;  // values of a K block

// x[i] = scale * (q[i] - 8). Byte j of `quants` holds q[j] in its low and q[j + 16] in its high
// nibble; so it is in Q4_1, Q5_0 and Q5_1.
struct BlockQ4_0 {
  uint16_t scale;  // half
  uint8_t quants[16];
};

// x[i] = scale * q[i] + offset, q of 4 bits.
struct BlockQ4_1 {
  uint16_t scale;   // half
  uint16_t offset;  // half
  uint8_t quants[16];
};

// x[i] = scale * (q[i] - 16), q of 5 bits: the fifth is bit i of the little-endian 32-bit number in
// `high_bits`.
struct BlockQ5_0 {
  uint16_t scale;  // half
  uint8_t high_bits[4];
  uint8_t quants[16];
};

// x[i] = scale * q[i] + offset, q of 5 bits as in Q5_0.
struct BlockQ5_1 {
  uint16_t scale;   // half
  uint16_t offset;  // half
  uint8_t high_bits[4];
  uint8_t quants[16];
};

// x[i] = scale * q[i].
struct BlockQ8_0 {
  uint16_t scale;  // half
  int8_t quants[32];
};

// Eight sub-blocks of 32 values: x = scale * s[b] * q - min_scale * m[b], with 6-bit s and m packed
// into `scales` (UnpackScalesK4) and q of 4 bits. Bytes 32 * p .. 32 * p + 31 of `quants` hold
// sub-block 2 * p in their low and sub-block 2 * p + 1 in their high nibbles.
struct BlockQ4_K {
  uint16_t scale;      // half
  uint16_t min_scale;  // half
  uint8_t scales[12];
  uint8_t quants[128];
};

// As Q4_K with q of 5 bits: the fifth bit of value l of sub-block b is bit b of `high_bits[l]`.
struct BlockQ5_K {
  uint16_t scale;      // half
  uint16_t min_scale;  // half
  uint8_t scales[12];
  uint8_t high_bits[32];
  uint8_t quants[128];
};

// Sixteen sub-blocks of 16 values: x = scale * scales[b] * (q - 32), q of 6 bits. In each half of
// 128 values, value 32 * g + l (g < 4) takes its low nibble from low_bits[32 * (g % 2) + l] (the
// low nibble for g < 2, else the high one) and its upper two bits from bits 2 * g and 2 * g + 1 of
// high_bits[l], where the second half starts at low_bits[64] and high_bits[32].
struct BlockQ6_K {
  uint8_t low_bits[128];
  uint8_t high_bits[64];
  int8_t scales[16];
  uint16_t scale;  // half
};

static_assert(sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20 && sizeof(BlockQ5_0) == 22);
static_assert(sizeof(BlockQ5_1) == 24 && sizeof(BlockQ8_0) == 34 && sizeof(BlockQ4_K) == 144);
static_assert(sizeof(BlockQ5_K) == 176 && sizeof(BlockQ6_K) == 210);

// The eight 6-bit scales and mins of a Q4_K or Q5_K block. Scale b < 4 is the low six bits of byte
// b, min b < 4 those of byte b + 4; for b >= 4 byte b + 4 holds the low nibble of the scale in its
// low and of the min in its high nibble, and the top two bits of bytes b - 4 (scale) and b (min)
// hold the rest.
struct ScalesK4 {
  uint8_t scales[8];
  uint8_t mins[8];
};
constexpr ScalesK4 UnpackScalesK4(const uint8_t packed[12]) {
  ScalesK4 out{};
  for (int b = 0; b < 4; ++b) {
    out.scales[b] = packed[b] & 63;
    out.mins[b] = packed[b + 4] & 63;
    out.scales[b + 4] = static_cast<uint8_t>((packed[b + 8] & 15) | ((packed[b] >> 6) << 4));
    out.mins[b + 4] = static_cast<uint8_t>((packed[b + 8] >> 4) | ((packed[b + 4] >> 6) << 4));
  }
  return out;
}
constexpr void PackScalesK4(const ScalesK4& in, uint8_t packed[12]) {
  for (int b = 0; b < 4; ++b) {
    packed[b] = static_cast<uint8_t>(in.scales[b] | ((in.scales[b + 4] >> 4) << 6));
    packed[b + 4] = static_cast<uint8_t>(in.mins[b] | ((in.mins[b + 4] >> 4) << 6));
    packed[b + 8] = static_cast<uint8_t>((in.scales[b + 4] & 15) | ((in.mins[b + 4] & 15) << 4));
  }
}

// Decodes `dst.size()` values, which must be a whole number of blocks, from `src`, which must have
// exactly their bytes (checked: a violation is a bug of the caller). Any alignment. Any bit pattern
// is decoded; scales that are Inf or NaN give such values. Thread-safe, allocates nothing.
void Dequantize(TensorType type, std::span<const std::byte> src, std::span<float> dst);

// Encodes `src` (a whole number of blocks) into `dst` (exactly their bytes), deterministically,
// with scales that minimise the squared error among a few dozen candidates a block.
// INVALID_ARGUMENT, naming the index, for NaN, Inf, and values that the format cannot reach. For
// reference data and tools; not fast (some MB/s).
absl::Status Quantize(TensorType type, std::span<const float> src, std::span<std::byte> dst);
// As above, into a new buffer.
absl::StatusOr<std::vector<std::byte>> Quantize(TensorType type, std::span<const float> src);

}  // namespace reticle::models

#endif  // RETICLE_MODELS_QUANTIZATION_H_
