// Products of packed weights with many tokens, for instruction sets with room for it. Included once
// for every target by Highway.
//
// A block of weights, kBlockColumns columns of some panels, is unpacked once into bytes (or 16-bit
// integers) that stay in the nearest cache, then multiplied with all tokens of a chunk by tiles
// whose integer sums fill the registers. An element's chain of operations is that of matmul-inl.h.
#if defined(RETICLE_BACKENDS_KERNELS_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RETICLE_BACKENDS_KERNELS_TILE_INL_H_
#undef RETICLE_BACKENDS_KERNELS_TILE_INL_H_
#else
#define RETICLE_BACKENDS_KERNELS_TILE_INL_H_
#endif

#include <algorithm>
#include <bit>

#include "backends/kernels/matmul-inl.h"
#include "hwy/highway.h"

#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2

HWY_BEFORE_NAMESPACE();
namespace reticle::backends::kernels::HWY_NAMESPACE {

inline constexpr size_t kBlockColumns = 512;
// Tokens whose activations are used while they lie in the second cache.
inline constexpr size_t kMaxChunkTokens = 192;
inline constexpr size_t kMinChunkTokens = 48;
inline constexpr size_t kChunkBytes = size_t{512} << 10;
// A tile is two vectors of rows wide.
inline constexpr size_t kTileVecs = 2;
inline constexpr size_t kTilePanels = kTileVecs / kPanelVecs;
inline constexpr size_t kTileRows = kTilePanels * kPanelRows;
// With sixteen registers the float sums stay in memory.
inline constexpr bool kFewRegisters = HWY_TARGET == HWY_AVX2;

// A float whose neighbours are integers. Integer sums begin with its bits, so that they are the
// bits of kIntegerBase + sum; times the scale less kIntegerBase times the scale, in one fused
// operation, that is the sum times the scale, rounded once. Both are exact: |sum| < 2^22, and a
// scale has at most 19 significant bits.
inline constexpr float kIntegerBase = 3 << 22;
inline constexpr int32_t kIntegerBaseBits = std::bit_cast<int32_t>(kIntegerBase);

// How the integer products are made.
enum class Products {
  kVnni,    // unsigned bytes with bytes, summed by fours
  kNarrow,  // likewise, pairs summed in 16 bits over a chain
  kWide,    // 16-bit integers by pairs: for signed bytes, whose products overflow kNarrow's sums
};

template <class F, bool kVnni>
inline constexpr Products kProductsOf = kVnni        ? Products::kVnni
                                        : F::kSigned ? Products::kWide
                                                     : Products::kNarrow;

// What a tile needs to know of a format once its quants are unpacked.
template <class F, bool kVnniValue>
struct TileTraits {
  static constexpr Products kProducts = kProductsOf<F, kVnniValue>;
  static constexpr size_t kGroup = F::kGroup;
  static constexpr bool kMin = F::kMin;
  static constexpr size_t kChain =
      kProducts == Products::kNarrow ? std::min(F::kChain, F::kGroup / 4) : 1;
  // What unpacked quants are too large by.
  static constexpr int kExcess = F::kSigned ? (kProducts == Products::kVnni ? 128 : 0) : F::kOffset;
  static constexpr size_t kMaxTokens = !kFewRegisters || kProducts == Products::kVnni          ? 6
                                       : kProducts == Products::kNarrow && kChain * 4 < kGroup ? 2
                                                                                               : 4;
};

// Tiles are compiled for these, not for each format.
template <Products kProductsValue, size_t kGroupValue, bool kMinValue, bool kExcessValue,
          size_t kChainValue>
struct TileKind {
  static constexpr Products kProducts = kProductsValue;
  static constexpr size_t kGroup = kGroupValue;
  static constexpr bool kMin = kMinValue;
  static constexpr bool kHasExcess = kExcessValue;
  static constexpr size_t kChain = kChainValue;
};
template <class T>
using KindOf = TileKind<T::kProducts, T::kGroup, T::kMin, T::kExcess != 0, T::kChain>;

// A block of weights, unpacked: quants [columns / 4][rows][4], for kWide [columns / 2][rows][2]
// with columns 4j, 4j+2 and then 4j+1, 4j+3; scales and minima [group][rows].
struct alignas(64) Block {
  int8_t codes[kTileRows * kBlockColumns * 2];
  float scales[kBlockColumns / 16][kTileRows];
  float offsets[kBlockColumns / 16][kTileRows];
  float mins[kBlockColumns / 32][kTileRows];
  // Of each token and group: what the integer sums begin with.
  int32_t starts[kMaxChunkTokens][kBlockColumns / 16];
  float sums[kMaxChunkTokens][kTileRows];
};

// Lines of each of a tile's panels to ask memory for, some with each group that a tile computes.
struct Prefetch {
  const std::byte* at = nullptr;
  const std::byte* end = nullptr;
  size_t stride = 0;  // to the next panel; 0: there is none
  size_t lines = 0;   // a time

  HWY_INLINE void Step() {
    for (size_t i = 0; i < lines && at < end; ++i, at += 64) {
      RETICLE_UNROLL for (size_t p = 0; p < kTilePanels; ++p) {
        __builtin_prefetch(at + p * stride, 0, 2);
      }
    }
  }
};

// Where the results of a chunk go, when they are about to: they have left the near caches.
struct PrefetchRows {
  const float* first = nullptr;  // nullptr: not yet
  size_t stride = 0;

  HWY_INLINE void Step(size_t token, size_t tokens) const {
    if (first == nullptr) return;
    for (size_t t = token; t < token + tokens; ++t) {
      for (size_t i = 0; i < kTileRows; i += 16) __builtin_prefetch(first + t * stride + i, 1, 3);
    }
  }
};

template <class F, class T, size_t kPanels>
HWY_NOINLINE void Unpack(const PackedMatrix& w, size_t panel, size_t first_group, size_t groups,
                         Block& block) {
  constexpr size_t kVecs = kPanels * kPanelVecs;
  constexpr size_t kBytes = kLanes * 4;
  constexpr size_t kCodes = F::kGroup / 4;
  const D8 d8;
  const D16 d16;
  for (size_t p = 0; p < kPanels; ++p) {
    const PanelView view(w, panel + p);
    for (size_t g = 0; g < groups; ++g) {
      const GroupView group = ViewGroup<F>(view, first_group + g);
      for (size_t v = 0; v < kPanelVecs; ++v) {
        const size_t vec = p * kPanelVecs + v;
        V8 codes[kCodes];
        LoadCodes<F>(group.quants + v * kBytes, codes);
        RETICLE_UNROLL for (size_t j = 0; j < kCodes; ++j) {
          const size_t at = g * kCodes + j;
          if constexpr (T::kProducts == Products::kWide) {
            const auto pairs = hn::BitCast(d16, codes[j]);
            const auto even = hn::ShiftRight<8>(hn::ShiftLeft<8>(pairs));
            const auto odd = hn::ShiftRight<8>(pairs);
            int8_t* to = block.codes + (2 * at * kVecs + vec) * kBytes;
            hn::Store(hn::BitCast(d8, even), d8, to);
            hn::Store(hn::BitCast(d8, odd), d8, to + kVecs * kBytes);
          } else {
            const V8 flip = hn::Set(d8, static_cast<int8_t>(F::kSigned ? -128 : 0));
            hn::Store(hn::Xor(codes[j], flip), d8, block.codes + (at * kVecs + vec) * kBytes);
          }
        }
        const SuperScales super = LoadSuper<F>(group, v * kLanes);
        const VF scale = LoadScale<F>(group, v * kLanes, super);
        hn::Store(scale, DF(), &block.scales[g][vec * kLanes]);
        hn::Store(hn::Mul(scale, hn::Set(DF(), -kIntegerBase)), DF(),
                  &block.offsets[g][vec * kLanes]);
        if constexpr (F::kMin) {
          hn::Store(LoadMin<F>(group, v * kLanes, super), DF(), &block.mins[g][vec * kLanes]);
        }
      }
    }
  }
}

// The activations of a tile's first token at a block's first column, and of the tokens behind it.
struct TileInput {
  const int8_t* quants;
  const int16_t* wide;
  size_t stride;  // of both, in elements
  const float* scales;
  const float* scaled_sums;
  size_t scale_stride;
};

// Keeps the compiler from summing in another order, which it would do at the price of registers.
template <class V>
HWY_INLINE V InOrder(V sum) {
#if HWY_TARGET == HWY_AVX3
  asm("" : "+v"(sum.raw));
#else
  asm("" : "+x"(sum.raw));
#endif
  return sum;
}

// Adds the integer products of group `g` of the block.
template <class K, size_t kVecs, size_t kTokens>
HWY_INLINE void AddProducts(const Block& block, const TileInput& x, size_t g,
                            VI (&dots)[kVecs][kTokens]) {
  constexpr size_t kBytes = kLanes * 4;
  constexpr size_t kCodes = K::kGroup / 4;
  const D8 d8;
  const D16 d16;
  if constexpr (K::kProducts == Products::kVnni) {
    const int8_t* codes = block.codes + g * kCodes * kVecs * kBytes;
    RETICLE_UNROLL for (size_t j = 0; j < kCodes; ++j) {
      V8 w[kVecs];
      RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
        w[v] = hn::Load(d8, codes + (j * kVecs + v) * kBytes);
      }
      RETICLE_UNROLL for (size_t t = 0; t < kTokens; ++t) {
        const V8 input = Broadcast4(x.quants + t * x.stride + g * K::kGroup + 4 * j);
        RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
          dots[v][t] = DotVnni(dots[v][t], w[v], input);
        }
      }
    }
  } else if constexpr (K::kProducts == Products::kWide) {
    const int8_t* codes = block.codes + g * 2 * kCodes * kVecs * kBytes;
    RETICLE_UNROLL for (size_t j = 0; j < 2 * kCodes; ++j) {
      hn::Vec<D16> w[kVecs];
      RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
        w[v] = hn::BitCast(d16, hn::Load(d8, codes + (j * kVecs + v) * kBytes));
      }
      RETICLE_UNROLL for (size_t t = 0; t < kTokens; ++t) {
        const int16_t* pair = x.wide + t * x.stride + g * K::kGroup + 2 * j;
        const auto input = hn::BitCast(d16, Broadcast4(reinterpret_cast<const int8_t*>(pair)));
        RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
          dots[v][t] = InOrder(hn::Add(dots[v][t], SumPairs(w[v], input)));
        }
      }
    }
  } else {
    const int8_t* codes = block.codes + g * kCodes * kVecs * kBytes;
    const auto ones = hn::Set(d16, int16_t{1});
    RETICLE_UNROLL for (size_t first = 0; first < kCodes; first += K::kChain) {
      hn::Vec<D16> part[kVecs][kTokens];
      RETICLE_UNROLL for (size_t i = 0; i < K::kChain; ++i) {
        const size_t j = first + i;
        V8 w[kVecs];
        RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
          w[v] = hn::Load(d8, codes + (j * kVecs + v) * kBytes);
        }
        RETICLE_UNROLL for (size_t t = 0; t < kTokens; ++t) {
          const V8 input = Broadcast4(x.quants + t * x.stride + g * K::kGroup + 4 * j);
          RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
            const auto product = MultiplyPairs(w[v], input);
            part[v][t] = InOrder(i == 0 ? product : hn::Add(part[v][t], product));
          }
        }
      }
      RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
        RETICLE_UNROLL for (size_t t = 0; t < kTokens; ++t) {
          dots[v][t] = hn::Add(dots[v][t], SumPairs(part[v][t], ones));
        }
      }
    }
  }
}

// Adds the products of a block's groups with kTokens tokens to their sums.
template <class K, size_t kVecs, size_t kTokens>
HWY_NOINLINE void AddTile(const Block& block, size_t groups, const TileInput& input,
                          const int32_t* starts, float* sums, Prefetch& prefetch) {
  const DF df;
  const TileInput x = input;
  constexpr size_t kStarts = kBlockColumns / 16;
  VF totals[kVecs][kTokens];
  if constexpr (!kFewRegisters) {
    RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
      RETICLE_UNROLL for (size_t t = 0; t < kTokens; ++t) {
        totals[v][t] = hn::Load(df, sums + t * kTileRows + v * kLanes);
      }
    }
  }
  for (size_t g = 0; g < groups; ++g) {
    prefetch.Step();
    VI dots[kVecs][kTokens];
    RETICLE_UNROLL for (size_t t = 0; t < kTokens; ++t) {
      const VI start = hn::Set(DI(), K::kHasExcess ? starts[t * kStarts + g] : kIntegerBaseBits);
      RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) dots[v][t] = start;
    }
    AddProducts<K>(block, x, g, dots);
    const size_t cell = g * K::kGroup / 32;
    RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
      const VF scale = hn::Load(df, &block.scales[g][v * kLanes]);
      const VF offset = hn::Load(df, &block.offsets[g][v * kLanes]);
      RETICLE_UNROLL for (size_t t = 0; t < kTokens; ++t) {
        float* const sum = sums + t * kTileRows + v * kLanes;
        VF total = kFewRegisters ? hn::Load(df, sum) : totals[v][t];
        const VF scaled = hn::MulAdd(hn::BitCast(df, dots[v][t]), scale, offset);
        total = hn::MulAdd(scaled, hn::Set(df, x.scales[t * x.scale_stride + cell]), total);
        if constexpr (K::kMin) {
          const VF of_min = hn::Set(df, x.scaled_sums[t * x.scale_stride + cell]);
          total = hn::MulAdd(hn::Load(df, &block.mins[g][v * kLanes]), of_min, total);
        }
        if constexpr (kFewRegisters) {
          hn::Store(total, df, sum);
        } else {
          totals[v][t] = total;
        }
      }
    }
  }
  if constexpr (!kFewRegisters) {
    RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
      RETICLE_UNROLL for (size_t t = 0; t < kTokens; ++t) {
        hn::Store(totals[v][t], df, sums + t * kTileRows + v * kLanes);
      }
    }
  }
}

// All tokens of a chunk with a block.
template <class T, size_t kVecs>
HWY_INLINE void AddChunk(Block& block, size_t groups, const QuantizedRows& x, size_t token,
                         size_t tokens, size_t first_group, Prefetch& prefetch,
                         const PrefetchRows& results) {
  using K = KindOf<T>;
  for (size_t t = 0; t < tokens;) {
    const size_t row = token + t;
    const size_t column = first_group * T::kGroup;
    const size_t cell = row * (x.columns / 32) + column / 32;
    const TileInput input = {
        x.quants + row * x.columns + column,
        T::kProducts == Products::kWide ? x.wide + row * x.columns + column : nullptr,
        x.columns,
        x.scales + cell,
        x.scaled_sums + cell,
        x.columns / 32};
    const int32_t* starts = block.starts[t];
    float* sums = block.sums[t];
    const size_t left = tokens - t;
    const auto add_tile = [&]<size_t kTokens>() HWY_ATTR {
      results.Step(t, kTokens);
      AddTile<K, kVecs, kTokens>(block, groups, input, starts, sums, prefetch);
      t += kTokens;
    };
    constexpr size_t kMost = T::kMaxTokens;
    constexpr size_t kMany = std::min<size_t>(kMost, 4);
    if (kMost > kMany && left >= kMost && left != 2 * kMany) {
      add_tile.template operator()<kMost>();
    } else if (left >= kMany) {
      add_tile.template operator()<kMany>();
    } else if (left >= 2) {
      add_tile.template operator()<2>();
    } else {
      add_tile.template operator()<1>();
    }
  }
}

template <class T>
HWY_INLINE void SetStarts(const QuantizedRows& x, size_t token, size_t tokens, size_t first_group,
                          size_t groups, Block& block) {
  if constexpr (T::kExcess != 0) {
    const DI di;
    const VI factor = hn::Set(di, -T::kExcess);
    const VI base = hn::Set(di, kIntegerBaseBits);
    const int32_t* of_groups = T::kGroup == 16 ? x.half_sums : x.sums;
    const size_t stride = x.columns / T::kGroup;
    for (size_t t = 0; t < tokens; ++t) {
      const int32_t* from = of_groups + (token + t) * stride + first_group;
      for (size_t g = 0; g < groups; g += kLanes) {
        const VI sums = groups - g >= kLanes
                            ? hn::LoadU(di, from + g)
                            : hn::MaskedLoad(hn::FirstN(di, groups - g), di, from + g);
        hn::Store(hn::Add(hn::Mul(sums, factor), base), di, &block.starts[t][g]);
      }
    }
  }
}

// Bytes of a panel's units, or quants, before group `group`, which begins a unit or is the last.
template <class F>
constexpr size_t BytesBefore(size_t group) {
  return F::kUnits ? F::kUnit.BytesOf(group * F::kGroup / 32) : group * F::kGroupBytes;
}

// The products of kPanels panels with a chunk of tokens.
template <class F, class T, size_t kPanels>
HWY_NOINLINE void TilePanels(const PackedMatrix& w, size_t panel, size_t next_panel,
                             const QuantizedRows& x, size_t token, size_t tokens, float* out,
                             size_t out_stride, bool add, Block& block) {
  constexpr size_t kVecs = kPanels * kPanelVecs;
  constexpr size_t kBlockGroups = kBlockColumns / T::kGroup;
  const DF df;
  const size_t groups = w.columns / T::kGroup;
  std::fill_n(block.sums[0], tokens * kTileRows, 0.0f);
  for (size_t first = 0; first < groups; first += kBlockGroups) {
    const size_t count = std::min(kBlockGroups, groups - first);
    Unpack<F, T, kPanels>(w, panel, first, count, block);
    SetStarts<T>(x, token, tokens, first, count, block);
    // The next block of these panels, or the first of those behind them.
    const bool last = first + kBlockGroups >= groups;
    const size_t following = last ? next_panel : panel;
    const size_t next_first = last ? 0 : first + kBlockGroups;
    Prefetch prefetch;
    if (following < w.panels) {
      prefetch.stride = following + kTilePanels <= w.panels ? w.values_stride : 0;
      const size_t next_end = std::min(groups, next_first + kBlockGroups);
      prefetch.at = w.values + following * w.values_stride + BytesBefore<F>(next_first);
      prefetch.end = w.values + following * w.values_stride + BytesBefore<F>(next_end);
      const size_t lines = BytesBefore<F>(kBlockGroups) / 64;
      const size_t steps = (tokens + T::kMaxTokens - 1) / T::kMaxTokens * count;
      prefetch.lines = (lines + steps - 1) / steps;
    }
    const PrefetchRows results = {last ? out + token * out_stride + panel * kPanelRows : nullptr,
                                  out_stride};
    AddChunk<T, kVecs>(block, count, x, token, tokens, first, prefetch, results);
  }
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t v = 0; v < kVecs; ++v) {
      float* to = out + (token + t) * out_stride + panel * kPanelRows + v * kLanes;
      StoreResult(hn::Load(df, block.sums[t] + v * kLanes), to, add);
    }
  }
}

template <class F, bool kVnni>
HWY_NOINLINE void TileMatMul(const PackedMatrix& w, size_t first, size_t end,
                             const QuantizedRows& x, size_t tokens, float* out, size_t out_stride,
                             bool add) {
  using T = TileTraits<F, kVnni>;
  Block block;
  const size_t fitting =
      std::clamp(kChunkBytes / w.columns, kMinChunkTokens, kMaxChunkTokens) / 12 * 12;
  const size_t chunks = (tokens + fitting - 1) / fitting;
  const size_t chunk = std::min(fitting, ((tokens + chunks - 1) / chunks + 11) / 12 * 12);
  for (size_t token = 0; token < tokens; token += chunk) {
    const size_t count = std::min(chunk, tokens - token);
    size_t panel = first;
    for (; panel + kTilePanels <= end; panel += kTilePanels) {
      TilePanels<F, T, kTilePanels>(w, panel, panel + kTilePanels, x, token, count, out, out_stride,
                                    add, block);
    }
    if constexpr (kTilePanels > 1) {
      for (; panel < end; ++panel) {
        TilePanels<F, T, 1>(w, panel, panel + 1, x, token, count, out, out_stride, add, block);
      }
    }
  }
}

}  // namespace reticle::backends::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // HWY_TARGET

#endif  // RETICLE_BACKENDS_KERNELS_TILE_INL_H_
