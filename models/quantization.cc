#include "models/quantization.h"

#include <cstring>

#include "base/check.h"
#include "models/half.h"

namespace reticle::models {
namespace {

void Decode(const BlockQ4_0& block, float* out) {
  const float scale = HalfToFloat(block.scale);
  for (int j = 0; j < 16; ++j) {
    out[j] = scale * static_cast<float>((block.quants[j] & 15) - 8);
    out[j + 16] = scale * static_cast<float>((block.quants[j] >> 4) - 8);
  }
}

void Decode(const BlockQ4_1& block, float* out) {
  const float scale = HalfToFloat(block.scale);
  const float offset = HalfToFloat(block.offset);
  for (int j = 0; j < 16; ++j) {
    out[j] = scale * static_cast<float>(block.quants[j] & 15) + offset;
    out[j + 16] = scale * static_cast<float>(block.quants[j] >> 4) + offset;
  }
}

struct FiveBits {
  int low;
  int high;
};

// Values j and j + 16 of a Q5_0 or Q5_1 block.
template <typename Block>
FiveBits QuantsQ5(const Block& block, int j) {
  const int fifth_low = (block.high_bits[j / 8] >> (j % 8)) & 1;
  const int fifth_high = (block.high_bits[2 + j / 8] >> (j % 8)) & 1;
  return {(block.quants[j] & 15) | (fifth_low << 4), (block.quants[j] >> 4) | (fifth_high << 4)};
}

void Decode(const BlockQ5_0& block, float* out) {
  const float scale = HalfToFloat(block.scale);
  for (int j = 0; j < 16; ++j) {
    const FiveBits q = QuantsQ5(block, j);
    out[j] = scale * static_cast<float>(q.low - 16);
    out[j + 16] = scale * static_cast<float>(q.high - 16);
  }
}

void Decode(const BlockQ5_1& block, float* out) {
  const float scale = HalfToFloat(block.scale);
  const float offset = HalfToFloat(block.offset);
  for (int j = 0; j < 16; ++j) {
    const FiveBits q = QuantsQ5(block, j);
    out[j] = scale * static_cast<float>(q.low) + offset;
    out[j + 16] = scale * static_cast<float>(q.high) + offset;
  }
}

void Decode(const BlockQ8_0& block, float* out) {
  const float scale = HalfToFloat(block.scale);
  for (int j = 0; j < 32; ++j) out[j] = scale * static_cast<float>(block.quants[j]);
}

int HighBitK(const BlockQ4_K&, int, int) { return 0; }
int HighBitK(const BlockQ5_K& block, int sub_block, int l) {
  return (block.high_bits[l] >> sub_block) & 1;
}

template <typename Block>
void DecodeK4(const Block& block, float* out) {
  const float scale = HalfToFloat(block.scale);
  const float min_scale = HalfToFloat(block.min_scale);
  const ScalesK4 scales = UnpackScalesK4(block.scales);
  for (int b = 0; b < 8; ++b) {
    const float step = scale * static_cast<float>(scales.scales[b]);
    const float min = min_scale * static_cast<float>(scales.mins[b]);
    const uint8_t* quants = block.quants + 32 * (b / 2);
    for (int l = 0; l < 32; ++l) {
      const int nibble = b % 2 == 0 ? quants[l] & 15 : quants[l] >> 4;
      out[32 * b + l] = step * static_cast<float>(nibble | (HighBitK(block, b, l) << 4)) - min;
    }
  }
}

void Decode(const BlockQ4_K& block, float* out) { DecodeK4(block, out); }
void Decode(const BlockQ5_K& block, float* out) { DecodeK4(block, out); }

void Decode(const BlockQ6_K& block, float* out) {
  const float scale = HalfToFloat(block.scale);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128;
    const int group = i % 128 / 32;
    const int sub_block = i / 16;
    const int l = i % 32;
    const uint8_t low = block.low_bits[64 * half + 32 * (group % 2) + l];
    const uint8_t high = block.high_bits[32 * half + l];
    const int q = (group < 2 ? low & 15 : low >> 4) | (((high >> (2 * group)) & 3) << 4);
    out[i] = scale * static_cast<float>(block.scales[sub_block]) * static_cast<float>(q - 32);
  }
}

template <typename Block, size_t kElements>
void DecodeBlocks(const std::byte* src, std::span<float> dst) {
  Block block;
  for (size_t i = 0; i < dst.size(); i += kElements, src += sizeof(Block)) {
    std::memcpy(&block, src, sizeof(Block));
    Decode(block, dst.data() + i);
  }
}

template <float (*kConvert)(uint16_t)>
void DecodeHalves(const std::byte* src, std::span<float> dst) {
  for (size_t i = 0; i < dst.size(); ++i) {
    uint16_t bits;
    std::memcpy(&bits, src + 2 * i, sizeof(bits));
    dst[i] = kConvert(bits);
  }
}

}  // namespace

void Dequantize(TensorType type, std::span<const std::byte> src, std::span<float> dst) {
  const TensorTypeTraits traits = Traits(type);
  RETICLE_CHECK(dst.size() % traits.elements == 0);
  RETICLE_CHECK(src.size() == dst.size() / traits.elements * traits.bytes);
  if (dst.empty()) return;
  switch (type) {
    case TensorType::kF32:
      std::memcpy(dst.data(), src.data(), src.size());
      return;
    case TensorType::kF16:
      return DecodeHalves<HalfToFloat>(src.data(), dst);
    case TensorType::kBF16:
      return DecodeHalves<Bfloat16ToFloat>(src.data(), dst);
    case TensorType::kQ4_0:
      return DecodeBlocks<BlockQ4_0, kSmallBlock>(src.data(), dst);
    case TensorType::kQ4_1:
      return DecodeBlocks<BlockQ4_1, kSmallBlock>(src.data(), dst);
    case TensorType::kQ5_0:
      return DecodeBlocks<BlockQ5_0, kSmallBlock>(src.data(), dst);
    case TensorType::kQ5_1:
      return DecodeBlocks<BlockQ5_1, kSmallBlock>(src.data(), dst);
    case TensorType::kQ8_0:
      return DecodeBlocks<BlockQ8_0, kSmallBlock>(src.data(), dst);
    case TensorType::kQ4_K:
      return DecodeBlocks<BlockQ4_K, kSuperBlock>(src.data(), dst);
    case TensorType::kQ5_K:
      return DecodeBlocks<BlockQ5_K, kSuperBlock>(src.data(), dst);
    case TensorType::kQ6_K:
      return DecodeBlocks<BlockQ6_K, kSuperBlock>(src.data(), dst);
  }
}

}  // namespace reticle::models
