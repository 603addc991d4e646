// Products of packed weights with few activations, for each instruction set, the weights taken from
// memory once and straight into registers. Included once for every target by Highway. A tile is
// some panels, or a vector of rows of one, times some tokens; the sum of an element runs over the
// columns in order, in integers within a group of 32 (or 16) and in floats across groups, so tiles
// of any shape, and those of tile-inl.h, give the same result.
#if defined(RETICLE_BACKENDS_KERNELS_MATMUL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RETICLE_BACKENDS_KERNELS_MATMUL_INL_H_
#undef RETICLE_BACKENDS_KERNELS_MATMUL_INL_H_
#else
#define RETICLE_BACKENDS_KERNELS_MATMUL_INL_H_
#endif

#include <algorithm>

#include "backends/kernels/dot-inl.h"
#include "backends/kernels/kernels.h"
#include "backends/kernels/weights-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace reticle::backends::kernels::HWY_NAMESPACE {

// Tokens in the widest tile: as many accumulators as the registers hold.
#if HWY_TARGET == HWY_AVX3
inline constexpr size_t kMaxTokens = 8;
#else
inline constexpr size_t kMaxTokens = 4;
#endif

// How far ahead of the first tile weights are asked for: a product with few tokens waits for
// memory, and the hardware's own prefetch stops at pages.
inline constexpr size_t kPrefetchBytes = 4096;

// Whether this instruction set has the tiles of tile-inl.h for many tokens.
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
inline constexpr bool kHasTiles = true;
#else
inline constexpr bool kHasTiles = false;
#endif

// Tokens for which quantised weights go straight into registers.
inline constexpr size_t kDirectTokens = HWY_TARGET == HWY_AVX3 ? 8 : 4;

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

// Adds the products of a group with one token.
template <class F, bool kVnni>
HWY_INLINE void AddCodes(const V8 (&codes)[F::kGroup / 4], const int8_t* quants, VI& dots) {
  constexpr size_t kCodes = F::kGroup / 4;
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
  if constexpr (!kVnni && !F::kSigned) {
    constexpr size_t kChain = std::min(F::kChain, kCodes);
    const auto ones = hn::Set(D16(), int16_t{1});
    RETICLE_UNROLL for (size_t first = 0; first < kCodes; first += kChain) {
      auto part = MultiplyPairs(codes[first], Broadcast4(quants + 4 * first));
      RETICLE_UNROLL for (size_t j = first + 1; j < first + kChain; ++j) {
        part = hn::Add(part, MultiplyPairs(codes[j], Broadcast4(quants + 4 * j)));
      }
      dots = hn::Add(dots, SumPairs(part, ones));
    }
    return;
  }
#endif
  RETICLE_UNROLL for (size_t j = 0; j < kCodes; ++j) {
    const V8 input = Broadcast4(quants + 4 * j);
    dots = F::kSigned ? DotSigned<kVnni>(dots, codes[j], input)
                      : DotUnsigned<kVnni>(dots, codes[j], input);
  }
}

// The products of a group of kThreeBit with one token. Codes in bits 3 to 5 are left there, eight
// times too large: one shift of their sum instead of one for each.
template <bool kVnni>
HWY_INLINE void AddThreeBits(const int8_t* bytes, const int8_t* quants, VI& dots) {
  constexpr size_t kRowBytes = kPanelRows * 4;
  const D8 d8;
  const V8 a = hn::LoadU(d8, bytes);
  const V8 b = hn::LoadU(d8, bytes + kRowBytes);
  const V8 c = hn::LoadU(d8, bytes + 2 * kRowBytes);
  const auto add = [quants](VI sum, V8 codes, size_t column) HWY_ATTR {
    return DotUnsigned<kVnni>(sum, codes, Broadcast4(quants + column));
  };
  VI sum = add(dots, Field<0, 3, 0>(a), 0);
  sum = add(sum, Field<0, 3, 0>(b), 4);
  sum = add(sum, Field<0, 3, 0>(c), 8);
  VI eighths = add(hn::Zero(DI()), Field<3, 3, 3>(a), 12);
  eighths = add(eighths, Field<3, 3, 3>(b), 16);
  eighths = add(eighths, Field<3, 3, 3>(c), 20);
  sum = add(sum, hn::Or(Field<6, 2, 0>(a), Field<6, 1, 2>(b)), 24);
  sum = add(sum, hn::Or(Field<6, 2, 0>(c), Field<7, 1, 2>(b)), 28);
  dots = hn::Add(sum, hn::ShiftRight<3>(eighths));
}

// The products of a group of nibbles with one token, likewise: the upper ones stay where they are
// and count sixteen times. Only for VNNI, whose weights have all eight bits.
HWY_INLINE void AddNibbles(const int8_t* bytes, const int8_t* quants, VI& dots) {
  constexpr size_t kRowBytes = kPanelRows * 4;
  const D8 d8;
  const V8 low = hn::Set(d8, 0x0f);
  VI sixteenths = hn::Zero(DI());
  RETICLE_UNROLL for (size_t j = 0; j < 4; ++j) {
    const V8 both = hn::LoadU(d8, bytes + j * kRowBytes);
    dots = DotVnni(dots, hn::And(both, low), Broadcast4(quants + 4 * j));
    sixteenths = DotVnni(sixteenths, hn::AndNot(low, both), Broadcast4(quants + 16 + 4 * j));
  }
  dots = hn::Add(dots, hn::ShiftRight<4>(sixteenths));
}

// Adds the products of one group (32 or 16 columns) to the float sums, and asks for the weights
// `ahead` bytes behind.
template <class F, bool kVnni, size_t kVecs, size_t kTokens>
HWY_INLINE void AddGroup(const GroupView& w, const SuperScales (&super)[kVecs], size_t vec,
                         const QuantizedRows& x, size_t token, size_t group, size_t ahead,
                         VF (&sums)[kVecs][kTokens]) {
  constexpr size_t kRowBytes = kPanelRows * 4;
  const int8_t* quants = x.quants + token * x.columns + group * F::kGroup;
  const size_t scale_stride = x.columns / 32;
  const size_t cell = token * scale_stride + group * F::kGroup / 32;
  VI dots[kVecs][kTokens];
  constexpr int kExcess = F::kSigned && kVnni ? kVnniExcess : F::kOffset;
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
  if (F::kUnits && group % F::kUnitGroups == 0) {
    RETICLE_UNROLL for (size_t i = 0; i < F::kUnit.quants; i += 64) {
      __builtin_prefetch(w.super_scales + i + ahead);
    }
  }
  const std::byte* bytes = w.quants + vec * kLanes * 4;
  RETICLE_UNROLL for (size_t i = 0; i < F::kVectors; ++i) {
    __builtin_prefetch(bytes + i * kRowBytes + ahead);
  }
  RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
    const std::byte* of_vec = bytes + v * kLanes * 4;
    if constexpr (F::kThree && kTokens == 1) {
      AddThreeBits<kVnni>(reinterpret_cast<const int8_t*>(of_vec), quants, dots[v][0]);
    } else if constexpr (F::kNibbles && kTokens == 1 && kVnni && kHasTiles) {
      AddNibbles(reinterpret_cast<const int8_t*>(of_vec), quants, dots[v][0]);
    } else {
      V8 codes[F::kGroup / 4];
      LoadCodes<F>(of_vec, codes);
      RETICLE_UNROLL for (size_t t = 0; t < kTokens; ++t) {
        AddCodes<F, kVnni>(codes, quants + t * x.columns, dots[v][t]);
      }
    }
  }
  RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
    const VF scale = LoadScale<F>(w, (vec + v) * kLanes, super[v]);
    RETICLE_UNROLL for (size_t t = 0; t < kTokens; ++t) {
      const VF scaled = hn::Mul(hn::ConvertTo(DF(), dots[v][t]), scale);
      const VF input = hn::Set(DF(), x.scales[cell + t * scale_stride]);
      sums[v][t] = hn::MulAdd(scaled, input, sums[v][t]);
    }
    if constexpr (F::kMin) {
      const VF min = LoadMin<F>(w, (vec + v) * kLanes, super[v]);
      RETICLE_UNROLL for (size_t t = 0; t < kTokens; ++t) {
        const VF input = hn::Set(DF(), x.scaled_sums[cell + t * scale_stride]);
        sums[v][t] = hn::MulAdd(min, input, sums[v][t]);
      }
    }
  }
}

// kPanels panels side by side, so that their sums do not wait for each other and memory is read in
// as many streams. The first token asks for what comes next, up to panel `end`: what lies behind
// would only take room in the caches from what other threads and products keep there.
template <class F, bool kVnni, size_t kPanels, size_t kVecs, size_t kTokens>
HWY_INLINE void QuantTile(const PackedMatrix& w, size_t panel, size_t end, size_t vec,
                          const QuantizedRows& x, size_t token, float* out, size_t out_stride,
                          bool add) {
  VF sums[kPanels][kVecs][kTokens];
  RETICLE_UNROLL for (size_t p = 0; p < kPanels; ++p) {
    RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
      RETICLE_UNROLL for (size_t t = 0; t < kTokens; ++t) sums[p][v][t] = hn::Zero(DF());
    }
  }
  const size_t groups = w.columns / F::kGroup;
  const bool more = panel + 2 * kPanels <= end;
  const size_t together = F::kSuper ? 256 / F::kGroup : groups;
  for (size_t begin = 0; begin < groups; begin += together) {
    SuperScales supers[kPanels][kVecs];
    RETICLE_UNROLL for (size_t p = 0; p < kPanels; ++p) {
      const GroupView view = ViewGroup<F>(PanelView(w, panel + p), begin);
      RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
        supers[p][v] = LoadSuper<F>(view, (vec + v) * kLanes);
      }
    }
    for (size_t group = begin; group < std::min(groups, begin + together); ++group) {
      RETICLE_UNROLL for (size_t p = 0; p < kPanels; ++p) {
        const PanelView of_panel(w, panel + p);
        const GroupView view = ViewGroup<F>(of_panel, group);
        size_t ahead = 0;
        if (token == 0) {
          const size_t at = view.quants - of_panel.values;
          if (at + kPrefetchBytes < w.values_stride) {
            ahead = kPrefetchBytes;
          } else if (more) {  // the panel behind those side by side
            ahead = kPrefetchBytes + (kPanels - 1) * w.values_stride;
          }
          if (!F::kUnits && group % (64 / F::kScaleBytes) == 0) {
            constexpr size_t kAhead = 2 * kPrefetchBytes / F::kGroupBytes;
            const bool past = group + kAhead >= groups;
            __builtin_prefetch(view.scales + kAhead * F::kScaleBytes +
                               (past ? (kPanels - 1) * w.scales_stride : 0));
          }
        }
        AddGroup<F, kVnni>(view, supers[p], vec, x, token, group, ahead, sums[p]);
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

// All panels with kTokens tokens.
template <class F, bool kVnni, size_t kTokens>
HWY_NOINLINE void DirectTokens(const PackedMatrix& w, size_t first, size_t end,
                               const QuantizedRows& x, size_t token, float* out, size_t out_stride,
                               bool add) {
  // As many streams as the hardware's prefetch makes the most of, while there are registers.
  constexpr size_t kPanels = !kHasTiles                              ? 1
                             : kTokens == 1                          ? 4
                             : kTokens == 2 || (F::kSigned && kVnni) ? 2
                                                                     : 1;
  constexpr size_t kVecs = kHasTiles || kTokens == 1 ? kPanelVecs : 1;
  size_t panel = first;
  for (; panel + kPanels <= end; panel += kPanels) {
    for (size_t v = 0; v < kPanelVecs; v += kVecs) {
      QuantTile<F, kVnni, kPanels, kVecs, kTokens>(w, panel, end, v, x, token, out, out_stride,
                                                   add);
    }
  }
  if constexpr (kPanels > 1) {
    for (; panel < end; ++panel) {
      QuantTile<F, kVnni, 1, kVecs, kTokens>(w, panel, end, 0, x, token, out, out_stride, add);
    }
  }
}

// Likewise with 1 to kMost tokens, which are known at run time only.
template <class F, bool kVnni, size_t kMost = kDirectTokens>
HWY_INLINE void DirectMatMul(const PackedMatrix& w, size_t first, size_t end,
                             const QuantizedRows& x, size_t token, size_t tokens, float* out,
                             size_t out_stride, bool add) {
  if constexpr (kMost > 1) {
    if (tokens < kMost) {
      return DirectMatMul<F, kVnni, kMost - 1>(w, first, end, x, token, tokens, out, out_stride,
                                               add);
    }
  }
  DirectTokens<F, kVnni, kMost>(w, first, end, x, token, out, out_stride, add);
}

}  // namespace reticle::backends::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // RETICLE_BACKENDS_KERNELS_MATMUL_INL_H_
