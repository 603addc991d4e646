// Products of 8-bit integers summed in groups of four, for each instruction set. Included once for
// every target by Highway; see https://google.github.io/highway/.
#if defined(RETICLE_BACKENDS_KERNELS_DOT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RETICLE_BACKENDS_KERNELS_DOT_INL_H_
#undef RETICLE_BACKENDS_KERNELS_DOT_INL_H_
#else
#define RETICLE_BACKENDS_KERNELS_DOT_INL_H_
#endif

#include <cstdint>

#include "backends/kernels/sdot.h"
#include "hwy/highway.h"

#if defined(__clang__)
#define RETICLE_UNROLL _Pragma("clang loop unroll(full)")
#else
#define RETICLE_UNROLL _Pragma("GCC unroll 16")
#endif

HWY_BEFORE_NAMESPACE();
namespace reticle::backends::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using DI = hn::RebindToSigned<DF>;
using D8 = hn::Repartition<int8_t, DF>;
using D16 = hn::Repartition<int16_t, DF>;
using VF = hn::Vec<DF>;
using VI = hn::Vec<DI>;
using V8 = hn::Vec<D8>;

inline constexpr size_t kLanes = HWY_LANES(float);
// Vectors that hold one column of a panel's 16 rows.
inline constexpr size_t kPanelVecs = 16 / kLanes;

// Four bytes of activations in every lane.
HWY_INLINE V8 Broadcast4(const int8_t* bytes) {
  int32_t word;
  __builtin_memcpy(&word, bytes, sizeof(word));
  return hn::BitCast(D8(), hn::Set(DI(), word));
}

#if HWY_TARGET == HWY_AVX3
// Assembly, because Highway's target attributes do not include these instructions.
HWY_INLINE VI DotVnni(VI sum, V8 w, V8 x) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum.raw) : "v"(w.raw), "v"(x.raw));
  return sum;
}
#elif HWY_TARGET == HWY_AVX2
HWY_INLINE VI DotVnni(VI sum, V8 w, V8 x) {
  asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum.raw) : "x"(w.raw), "x"(x.raw));
  return sum;
}
#elif HWY_TARGET == HWY_NEON
// Bytes of both are signed. Assembly as above.
HWY_INLINE VI DotVnni(VI sum, V8 w, V8 x) {
  asm(RETICLE_SDOT : "+w"(sum.raw) : "w"(w.raw), "w"(x.raw));
  return sum;
}
#else
HWY_INLINE VI DotVnni(VI sum, V8, V8) { return sum; }
#endif

// What signed weights have to be made larger by for DotVnni.
inline constexpr int kVnniExcess = HWY_TARGET == HWY_NEON ? 0 : 128;

// Whether DotUnsigned and DotSigned may use VNNI on this target, by kernels::VnniBits.
HWY_INLINE bool UsesVnni(int vnni_bits) {
#if HWY_TARGET == HWY_AVX3
  return (vnni_bits & 2) != 0;
#elif HWY_TARGET == HWY_AVX2
  return (vnni_bits & 1) != 0;
#elif HWY_TARGET == HWY_NEON
  return (vnni_bits & 4) != 0;
#else
  return false;
#endif
}

#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
// Products of unsigned w and signed x, summed by pairs; the sums must fit in 16 bits.
HWY_INLINE hn::Vec<D16> MultiplyPairs(V8 w, V8 x) {
#if HWY_TARGET == HWY_AVX3
  return hn::Vec<D16>{_mm512_maddubs_epi16(w.raw, x.raw)};
#else
  return hn::Vec<D16>{_mm256_maddubs_epi16(w.raw, x.raw)};
#endif
}

HWY_INLINE VI SumPairs(hn::Vec<D16> a, hn::Vec<D16> b) {
#if HWY_TARGET == HWY_AVX3
  return VI{_mm512_madd_epi16(a.raw, b.raw)};
#else
  return VI{_mm256_madd_epi16(a.raw, b.raw)};
#endif
}
#endif

// sum + the products of each lane's four bytes; w is unsigned and at most 127. kVnni: by one
// instruction, VNNI's or that of NEON's dot product.
template <bool kVnni>
HWY_INLINE VI DotUnsigned(VI sum, V8 w, V8 x) {
  if constexpr (kVnni) return DotVnni(sum, w, x);
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
  return hn::Add(sum, SumPairs(MultiplyPairs(w, x), hn::Set(D16(), int16_t{1})));
#elif HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_SSSE3
  const __m128i pairs = _mm_maddubs_epi16(w.raw, x.raw);
  return hn::Add(sum, VI{_mm_madd_epi16(pairs, _mm_set1_epi16(1))});
#elif HWY_TARGET == HWY_NEON
  const int16x8_t low = vmull_s8(vget_low_s8(w.raw), vget_low_s8(x.raw));
  const int16x8_t high = vmull_high_s8(w.raw, x.raw);
  return VI{vpadalq_s16(sum.raw, vpaddq_s16(low, high))};
#else
  const D16 d16;
  const auto w16 = hn::BitCast(d16, w);
  const auto x16 = hn::BitCast(d16, x);
  const auto even =
      hn::Mul(hn::ShiftRight<8>(hn::ShiftLeft<8>(w16)), hn::ShiftRight<8>(hn::ShiftLeft<8>(x16)));
  const auto odd = hn::Mul(hn::ShiftRight<8>(w16), hn::ShiftRight<8>(x16));
  const VI pairs = hn::BitCast(DI(), hn::Add(even, odd));
  const VI quads = hn::Add(hn::ShiftRight<16>(hn::ShiftLeft<16>(pairs)), hn::ShiftRight<16>(pairs));
  return hn::Add(sum, quads);
#endif
}

// Likewise for signed w. With VNNI the sum comes out too large by kVnniExcess * (sum of x): the
// caller begins with that much less.
template <bool kVnni>
HWY_INLINE VI DotSigned(VI sum, V8 w, V8 x) {
  if constexpr (kVnni) {
    return DotVnni(sum, hn::Xor(w, hn::Set(D8(), static_cast<int8_t>(-kVnniExcess))), x);
  }
#if HWY_TARGET == HWY_AVX3
  const __m512i signed_x =
      _mm512_mask_sub_epi8(x.raw, _mm512_movepi8_mask(w.raw), _mm512_setzero_si512(), x.raw);
  return DotUnsigned<false>(sum, V8{_mm512_abs_epi8(w.raw)}, V8{signed_x});
#elif HWY_TARGET == HWY_AVX2
  return DotUnsigned<false>(sum, V8{_mm256_abs_epi8(w.raw)}, V8{_mm256_sign_epi8(x.raw, w.raw)});
#elif HWY_TARGET == HWY_SSE4 || HWY_TARGET == HWY_SSSE3
  const __m128i pairs = _mm_maddubs_epi16(_mm_abs_epi8(w.raw), _mm_sign_epi8(x.raw, w.raw));
  return hn::Add(sum, VI{_mm_madd_epi16(pairs, _mm_set1_epi16(1))});
#else
  return DotUnsigned<false>(sum, w, x);
#endif
}

}  // namespace reticle::backends::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // RETICLE_BACKENDS_KERNELS_DOT_INL_H_
