// Products of packed weights with activations, for each instruction set. Included once for every
// target by Highway. A tile is one vector of rows times some tokens; the sum of an element runs
// over the columns in order, in integers within a group of 32 (or 16) and in floats across groups,
// so tiles of any shape give the same result.
#if defined(RETICLE_BACKENDS_KERNELS_MATMUL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RETICLE_BACKENDS_KERNELS_MATMUL_INL_H_
#undef RETICLE_BACKENDS_KERNELS_MATMUL_INL_H_
#else
#define RETICLE_BACKENDS_KERNELS_MATMUL_INL_H_
#endif

#include "backends/kernels/dot-inl.h"
#include "backends/kernels/kernels.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace reticle::backends::kernels::HWY_NAMESPACE {

using DU16 = hn::Rebind<uint16_t, DF>;
using DF16 = hn::Rebind<hwy::float16_t, DF>;
using DBF16 = hn::Rebind<hwy::bfloat16_t, DF>;
using DBytes = hn::Rebind<int8_t, DF>;
using DUBytes = hn::Rebind<uint8_t, DF>;

// Tokens in the widest tile: as many accumulators as the registers hold.
#if HWY_TARGET == HWY_AVX3
inline constexpr size_t kMaxTokens = 8;
#else
inline constexpr size_t kMaxTokens = 4;
#endif

// How far ahead of the first tile weights are asked for: a product with few tokens waits for
// memory, and the hardware's own prefetch stops at pages.
inline constexpr size_t kPrefetchBytes = 4096;

HWY_INLINE VF LoadHalves(const std::byte* base, size_t index) {
  const DU16 du16;
  const auto bits = hn::LoadU(du16, reinterpret_cast<const uint16_t*>(base) + index);
  return hn::PromoteTo(DF(), hn::BitCast(DF16(), bits));
}

HWY_INLINE VF LoadInt8(const std::byte* base, size_t index) {
  const auto bytes = hn::LoadU(DBytes(), reinterpret_cast<const int8_t*>(base) + index);
  return hn::ConvertTo(DF(), hn::PromoteTo(DI(), bytes));
}

HWY_INLINE VF LoadUint8(const std::byte* base, size_t index) {
  const auto bytes = hn::LoadU(DUBytes(), reinterpret_cast<const uint8_t*>(base) + index);
  return hn::ConvertTo(DF(), hn::PromoteTo(DI(), bytes));
}

HWY_INLINE void StoreResult(VF value, float* to, bool add) {
  const DF df;
  hn::StoreU(add ? hn::Add(hn::LoadU(df, to), value) : value, df, to);
}

// ==== Float weights ====

template <PackedFormat kFormat>
HWY_INLINE VF LoadWeights(const std::byte* panel, size_t index) {
  if constexpr (kFormat == PackedFormat::kF32) {
    return hn::LoadU(DF(), reinterpret_cast<const float*>(panel) + index);
  } else if constexpr (kFormat == PackedFormat::kF16) {
    return LoadHalves(panel, index);
  } else {
    const auto bits = hn::LoadU(DU16(), reinterpret_cast<const uint16_t*>(panel) + index);
    return hn::PromoteTo(DF(), hn::BitCast(DBF16(), bits));
  }
}

// Rows vec*kLanes .. of kPanels panels, all tokens from `token` on, kTokens of them.
template <PackedFormat kFormat, size_t kPanels, size_t kVecs, size_t kTokens>
HWY_INLINE void FloatTile(const PackedMatrix& w, size_t panel, size_t vec, const Activations& x,
                          size_t token, float* out, size_t out_stride, bool add) {
  const std::byte* values = w.values + panel * w.values_stride;
  const float* input = x.floats + token * x.float_stride;
  VF sums[kPanels][kVecs][kTokens];
  RETICLE_UNROLL for (size_t p = 0; p < kPanels; ++p) {
    RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
      RETICLE_UNROLL for (size_t t = 0; t < kTokens; ++t) sums[p][v][t] = hn::Zero(DF());
    }
  }
  constexpr size_t kColumnBytes = kPanelRows * (kFormat == PackedFormat::kF32 ? 4 : 2);
  const size_t ahead = token == 0 ? kPrefetchBytes : 0;
  for (size_t k = 0; k < w.columns; ++k) {
    RETICLE_UNROLL for (size_t p = 0; p < kPanels; ++p) {
      __builtin_prefetch(values + p * w.values_stride + k * kColumnBytes + ahead);
      RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
        const VF weights =
            LoadWeights<kFormat>(values + p * w.values_stride, k * kPanelRows + (vec + v) * kLanes);
        RETICLE_UNROLL for (size_t t = 0; t < kTokens; ++t) {
          const VF value = hn::Set(DF(), input[t * x.float_stride + k]);
          sums[p][v][t] = hn::MulAdd(weights, value, sums[p][v][t]);
        }
      }
    }
  }
  RETICLE_UNROLL for (size_t p = 0; p < kPanels; ++p) {
    RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
      RETICLE_UNROLL for (size_t t = 0; t < kTokens; ++t) {
        float* to = out + (token + t) * out_stride + (panel + p) * kPanelRows + (vec + v) * kLanes;
        StoreResult(sums[p][v][t], to, add);
      }
    }
  }
}

template <PackedFormat kFormat, size_t kTokens>
HWY_INLINE void FloatTokens(const PackedMatrix& w, size_t first, size_t end, const Activations& x,
                            size_t token, float* out, size_t out_stride, bool add) {
  constexpr size_t kTogether = 4;
  size_t panel = first;
  if constexpr (kTokens == 1) {
    for (; panel + kTogether <= end; panel += kTogether) {
      FloatTile<kFormat, kTogether, kPanelVecs <= 2 ? kPanelVecs : 1, 1>(w, panel, 0, x, token, out,
                                                                         out_stride, add);
      for (size_t v = 1; kPanelVecs > 2 && v < kPanelVecs; ++v) {
        FloatTile<kFormat, kTogether, 1, 1>(w, panel, v, x, token, out, out_stride, add);
      }
    }
  }
  for (; panel < end; ++panel) {
    for (size_t v = 0; v < kPanelVecs; ++v) {
      FloatTile<kFormat, 1, 1, kTokens>(w, panel, v, x, token, out, out_stride, add);
    }
  }
}

template <PackedFormat kFormat>
void FloatMatMul(const PackedMatrix& w, size_t first, size_t end, const Activations& x,
                 size_t tokens, float* out, size_t out_stride, bool add) {
  if (tokens == 1) {
    FloatTokens<kFormat, 1>(w, first, end, x, 0, out, out_stride, add);
    return;
  }
  for (size_t panel = first; panel < end; ++panel) {
    size_t t = 0;
    for (; t + kMaxTokens <= tokens; t += kMaxTokens) {
      FloatTokens<kFormat, kMaxTokens>(w, panel, panel + 1, x, t, out, out_stride, add);
    }
    for (; t + 2 <= tokens; t += 2) {
      FloatTokens<kFormat, 2>(w, panel, panel + 1, x, t, out, out_stride, add);
    }
    if (t < tokens) FloatTokens<kFormat, 1>(w, panel, panel + 1, x, t, out, out_stride, add);
  }
}

// ==== Quantised weights ====

template <PackedFormat kFormat>
struct Format {
  static constexpr bool kNibbles = kFormat == PackedFormat::kNibbles ||
                                   kFormat == PackedFormat::kNibblesMin ||
                                   kFormat == PackedFormat::kNibblesSuperMin;
  static constexpr bool kSigned =
      kFormat == PackedFormat::kInt8 || kFormat == PackedFormat::kInt8Super16;
  static constexpr bool kMin =
      kFormat == PackedFormat::kInt8Min || kFormat == PackedFormat::kInt8SuperMin ||
      kFormat == PackedFormat::kNibblesMin || kFormat == PackedFormat::kNibblesSuperMin;
  static constexpr bool kSix = kFormat == PackedFormat::kSixBit;
  static constexpr bool kThree = kFormat == PackedFormat::kThreeBit;
  static constexpr bool kSuper = kFormat == PackedFormat::kInt8SuperMin ||
                                 kFormat == PackedFormat::kInt8Super16 ||
                                 kFormat == PackedFormat::kNibblesSuperMin || kSix || kThree;
  // Columns that share a scale.
  static constexpr size_t kGroup = kFormat == PackedFormat::kInt8Super16 ? 16 : 32;
  // What a quant is too large by.
  static constexpr int kOffset = kFormat == PackedFormat::kNibbles ? 8 : kSix ? 32 : kThree ? 4 : 0;
};

// Where one panel's arrays begin.
struct PanelView {
  const std::byte* values;
  const std::byte* scales;
  const std::byte* mins;
  const std::byte* super_scales;
  const std::byte* super_mins;

  PanelView(const PackedMatrix& w, size_t panel)
      : values(w.values + panel * w.values_stride),
        scales(w.scales + panel * w.scales_stride),
        mins(w.mins + panel * w.mins_stride),
        super_scales(w.super_scales + panel * w.super_stride),
        super_mins(w.super_mins + panel * w.super_stride) {}
};

template <class F>
HWY_INLINE VF LoadScale(const PanelView& w, size_t group, size_t lane) {
  if constexpr (F::kSuper) {
    const size_t super = group * F::kGroup / 256;
    return hn::Mul(LoadHalves(w.super_scales, super * kPanelRows + lane),
                   LoadInt8(w.scales, group * kPanelRows + lane));
  } else {
    return LoadHalves(w.scales, group * kPanelRows + lane);
  }
}

template <class F>
HWY_INLINE VF LoadMin(const PanelView& w, size_t group, size_t lane) {
  if constexpr (F::kSuper) {
    return hn::Mul(LoadHalves(w.super_mins, group / 8 * kPanelRows + lane),
                   LoadUint8(w.mins, group * kPanelRows + lane));
  } else {
    return LoadHalves(w.mins, group * kPanelRows + lane);
  }
}

// Bits kFrom .. kFrom + kBits - 1 of every byte, moved to bit kTo.
template <int kFrom, int kBits, int kTo>
HWY_INLINE V8 Field(V8 bytes) {
  const auto wide = hn::BitCast(D16(), bytes);
  const auto mask = hn::Set(D8(), static_cast<int8_t>(((1 << kBits) - 1) << kTo));
  if constexpr (kFrom > kTo) {
    return hn::And(hn::BitCast(D8(), hn::ShiftRight<kFrom - kTo>(wide)), mask);
  } else if constexpr (kFrom < kTo) {
    return hn::And(hn::BitCast(D8(), hn::ShiftLeft<kTo - kFrom>(wide)), mask);
  } else {
    return hn::And(bytes, mask);
  }
}

// Adds to the dots of each token the products of columns kColumn .. kColumn+3 of a group.
template <bool kVnni, size_t kColumn, size_t kTokens>
HWY_INLINE void AddColumns(V8 weights, const int8_t* quants, size_t quants_stride,
                           VI (&dots)[kTokens]) {
  RETICLE_UNROLL for (size_t t = 0; t < kTokens; ++t) {
    const V8 input = Broadcast4(quants + t * quants_stride + kColumn);
    dots[t] = DotUnsigned<kVnni>(dots[t], weights, input);
  }
}

// The products of a group of kThreeBit.
template <bool kVnni, size_t kTokens>
HWY_INLINE void AddThreeBits(const int8_t* bytes, const int8_t* quants, size_t stride,
                             VI (&dots)[kTokens]) {
  constexpr size_t kRowBytes = kPanelRows * 4;
  const D8 d8;
  const V8 a = hn::LoadU(d8, bytes);
  const V8 b = hn::LoadU(d8, bytes + kRowBytes);
  const V8 c = hn::LoadU(d8, bytes + 2 * kRowBytes);
  AddColumns<kVnni, 0>(Field<0, 3, 0>(a), quants, stride, dots);
  AddColumns<kVnni, 4>(Field<0, 3, 0>(b), quants, stride, dots);
  AddColumns<kVnni, 8>(Field<0, 3, 0>(c), quants, stride, dots);
  if constexpr (kTokens == 1) {
    // Left where they lie, these codes are eight times too large: one shift of the sum instead of
    // one for each.
    VI eighths[1] = {hn::Zero(DI())};
    AddColumns<kVnni, 12>(Field<3, 3, 3>(a), quants, stride, eighths);
    AddColumns<kVnni, 16>(Field<3, 3, 3>(b), quants, stride, eighths);
    AddColumns<kVnni, 20>(Field<3, 3, 3>(c), quants, stride, eighths);
    dots[0] = hn::Add(dots[0], hn::ShiftRight<3>(eighths[0]));
  } else {
    AddColumns<kVnni, 12>(Field<3, 3, 0>(a), quants, stride, dots);
    AddColumns<kVnni, 16>(Field<3, 3, 0>(b), quants, stride, dots);
    AddColumns<kVnni, 20>(Field<3, 3, 0>(c), quants, stride, dots);
  }
  AddColumns<kVnni, 24>(hn::Or(Field<6, 2, 0>(a), Field<6, 1, 2>(b)), quants, stride, dots);
  AddColumns<kVnni, 28>(hn::Or(Field<6, 2, 0>(c), Field<7, 1, 2>(b)), quants, stride, dots);
}

// The products of half a group of kSixBit.
template <bool kVnni, size_t kTokens>
HWY_INLINE void AddSixBits(const int8_t* bytes, const int8_t* quants, size_t stride,
                           VI (&dots)[kTokens]) {
  constexpr size_t kRowBytes = kPanelRows * 4;
  const D8 d8;
  const V8 a = hn::LoadU(d8, bytes);
  const V8 b = hn::LoadU(d8, bytes + kRowBytes);
  const V8 c = hn::LoadU(d8, bytes + 2 * kRowBytes);
  AddColumns<kVnni, 0>(Field<0, 6, 0>(a), quants, stride, dots);
  AddColumns<kVnni, 4>(Field<0, 6, 0>(b), quants, stride, dots);
  AddColumns<kVnni, 8>(Field<0, 6, 0>(c), quants, stride, dots);
  const V8 rest = hn::Or(hn::Or(Field<6, 2, 0>(a), Field<6, 2, 2>(b)), Field<6, 2, 4>(c));
  AddColumns<kVnni, 12>(rest, quants, stride, dots);
}

// Adds the products of one group (32 or 16 columns) to the float sums.
template <class F, bool kVnni, size_t kVecs, size_t kTokens>
HWY_INLINE void AddGroup(const PanelView& w, size_t vec, const QuantizedRows& x, size_t token,
                         size_t group, VF (&sums)[kVecs][kTokens]) {
  constexpr size_t kRowBytes = kPanelRows * 4;
  const int8_t* quants = x.quants + token * x.columns + group * F::kGroup;
  const size_t scale_stride = x.columns / 32;
  const size_t cell = token * scale_stride + group * F::kGroup / 32;
  const size_t ahead = token == 0 ? kPrefetchBytes : 0;
  VI dots[kVecs][kTokens];
  constexpr int kExcess = F::kSigned && kVnni ? 128 : F::kOffset;
  RETICLE_UNROLL for (size_t t = 0; t < kTokens; ++t) {
    VI start = hn::Zero(DI());
    if constexpr (kExcess != 0) {
      const int32_t sum = F::kGroup == 16
                              ? x.half_sums[token * 2 * scale_stride + group + t * 2 * scale_stride]
                              : x.sums[cell + t * scale_stride];
      start = hn::Set(DI(), -kExcess * sum);
    }
    RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) dots[v][t] = start;
  }
  if constexpr (F::kSix || F::kThree) {
    constexpr size_t kVectors = F::kSix ? 6 : 3;
    const int8_t* bytes =
        reinterpret_cast<const int8_t*>(w.values) + group * kVectors * kRowBytes + vec * kLanes * 4;
    RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
      const int8_t* of_vec = bytes + v * kLanes * 4;
      if constexpr (F::kSix) {
        AddSixBits<kVnni>(of_vec, quants, x.columns, dots[v]);
        AddSixBits<kVnni>(of_vec + 3 * kRowBytes, quants + 16, x.columns, dots[v]);
      } else {
        AddThreeBits<kVnni>(of_vec, quants, x.columns, dots[v]);
      }
    }
  } else if constexpr (F::kNibbles) {
    const int8_t* bytes =
        reinterpret_cast<const int8_t*>(w.values) + group * 4 * kRowBytes + vec * kLanes * 4;
    const auto mask = hn::Set(D8(), int8_t{15});
    RETICLE_UNROLL for (size_t j = 0; j < 4; ++j) {
      RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
        if (v == 0) __builtin_prefetch(bytes + j * kRowBytes + ahead);
        const V8 both = hn::LoadU(D8(), bytes + j * kRowBytes + v * kLanes * 4);
        const V8 low = hn::And(both, mask);
        const V8 high =
            hn::And(hn::BitCast(D8(), hn::ShiftRight<4>(hn::BitCast(D16(), both))), mask);
        RETICLE_UNROLL for (size_t t = 0; t < kTokens; ++t) {
          const int8_t* q = quants + t * x.columns + j * 4;
          dots[v][t] = DotUnsigned<kVnni>(dots[v][t], low, Broadcast4(q));
          dots[v][t] = DotUnsigned<kVnni>(dots[v][t], high, Broadcast4(q + 16));
        }
      }
    }
  } else {
    const int8_t* bytes = reinterpret_cast<const int8_t*>(w.values) +
                          group * (F::kGroup / 4) * kRowBytes + vec * kLanes * 4;
    RETICLE_UNROLL for (size_t j = 0; j < F::kGroup / 4; ++j) {
      RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
        if (v == 0) __builtin_prefetch(bytes + j * kRowBytes + ahead);
        const V8 weights = hn::LoadU(D8(), bytes + j * kRowBytes + v * kLanes * 4);
        RETICLE_UNROLL for (size_t t = 0; t < kTokens; ++t) {
          const V8 input = Broadcast4(quants + t * x.columns + j * 4);
          if constexpr (F::kSigned) {
            dots[v][t] = DotSigned<kVnni>(dots[v][t], weights, input);
          } else {
            dots[v][t] = DotUnsigned<kVnni>(dots[v][t], weights, input);
          }
        }
      }
    }
  }
  RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
    const VF scale = LoadScale<F>(w, group, (vec + v) * kLanes);
    RETICLE_UNROLL for (size_t t = 0; t < kTokens; ++t) {
      const VF both = hn::Mul(scale, hn::Set(DF(), x.scales[cell + t * scale_stride]));
      sums[v][t] = hn::MulAdd(hn::ConvertTo(DF(), dots[v][t]), both, sums[v][t]);
    }
    if constexpr (F::kMin) {
      const VF min = LoadMin<F>(w, group, (vec + v) * kLanes);
      RETICLE_UNROLL for (size_t t = 0; t < kTokens; ++t) {
        const VF input = hn::Set(DF(), x.scaled_sums[cell + t * scale_stride]);
        sums[v][t] = hn::MulAdd(min, input, sums[v][t]);
      }
    }
  }
}

template <class F, bool kVnni, size_t kVecs, size_t kTokens>
HWY_INLINE void QuantTile(const PackedMatrix& w, size_t panel, size_t vec, const QuantizedRows& x,
                          size_t token, float* out, size_t out_stride, bool add) {
  const PanelView view(w, panel);
  VF sums[kVecs][kTokens];
  RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
    RETICLE_UNROLL for (size_t t = 0; t < kTokens; ++t) sums[v][t] = hn::Zero(DF());
  }
  const size_t groups = w.columns / F::kGroup;
  for (size_t group = 0; group < groups; ++group) {
    AddGroup<F, kVnni>(view, vec, x, token, group, sums);
  }
  RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
    RETICLE_UNROLL for (size_t t = 0; t < kTokens; ++t) {
      float* to = out + (token + t) * out_stride + panel * kPanelRows + (vec + v) * kLanes;
      StoreResult(sums[v][t], to, add);
    }
  }
}

template <class F, bool kVnni, size_t kTokens>
HWY_INLINE void QuantTokens(const PackedMatrix& w, size_t panel, const QuantizedRows& x,
                            size_t token, float* out, size_t out_stride, bool add) {
  constexpr size_t kVecs = kTokens == 1 ? kPanelVecs : 1;
  for (size_t v = 0; v < kPanelVecs; v += kVecs) {
    QuantTile<F, kVnni, kVecs, kTokens>(w, panel, v, x, token, out, out_stride, add);
  }
}

template <PackedFormat kFormat, bool kVnni>
void QuantMatMul(const PackedMatrix& w, size_t first, size_t end, const QuantizedRows& x,
                 size_t tokens, float* out, size_t out_stride, bool add) {
  using F = Format<kFormat>;
  for (size_t panel = first; panel < end; ++panel) {
    size_t t = 0;
    for (; t + kMaxTokens <= tokens; t += kMaxTokens) {
      QuantTokens<F, kVnni, kMaxTokens>(w, panel, x, t, out, out_stride, add);
    }
    for (; t + 2 <= tokens; t += 2) {
      QuantTokens<F, kVnni, 2>(w, panel, x, t, out, out_stride, add);
    }
    if (t < tokens) QuantTokens<F, kVnni, 1>(w, panel, x, t, out, out_stride, add);
  }
}

}  // namespace reticle::backends::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // RETICLE_BACKENDS_KERNELS_MATMUL_INL_H_
