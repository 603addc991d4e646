// Products of weights in 3 and 6 bits with one token, for row sizes that are compile-time
// constants. The bits of kernels' MatMul. What a group's sums begin with is made once for all rows,
// and the half-precision scales are read once for 256 columns. Without VNNI the products of a group
// are summed in 16 bits and widened once: the offset of the codes is in what the sums begin with,
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
#include <type_traits>

#include "backends/hardwired/etched/spread_matrix.h"
#include "backends/kernels/matmul-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace reticle::backends::hardwired::HWY_NAMESPACE {

namespace k = kernels::HWY_NAMESPACE;
namespace hn = hwy::HWY_NAMESPACE;

// Panels that are computed side by side, so that their sums do not wait for each other.
inline constexpr size_t kTogether = k::kPanelVecs == 1 ? 2 : 1;

// Where the weights of a product lie: as in the image, or spread by SpreadMatrix.
enum class Layout { kImage, kSpread };

template <bool kVnni>
inline constexpr bool kChained = !kVnni && (HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2);

// A group of 32 columns has two sums: its first and its second half, or of three bits in the
// image's layout columns 0 .. 11 and 24 .. 31, and 12 .. 23. The second sum of three bits comes out
// eight times too large, because its codes are not shifted.
//
// A sum in 16 bits ends within 4 * 2 * 32 * 127 = 32512 with six bits, 8 * 4 * 2 * 4 * 127 = 32512
// in eighths of three bits, and less elsewhere: a code is off by 32 or 4 at most.
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2

// What both begin with: minus the offset of the codes times the sum of the activations that an
// element meets, as two elements of 16 bits.
template <class F, Layout kLayout>
HWY_INLINE void ChainStarts(const int8_t* quants, int32_t* starts) {
  const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(quants));
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), x);
  __m128i first = _mm256_castsi256_si128(pairs);
  __m128i second = _mm256_extracti128_si256(pairs, 1);
  if constexpr (F::kThree && kLayout == Layout::kImage) {
    const __m128i middle = _mm_blend_epi32(second, first, 0b1100);  // from 16, 20, 8 and 12 on
    const __m128i from_8 = _mm_and_si128(middle, _mm_setr_epi32(0, 0, -1, 0));
    first = _mm_add_epi16(_mm_blend_epi32(first, second, 0b1100), from_8);
    second = _mm_sub_epi16(middle, from_8);
  }
  const __m128i halves =
      _mm_add_epi16(_mm_unpacklo_epi32(first, second), _mm_unpackhi_epi32(first, second));
  const __m128i sums = _mm_add_epi16(halves, _mm_unpackhi_epi64(halves, halves));
  constexpr int16_t kFirst = -F::kOffset;
  constexpr int16_t kSecond = F::kThree ? 8 * kFirst : kFirst;
  const __m128i factors = _mm_setr_epi16(kFirst, kFirst, kSecond, kSecond, 0, 0, 0, 0);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(starts), _mm_mullo_epi16(sums, factors));
}

using V16 = hn::Vec<k::D16>;

// sum + the products of each element's two bytes; those of w are unsigned and at most 127.
HWY_INLINE V16 AddProducts(V16 sum, k::V8 w, k::V8 x) {
#if HWY_TARGET == HWY_AVX3
  return hn::Add(sum, V16{_mm512_maddubs_epi16(w.raw, x.raw)});
#else
  return hn::Add(sum, V16{_mm256_maddubs_epi16(w.raw, x.raw)});
#endif
}

HWY_INLINE k::VI Widen(V16 sum) {
#if HWY_TARGET == HWY_AVX3
  return k::VI{_mm512_madd_epi16(sum.raw, _mm512_set1_epi16(1))};
#else
  return k::VI{_mm256_madd_epi16(sum.raw, _mm256_set1_epi16(1))};
#endif
}

#endif

// The sums of a group in the rows of kVecs vectors.
template <class F, bool kVnni, Layout kLayout, size_t kVecs>
struct GroupSums {
  static constexpr bool kInChains = kChained<kVnni>;
  using D = std::conditional_t<kInChains, k::D16, k::DI>;

  static HWY_INLINE void ComputeStarts(const kernels::QuantizedRows& x, size_t group,
                                       int32_t* starts) {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
    if constexpr (kInChains) return ChainStarts<F, kLayout>(x.quants + group * 32, starts);
#endif
    starts[0] = -F::kOffset * x.sums[group];
    starts[1] = 0;
  }

  HWY_INLINE explicit GroupSums(const int32_t* starts) {
    RETICLE_UNROLL for (size_t s = 0; s < 2; ++s) {
      RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
        sums[s][v] = hn::BitCast(D(), hn::Set(k::DI(), starts[s]));
      }
    }
  }

  // Adds four columns to a sum. code(v) are their codes in the rows of vector v.
  template <size_t kSum, class Code>
  HWY_INLINE void Add(const Code& code, const int8_t* quants) {
    const k::V8 x = k::Broadcast4(quants);
    RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
      if constexpr (kInChains) {
        sums[kSum][v] = AddProducts(sums[kSum][v], code(v), x);
      } else {
        sums[kSum][v] = k::DotUnsigned<kVnni>(sums[kSum][v], code(v), x);
      }
    }
  }

  HWY_INLINE k::VI Total(size_t v) const {
    if constexpr (F::kThree) {
      const auto sum = hn::Add(sums[0][v], hn::ShiftRight<3>(sums[1][v]));
      if constexpr (kInChains) {
        return Widen(sum);
      } else {
        return sum;
      }
    } else if constexpr (kInChains) {
      return hn::Add(Widen(sums[0][v]), Widen(sums[1][v]));
    } else {
      return hn::Add(sums[0][v], sums[1][v]);
    }
  }

  hn::Vec<D> sums[2][kVecs];
};

// Byte-vectors of a group.
template <class F, Layout kLayout>
inline constexpr size_t kByteVectors =
    kLayout == Layout::kImage ? F::kVectors : (F::kThree ? kSpreadThreeBits : kSpreadSixBits);

// Adds a group's products to sums. `bytes` is where the group begins.
template <class F, bool kVnni, Layout kLayout, size_t kVecs>
HWY_INLINE void AddGroupProducts(const std::byte* bytes, const int8_t* quants,
                                 GroupSums<F, kVnni, kLayout, kVecs>& sums) {
  const auto load = [bytes](size_t vector, size_t v) HWY_ATTR {
    return hn::LoadU(k::D8(), reinterpret_cast<const int8_t*>(bytes) +
                                  vector * kernels::kPanelRows * 4 + v * k::kLanes * 4);
  };
  if constexpr (kLayout == Layout::kSpread && F::kThree) {
    RETICLE_UNROLL for (size_t u = 0; u < 4; ++u) {
      k::V8 both[kVecs];
      RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) both[v] = load(u, v);
      const auto first = [&](size_t v) HWY_ATTR { return k::Field<0, 3, 0>(both[v]); };
      const auto second = [&](size_t v) HWY_ATTR { return k::Field<3, 3, 3>(both[v]); };
      sums.template Add<0>(first, quants + 4 * u);
      sums.template Add<1>(second, quants + 16 + 4 * u);
    }
  } else if constexpr (kLayout == Layout::kSpread) {
    RETICLE_UNROLL for (size_t u = 0; u < 4; ++u) {
      sums.template Add<0>([&](size_t v) HWY_ATTR { return load(u, v); }, quants + 4 * u);
      sums.template Add<1>([&](size_t v) HWY_ATTR { return load(u + 4, v); }, quants + 16 + 4 * u);
    }
  } else if constexpr (F::kThree) {
    RETICLE_UNROLL for (size_t u = 0; u < 3; ++u) {
      const auto first = [&](size_t v) HWY_ATTR { return k::Field<0, 3, 0>(load(u, v)); };
      const auto second = [&](size_t v) HWY_ATTR { return k::Field<3, 3, 3>(load(u, v)); };
      sums.template Add<0>(first, quants + 4 * u);
      sums.template Add<1>(second, quants + 12 + 4 * u);
    }
    const auto from_24 = [&](size_t v) HWY_ATTR {
      return hn::Or(k::Field<6, 2, 0>(load(0, v)), k::Field<6, 1, 2>(load(1, v)));
    };
    const auto from_28 = [&](size_t v) HWY_ATTR {
      return hn::Or(k::Field<6, 2, 0>(load(2, v)), k::Field<7, 1, 2>(load(1, v)));
    };
    sums.template Add<0>(from_24, quants + 24);
    sums.template Add<0>(from_28, quants + 28);
  } else {
    k::V8 codes[kVecs][8];
    RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
      k::LoadCodes<F>(bytes + v * k::kLanes * 4, codes[v]);
    }
    RETICLE_UNROLL for (size_t j = 0; j < 4; ++j) {
      sums.template Add<0>([&](size_t v) HWY_ATTR { return codes[v][j]; }, quants + 4 * j);
      sums.template Add<1>([&](size_t v) HWY_ATTR { return codes[v][j + 4]; }, quants + 16 + 4 * j);
    }
  }
}

// Rows of kPanels panels. F is kThreeBit or kSixBit.
template <class F, bool kVnni, Layout kLayout, size_t kColumns, size_t kPanels>
HWY_INLINE void SuperTile(const kernels::PackedMatrix& w, size_t panel,
                          const kernels::QuantizedRows& x, const int32_t* starts, float* out,
                          bool add) {
  static_assert(kColumns % 256 == 0);
  constexpr size_t kVectorBytes = kernels::kPanelRows * 4;
  constexpr size_t kVectors = kByteVectors<F, kLayout>;
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
      RETICLE_UNROLL for (size_t p = 0; p < kPanels; ++p) {
        const std::byte* const bytes =
            w.values + (panel + p) * w.values_stride + group * kVectors * kVectorBytes;
        const std::byte* const scales = w.scales + (panel + p) * w.scales_stride;
        RETICLE_UNROLL for (size_t i = 0; i < kVectors; ++i) {
          __builtin_prefetch(bytes + i * kVectorBytes + k::kPrefetchBytes);
        }
        GroupSums<F, kVnni, kLayout, k::kPanelVecs> products(starts + 2 * group);
        AddGroupProducts(bytes, x.quants + group * 32, products);
        const k::VF x_scale = hn::Set(df, x.scales[group]);
        RETICLE_UNROLL for (size_t v = 0; v < k::kPanelVecs; ++v) {
          const k::VF scale = hn::Mul(
              super_scales[p][v], k::LoadInt8(scales, group * kernels::kPanelRows + v * k::kLanes));
          const k::VF scaled = hn::Mul(hn::ConvertTo(df, products.Total(v)), scale);
          sums[p][v] = hn::MulAdd(scaled, x_scale, sums[p][v]);
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
template <class F, bool kVnni, Layout kLayout, size_t kColumns>
HWY_NOINLINE void SuperProduct(const kernels::PackedMatrix& w, const kernels::QuantizedRows& rows,
                               float* out, bool add) {
  const kernels::QuantizedRows x = rows;
  int32_t starts[kColumns / 32 * 2];
  for (size_t group = 0; group < kColumns / 32; ++group) {
    GroupSums<F, kVnni, kLayout, 1>::ComputeStarts(x, group, starts + 2 * group);
  }
  size_t panel = 0;
  for (; panel + kTogether <= w.panels; panel += kTogether) {
    SuperTile<F, kVnni, kLayout, kColumns, kTogether>(w, panel, x, starts, out, add);
  }
  for (; panel < w.panels; ++panel) {
    SuperTile<F, kVnni, kLayout, kColumns, 1>(w, panel, x, starts, out, add);
  }
}

}  // namespace reticle::backends::hardwired::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // RETICLE_BACKENDS_HARDWIRED_ETCHED_PRODUCT_INL_H_
