// Products of weights in 3 and 6 bits with one token, for row sizes that are compile-time constants.
// The bits of kernels' MatMul. What a group's sum begins with is made once for all rows, and the
// half-precision scales are read once for 256 columns. Without VNNI the products of a group are
// summed in 16 bits and widened once: the offset of the codes goes into what the sums begin with,
// so that each ends within 16 bits, wherever it wraps around on its way. Included once for every
// target by Highway.
#if defined(RETICLE_BACKENDS_HARDWIRED_ETCHED_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RETICLE_BACKENDS_HARDWIRED_ETCHED_PRODUCT_INL_H_
#undef RETICLE_BACKENDS_HARDWIRED_ETCHED_PRODUCT_INL_H_
#else
#define RETICLE_BACKENDS_HARDWIRED_ETCHED_PRODUCT_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "backends/kernels/matmul-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace reticle::backends::hardwired::HWY_NAMESPACE {

namespace k = kernels::HWY_NAMESPACE;
namespace hn = hwy::HWY_NAMESPACE;

// Panels that are computed side by side, so that their sums do not wait for each other.
inline constexpr size_t kTogether = k::kPanelVecs == 1 ? 2 : 1;

#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2

inline constexpr bool kHasChains = true;

using V16 = hn::Vec<k::D16>;

// What the sums of a group begin with, in 16 bits: minus the offset, times the sum of the
// activations that an element meets. Two lanes of a chain are one int32.
//   three bits: columns 0 .. 11 and 24 .. 31; then 12 .. 23, eight times
//   six bits: columns 0 .. 15; then 16 .. 31
template <class F>
HWY_INLINE void ChainStarts(const int8_t* quants, int32_t* starts) {
  const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(quants));
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), x);
  const __m128i low = _mm256_castsi256_si128(pairs);
  const __m128i high = _mm256_extracti128_si256(pairs, 1);
  __m128i first = low;
  __m128i second = high;
  __m128i factors = _mm_set1_epi16(-32);
  if constexpr (F::kThree) {
    const __m128i middle = _mm_blend_epi32(high, low, 0b1100);  // from 16, 20, 8 and 12 on
    const __m128i eight = _mm_and_si128(middle, _mm_setr_epi32(0, 0, -1, 0));
    first = _mm_add_epi16(_mm_blend_epi32(low, high, 0b1100), eight);
    second = _mm_sub_epi16(middle, eight);
    factors = _mm_setr_epi16(-4, -4, -32, -32, 0, 0, 0, 0);
  }
  const __m128i halves =
      _mm_add_epi16(_mm_unpacklo_epi32(first, second), _mm_unpackhi_epi32(first, second));
  const __m128i sums = _mm_add_epi16(halves, _mm_unpackhi_epi64(halves, halves));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(starts), _mm_mullo_epi16(sums, factors));
}

HWY_INLINE V16 StartChain(int32_t start) {
  return hn::BitCast(k::D16(), hn::Set(k::DI(), start));
}

// chain + the products of each lane's two bytes; those of w are unsigned and at most 127.
HWY_INLINE V16 Chain(V16 chain, k::V8 w, const int8_t* quants) {
  const k::V8 x = k::Broadcast4(quants);
#if HWY_TARGET == HWY_AVX3
  return hn::Add(chain, V16{_mm512_maddubs_epi16(w.raw, x.raw)});
#else
  return hn::Add(chain, V16{_mm256_maddubs_epi16(w.raw, x.raw)});
#endif
}

HWY_INLINE k::VI Widen(V16 chain) {
#if HWY_TARGET == HWY_AVX3
  return k::VI{_mm512_madd_epi16(chain.raw, _mm512_set1_epi16(1))};
#else
  return k::VI{_mm256_madd_epi16(chain.raw, _mm256_set1_epi16(1))};
#endif
}

// |code - 4| <= 4, so 32 products of eighths end within 3 * 2 * 4 * 8 * 127 = 24384.
HWY_INLINE k::VI ChainThreeBits(const int8_t* bytes, const int8_t* quants, const int32_t* starts) {
  constexpr size_t kRowBytes = kernels::kPanelRows * 4;
  const k::D8 d8;
  const k::V8 a = hn::LoadU(d8, bytes);
  const k::V8 b = hn::LoadU(d8, bytes + kRowBytes);
  const k::V8 c = hn::LoadU(d8, bytes + 2 * kRowBytes);
  V16 eighths = Chain(StartChain(starts[1]), k::Field<3, 3, 3>(a), quants + 12);
  eighths = Chain(eighths, k::Field<3, 3, 3>(b), quants + 16);
  eighths = Chain(eighths, k::Field<3, 3, 3>(c), quants + 20);
  V16 sum = Chain(StartChain(starts[0]), k::Field<0, 3, 0>(a), quants);
  sum = Chain(sum, k::Field<0, 3, 0>(b), quants + 4);
  sum = Chain(sum, k::Field<0, 3, 0>(c), quants + 8);
  sum = Chain(sum, hn::Or(k::Field<6, 2, 0>(a), k::Field<6, 1, 2>(b)), quants + 24);
  sum = Chain(sum, hn::Or(k::Field<6, 2, 0>(c), k::Field<7, 1, 2>(b)), quants + 28);
  return Widen(hn::Add(sum, hn::ShiftRight<3>(eighths)));
}

// |code - 32| <= 32, so each half ends within 4 * 2 * 32 * 127 = 32512.
template <class F>
HWY_INLINE k::VI ChainSixBits(const std::byte* bytes, const int8_t* quants, const int32_t* starts) {
  k::V8 codes[8];
  k::LoadCodes<F>(bytes, codes);
  V16 low = StartChain(starts[0]);
  V16 high = StartChain(starts[1]);
  RETICLE_UNROLL for (size_t j = 0; j < 4; ++j) {
    low = Chain(low, codes[j], quants + 4 * j);
    high = Chain(high, codes[j + 4], quants + 16 + 4 * j);
  }
  return hn::Add(Widen(low), Widen(high));
}

#else

inline constexpr bool kHasChains = false;

#endif

template <class F, bool kVnni>
inline constexpr bool kChained = kHasChains && !kVnni;

// What the sums of group `group` begin with: two values if they are chained, else one.
template <class F, bool kVnni>
HWY_INLINE void ComputeStarts(const kernels::QuantizedRows& x, size_t group, int32_t* starts) {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
  if constexpr (kChained<F, kVnni>) return ChainStarts<F>(x.quants + group * 32, starts);
#endif
  starts[0] = -F::kOffset * x.sums[group];
}

template <class F, bool kVnni>
HWY_INLINE k::VI GroupDots(const std::byte* bytes, const int8_t* quants, const int32_t* starts) {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
  if constexpr (kChained<F, kVnni>) {
    if constexpr (F::kThree) {
      return ChainThreeBits(reinterpret_cast<const int8_t*>(bytes), quants, starts);
    } else {
      return ChainSixBits<F>(bytes, quants, starts);
    }
  }
#endif
  k::VI dots = hn::Set(k::DI(), starts[0]);
  if constexpr (F::kThree) {
    k::AddThreeBits<kVnni>(reinterpret_cast<const int8_t*>(bytes), quants, dots);
  } else {
    k::V8 codes[8];
    k::LoadCodes<F>(bytes, codes);
    RETICLE_UNROLL for (size_t j = 0; j < 8; ++j) {
      dots = k::DotUnsigned<kVnni>(dots, codes[j], k::Broadcast4(quants + 4 * j));
    }
  }
  return dots;
}

// Rows of kPanels panels. F is kThreeBit or kSixBit.
template <class F, bool kVnni, size_t kColumns, size_t kPanels>
HWY_INLINE void SuperTile(const kernels::PackedMatrix& w, size_t panel,
                          const kernels::QuantizedRows& x, const int32_t* starts, float* out,
                          bool add) {
  static_assert(kColumns % 256 == 0);
  constexpr size_t kGroupBytes = F::kVectors * kernels::kPanelRows * 4;
  constexpr size_t kStarts = kChained<F, kVnni> ? 2 : 1;
  const k::DF df;
  k::VF sums[kPanels][k::kPanelVecs];
  RETICLE_UNROLL for (size_t p = 0; p < kPanels; ++p) {
    RETICLE_UNROLL for (size_t v = 0; v < k::kPanelVecs; ++v) sums[p][v] = hn::Zero(df);
  }
  for (size_t super = 0; super < kColumns / 256; ++super) {
    k::VF super_scales[kPanels][k::kPanelVecs];
    RETICLE_UNROLL for (size_t p = 0; p < kPanels; ++p) {
      RETICLE_UNROLL for (size_t v = 0; v < k::kPanelVecs; ++v) {
        super_scales[p][v] = k::LoadHalves(w.super_scales + (panel + p) * w.super_stride,
                                           super * kernels::kPanelRows + v * k::kLanes);
      }
    }
    for (size_t group = super * 8; group < super * 8 + 8; ++group) {
      const k::VF x_scale = hn::Set(df, x.scales[group]);
      RETICLE_UNROLL for (size_t p = 0; p < kPanels; ++p) {
        const std::byte* const bytes =
            w.values + (panel + p) * w.values_stride + group * kGroupBytes;
        const std::byte* const scales = w.scales + (panel + p) * w.scales_stride;
        RETICLE_UNROLL for (size_t i = 0; i < F::kVectors; ++i) {
          __builtin_prefetch(bytes + i * kernels::kPanelRows * 4 + k::kPrefetchBytes);
        }
        RETICLE_UNROLL for (size_t v = 0; v < k::kPanelVecs; ++v) {
          const k::VI dots = GroupDots<F, kVnni>(bytes + v * k::kLanes * 4, x.quants + group * 32,
                                                 starts + group * kStarts);
          const k::VF scale =
              hn::Mul(super_scales[p][v],
                      k::LoadInt8(scales, group * kernels::kPanelRows + v * k::kLanes));
          sums[p][v] =
              hn::MulAdd(hn::ConvertTo(df, dots), hn::Mul(scale, x_scale), sums[p][v]);
        }
      }
    }
  }
  RETICLE_UNROLL for (size_t p = 0; p < kPanels; ++p) {
    RETICLE_UNROLL for (size_t v = 0; v < k::kPanelVecs; ++v) {
      k::StoreResult(sums[p][v], out + (panel + p) * kernels::kPanelRows + v * k::kLanes, add);
    }
  }
}

// out[r] = sum over kColumns of W[r][k] * x[k], for all rows; added to what is there if `add`.
template <class F, bool kVnni, size_t kColumns>
HWY_NOINLINE void SuperProduct(const kernels::PackedMatrix& w, const kernels::QuantizedRows& rows,
                               float* out, bool add) {
  constexpr size_t kStarts = kChained<F, kVnni> ? 2 : 1;
  const kernels::QuantizedRows x = rows;
  int32_t starts[kColumns / 32 * kStarts];
  for (size_t group = 0; group < kColumns / 32; ++group) {
    ComputeStarts<F, kVnni>(x, group, starts + group * kStarts);
  }
  size_t panel = 0;
  for (; panel + kTogether <= w.panels; panel += kTogether) {
    SuperTile<F, kVnni, kColumns, kTogether>(w, panel, x, starts, out, add);
  }
  for (; panel < w.panels; ++panel) {
    SuperTile<F, kVnni, kColumns, 1>(w, panel, x, starts, out, add);
  }
}

}  // namespace reticle::backends::hardwired::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // RETICLE_BACKENDS_HARDWIRED_ETCHED_PRODUCT_INL_H_
