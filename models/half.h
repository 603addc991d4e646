// Conversions between float and the two 16-bit formats of model files: IEEE 754 binary16 ("half")
// and bfloat16. To 16 bits they round to nearest, ties to even; subnormals, infinities and NaN
// (which stays NaN) are handled; the way back is exact.
#ifndef RETICLE_MODELS_HALF_H_
#define RETICLE_MODELS_HALF_H_

#include <bit>
#include <cstdint>

namespace reticle::models {

// The largest finite half. Floats of magnitude 65520 and more become infinite.
inline constexpr float kMaxHalf = 65504.0f;

constexpr float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1fu;
  const uint32_t fraction = half & 0x3ffu;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | (fraction << 13));
  if (exponent == 0) {
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
}

constexpr uint16_t FloatToHalf(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return static_cast<uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x1ffu));
  }
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {
    // Below 2^-14 the result counts units of 2^-24; up to half a unit it is zero.
    if (magnitude <= 0x33000000u) return sign;
    const uint32_t significand = (magnitude & 0x7fffffu) | 0x800000u;
    const uint32_t shift = 126 - (magnitude >> 23);
    const uint32_t remainder = significand & ((1u << shift) - 1);
    const uint32_t tie = 1u << (shift - 1);
    uint32_t units = significand >> shift;
    if (remainder > tie || (remainder == tie && (units & 1u))) ++units;
    return static_cast<uint16_t>(sign | units);
  }
  magnitude += 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u) >> 13));
}

constexpr float Bfloat16ToFloat(uint16_t value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value) << 16);
}

constexpr uint16_t FloatToBfloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace reticle::models

#endif  // RETICLE_MODELS_HALF_H_
