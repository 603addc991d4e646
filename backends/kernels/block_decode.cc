#include "backends/kernels/block_decode.h"

#include <cstring>

#include "base/check.h"
#include "models/half.h"

namespace reticle::backends::kernels {
namespace {

using models::Bfloat16ToFloat;
using models::HalfToFloat;
using models::TensorType;

uint8_t Byte(const std::byte* p, size_t i) { return static_cast<uint8_t>(p[i]); }

uint16_t Half(const std::byte* p) {
  uint16_t bits;
  std::memcpy(&bits, p, sizeof(bits));
  return bits;
}

void DecodeNibbles(const std::byte* quants, int offset, Group32* out) {
  for (size_t i = 0; i < 16; ++i) {
    out->quants[i] = static_cast<int8_t>((Byte(quants, i) & 15) - offset);
    out->quants[i + 16] = static_cast<int8_t>((Byte(quants, i) >> 4) - offset);
  }
}

void DecodeFiveBits(const std::byte* high, const std::byte* quants, int offset, Group32* out) {
  uint32_t bits;
  std::memcpy(&bits, high, sizeof(bits));
  for (size_t i = 0; i < 16; ++i) {
    const int low = (Byte(quants, i) & 15) | static_cast<int>((bits >> i) & 1) << 4;
    const int up = (Byte(quants, i) >> 4) | static_cast<int>((bits >> (i + 16)) & 1) << 4;
    out->quants[i] = static_cast<int8_t>(low - offset);
    out->quants[i + 16] = static_cast<int8_t>(up - offset);
  }
}

// The eight 6-bit scales and minima of Q4_K and Q5_K lie in 12 bytes.
void DecodeSixBitScales(const std::byte* packed, size_t sub, Group32* out) {
  uint8_t scale, min;
  if (sub < 4) {
    scale = Byte(packed, sub) & 63;
    min = Byte(packed, sub + 4) & 63;
  } else {
    scale = static_cast<uint8_t>((Byte(packed, sub + 4) & 15) | (Byte(packed, sub - 4) >> 6) << 4);
    min = static_cast<uint8_t>((Byte(packed, sub + 4) >> 4) | (Byte(packed, sub) >> 6) << 4);
  }
  out->sub_scale[0] = out->sub_scale[1] = static_cast<int8_t>(scale);
  out->sub_min = min;
}

void DecodeQ45K(const std::byte* block, size_t sub, bool five_bits, Group32* out) {
  out->scale = HalfToFloat(Half(block));
  out->min = -HalfToFloat(Half(block + 2));
  DecodeSixBitScales(block + 4, sub, out);
  const std::byte* high = block + 16;
  const std::byte* quants = block + (five_bits ? 48 : 16) + sub / 2 * 32;
  const int shift = sub % 2 == 0 ? 0 : 4;
  for (size_t i = 0; i < 32; ++i) {
    int value = (Byte(quants, i) >> shift) & 15;
    if (five_bits) value |= ((Byte(high, i) >> sub) & 1) << 4;
    out->quants[i] = static_cast<int8_t>(value);
  }
}

void DecodeQ6K(const std::byte* block, size_t sub, Group32* out) {
  const size_t half = sub / 4;
  const size_t quarter = sub % 4;
  const std::byte* low = block + half * 64 + quarter % 2 * 32;
  const std::byte* high = block + 128 + half * 32;
  const std::byte* scales = block + 192 + half * 8 + quarter * 2;
  const int low_shift = quarter < 2 ? 0 : 4;
  const int high_shift = static_cast<int>(quarter) * 2;
  for (size_t i = 0; i < 32; ++i) {
    const int value = ((Byte(low, i) >> low_shift) & 15) | ((Byte(high, i) >> high_shift) & 3) << 4;
    out->quants[i] = static_cast<int8_t>(value - 32);
  }
  out->scale = HalfToFloat(Half(block + 208));
  out->sub_scale[0] = static_cast<int8_t>(Byte(scales, 0));
  out->sub_scale[1] = static_cast<int8_t>(Byte(scales, 1));
}

}  // namespace

void DecodeGroup(TensorType type, const std::byte* row, size_t group, Group32* out) {
  out->sub_scale[0] = out->sub_scale[1] = 1;
  out->min = 0.0f;
  out->sub_min = 1;
  const size_t elements = models::Traits(type).elements;
  const size_t bytes = models::Traits(type).bytes;
  const std::byte* block = row + group * 32 / elements * bytes;
  switch (type) {
    case TensorType::kQ8_0:
      out->scale = HalfToFloat(Half(block));
      std::memcpy(out->quants, block + 2, 32);
      return;
    case TensorType::kQ4_0:
      out->scale = HalfToFloat(Half(block));
      DecodeNibbles(block + 2, 8, out);
      return;
    case TensorType::kQ4_1:
      out->scale = HalfToFloat(Half(block));
      out->min = HalfToFloat(Half(block + 2));
      DecodeNibbles(block + 4, 0, out);
      return;
    case TensorType::kQ5_0:
      out->scale = HalfToFloat(Half(block));
      DecodeFiveBits(block + 2, block + 6, 16, out);
      return;
    case TensorType::kQ5_1:
      out->scale = HalfToFloat(Half(block));
      out->min = HalfToFloat(Half(block + 2));
      DecodeFiveBits(block + 4, block + 8, 0, out);
      return;
    case TensorType::kQ4_K:
      DecodeQ45K(block, group % 8, false, out);
      return;
    case TensorType::kQ5_K:
      DecodeQ45K(block, group % 8, true, out);
      return;
    case TensorType::kQ6_K:
      DecodeQ6K(block, group % 8, out);
      return;
    case TensorType::kF32:
    case TensorType::kF16:
    case TensorType::kBF16:
      break;
  }
  RETICLE_CHECK(false);
}

void DecodeRow(TensorType type, const std::byte* row, size_t count, float* out) {
  switch (type) {
    case TensorType::kF32:
      std::memcpy(out, row, count * sizeof(float));
      return;
    case TensorType::kF16:
      for (size_t i = 0; i < count; ++i) out[i] = HalfToFloat(Half(row + 2 * i));
      return;
    case TensorType::kBF16:
      for (size_t i = 0; i < count; ++i) out[i] = Bfloat16ToFloat(Half(row + 2 * i));
      return;
    default:
      break;
  }
  Group32 group;
  for (size_t g = 0; g < count / 32; ++g) {
    DecodeGroup(type, row, g, &group);
    const float min = group.min * static_cast<float>(group.sub_min);
    for (size_t i = 0; i < 32; ++i) {
      const size_t sub_group = i / 16;
      const float scale = group.scale * static_cast<float>(group.sub_scale[sub_group]);
      out[32 * g + i] = scale * static_cast<float>(group.quants[i]) + min;
    }
  }
}

}  // namespace reticle::backends::kernels
