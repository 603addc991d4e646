// exp() for weights of tokens: the same bits on every machine, unlike libm's.
#ifndef RETICLE_BACKENDS_SAMPLING_EXP_H_
#define RETICLE_BACKENDS_SAMPLING_EXP_H_

#include <bit>
#include <cstdint>

namespace reticle::backends::sampling {

// e^x for x <= 0 with a relative error below 3e-7; 0 for x < -87 and for NaN. Only additions,
// multiplications and one truncation in single precision, without contraction to fused
// multiply-add (the library is compiled with -ffp-contract=off), so the result is exact by IEEE
// 754. Branch-free, so that loops over it vectorise.
//
// e^x = 2^n e^r with n = round(x / ln 2) and |r| <= ln 2 / 2; ln 2 is split in two so that x - n ln
// 2 is exact in its leading part (Cody and Waite, "Software Manual for the Elementary Functions",
// 1980); e^r is its Taylor polynomial of degree 7.
inline float ExpOfNonPositive(float x) {
  const bool in_range = x >= -87.0f;
  const float bounded = in_range ? x : 0.0f;
  const auto n = static_cast<int32_t>(bounded * 1.44269504f - 0.5f);
  const float nf = static_cast<float>(n);
  const float r = (bounded - nf * 0.693359375f) - nf * -2.12194440e-4f;
  float p = 1.0f / 5040.0f;
  p = p * r + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const float scale = std::bit_cast<float>((n + 127) << 23);
  return in_range ? p * scale : 0.0f;
}

}  // namespace reticle::backends::sampling

#endif  // RETICLE_BACKENDS_SAMPLING_EXP_H_
