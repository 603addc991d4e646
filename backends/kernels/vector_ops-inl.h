// Element-wise steps of the model and the quantisation of activations, for each instruction set.
// Included once for every target by Highway.
#if defined(RETICLE_BACKENDS_KERNELS_VECTOR_OPS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RETICLE_BACKENDS_KERNELS_VECTOR_OPS_INL_H_
#undef RETICLE_BACKENDS_KERNELS_VECTOR_OPS_INL_H_
#else
#define RETICLE_BACKENDS_KERNELS_VECTOR_OPS_INL_H_
#endif

#include <cmath>

#include "backends/kernels/dot-inl.h"
#include "backends/kernels/kernels.h"
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace reticle::backends::kernels::HWY_NAMESPACE {

// Sums 16 lanes in the order that every target uses.
HWY_INLINE float SumOf16(const VF (&sums)[kPanelVecs]) {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
#if HWY_TARGET == HWY_AVX3
  const __m256 eight =
      _mm256_add_ps(_mm512_castps512_ps256(sums[0].raw), _mm512_extractf32x8_ps(sums[0].raw, 1));
#else
  const __m256 eight = _mm256_add_ps(sums[0].raw, sums[1].raw);
#endif
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
#else
  HWY_ALIGN float lanes[16];
  for (size_t v = 0; v < kPanelVecs; ++v) hn::Store(sums[v], DF(), lanes + v * kLanes);
  for (size_t width = 8; width > 0; width /= 2) {
    for (size_t i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
#endif
}

HWY_INLINE void RmsNormInline(const float* x, const float* weight, size_t size, float epsilon,
                              float* out) {
  const DF df;
  VF sums[kPanelVecs];
  for (size_t v = 0; v < kPanelVecs; ++v) sums[v] = hn::Zero(df);
  const size_t whole = size / 16 * 16;
  for (size_t i = 0; i < whole; i += 16) {
    RETICLE_UNROLL for (size_t v = 0; v < kPanelVecs; ++v) {
      const VF value = hn::LoadU(df, x + i + v * kLanes);
      sums[v] = hn::MulAdd(value, value, sums[v]);
    }
  }
  float sum = SumOf16(sums);
  for (size_t i = whole; i < size; ++i) sum += x[i] * x[i];
  const float scale = 1.0f / std::sqrt(sum / static_cast<float>(size) + epsilon);
  const VF scales = hn::Set(df, scale);
  for (size_t i = 0; i < whole; i += kLanes) {
    const VF scaled = hn::Mul(hn::LoadU(df, x + i), scales);
    hn::StoreU(hn::Mul(scaled, hn::LoadU(df, weight + i)), df, out + i);
  }
  for (size_t i = whole; i < size; ++i) out[i] = x[i] * scale * weight[i];
}

HWY_INLINE VF SwiGluOf(VF gate, VF up) {
  const DF df;
  const VF one = hn::Set(df, 1.0f);
  const VF sigmoid = hn::Div(one, hn::Add(one, hn::Exp(df, hn::Neg(gate))));
  return hn::Mul(hn::Mul(gate, sigmoid), up);
}

HWY_INLINE void SwiGluInline(const float* gate, const float* up, size_t size, float* out) {
  const DF df;
  size_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    hn::StoreU(SwiGluOf(hn::LoadU(df, gate + i), hn::LoadU(df, up + i)), df, out + i);
  }
  if (i == size) return;
  HWY_ALIGN float gates[kLanes] = {};
  HWY_ALIGN float ups[kLanes] = {};
  for (size_t j = 0; i + j < size; ++j) {
    gates[j] = gate[i + j];
    ups[j] = up[i + j];
  }
  hn::Store(SwiGluOf(hn::Load(df, gates), hn::Load(df, ups)), df, gates);
  for (size_t j = 0; i + j < size; ++j) out[i + j] = gates[j];
}

// Left scalar: the compiler vectorises what pays, and no product is fused on any target.
HWY_INLINE void RopeInline(float* x, size_t pairs, const float* cosines, const float* sines) {
  for (size_t i = 0; i < pairs; ++i) {
    const float a = x[2 * i];
    const float b = x[2 * i + 1];
    x[2 * i] = a * cosines[i] - b * sines[i];
    x[2 * i + 1] = a * sines[i] + b * cosines[i];
  }
}

HWY_INLINE void QuantizeColumnsInline(const float* x, size_t first, size_t end, size_t row,
                                      const QuantizedRows& out) {
  const DF df;
  const DI di;
  const hn::Rebind<int8_t, DF> d8;
  constexpr size_t kVecs = 32 / kLanes;
  constexpr size_t kHalfVecs = 16 / kLanes;
  for (size_t k = first; k < end; k += 32) {
    const size_t group = (row * out.columns + k) / 32;
    VF largest = hn::Zero(df);
    RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
      largest = hn::Max(largest, hn::Abs(hn::LoadU(df, x + k + v * kLanes)));
    }
    const float max = hn::GetLane(hn::MaxOfLanes(df, largest));
    const VF inverse = hn::Set(df, max > 0.0f ? 127.0f / max : 0.0f);
    VI sums[2] = {hn::Zero(di), hn::Zero(di)};
    RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
      const VI q = hn::NearestInt(hn::Mul(hn::LoadU(df, x + k + v * kLanes), inverse));
      sums[v / kHalfVecs] = hn::Add(sums[v / kHalfVecs], q);
      hn::StoreU(hn::DemoteTo(d8, q), d8, out.quants + row * out.columns + k + v * kLanes);
    }
    const int32_t low = hn::GetLane(hn::SumOfLanes(di, sums[0]));
    const int32_t high = hn::GetLane(hn::SumOfLanes(di, sums[1]));
    if (out.wide != nullptr) {
      const int8_t* from = out.quants + row * out.columns + k;
      int16_t* to = out.wide + row * out.columns + k;
      for (size_t i = 0; i < 32; i += 4) {
        to[i] = from[i];
        to[i + 1] = from[i + 2];
        to[i + 2] = from[i + 1];
        to[i + 3] = from[i + 3];
      }
    }
    const float scale = max / 127.0f;
    out.scales[group] = scale;
    out.half_sums[2 * group] = low;
    out.half_sums[2 * group + 1] = high;
    out.sums[group] = low + high;
    out.scaled_sums[group] = scale * static_cast<float>(low + high);
  }
}

}  // namespace reticle::backends::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // RETICLE_BACKENDS_KERNELS_VECTOR_OPS_INL_H_
