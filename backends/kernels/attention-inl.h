// Grouped-query attention over the paged KV pool, for each instruction set. Included once for every
// target by Highway.
#if defined(RETICLE_BACKENDS_KERNELS_ATTENTION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RETICLE_BACKENDS_KERNELS_ATTENTION_INL_H_
#undef RETICLE_BACKENDS_KERNELS_ATTENTION_INL_H_
#else
#define RETICLE_BACKENDS_KERNELS_ATTENTION_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <limits>

#include "backends/kernels/dot-inl.h"
#include "backends/kernels/kv_cache.h"
#include "backends/kernels/vector_ops-inl.h"
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "models/half.h"

HWY_BEFORE_NAMESPACE();
namespace reticle::backends::kernels::HWY_NAMESPACE {

// Positions between two updates of the running maximum.
inline constexpr size_t kStep = 64;

using DF16 = hn::Rebind<hwy::float16_t, DF>;
using DU16 = hn::Rebind<uint16_t, DF>;
using DBytes = hn::Rebind<int8_t, DF>;

HWY_INLINE VF LoadHalf(const std::byte* base, size_t index) {
  const auto bits = hn::LoadU(DU16(), reinterpret_cast<const uint16_t*>(base) + index);
  return hn::PromoteTo(DF(), hn::BitCast(DF16(), bits));
}

template <KvType kType>
HWY_INLINE VF LoadElements(const std::byte* base, size_t index) {
  if constexpr (kType == KvType::kF32) {
    return hn::LoadU(DF(), reinterpret_cast<const float*>(base) + index);
  } else if constexpr (kType == KvType::kF16) {
    return LoadHalf(base, index);
  } else {
    const auto bytes = hn::LoadU(DBytes(), reinterpret_cast<const int8_t*>(base) + index);
    return hn::ConvertTo(DF(), hn::PromoteTo(DI(), bytes));
  }
}

HWY_INLINE float HalfAt(const std::byte* base, size_t index) {
  return models::HalfToFloat(reinterpret_cast<const uint16_t*>(base)[index]);
}

// Scores kHeads query heads against the 16 positions of a tile. kDim: the heads' size, or 0 when it
// is known at run time only.
template <KvType kType, size_t kHeads, size_t kDim>
HWY_INLINE void ScoreTile(const KvGeometry& kv, const std::byte* tile, const float* q,
                          float* scores) {
  const DF df;
  const size_t dim = kDim != 0 ? kDim : kv.head_dim;
  const std::byte* keys = tile + kv.scale_bytes();
  for (size_t v = 0; v < kPanelVecs; ++v) {
    VF sums[kHeads];
    RETICLE_UNROLL for (size_t h = 0; h < kHeads; ++h) sums[h] = hn::Zero(df);
    if constexpr (kType == KvType::kQ8_0) {
      for (size_t group = 0; group < dim / 32; ++group) {
        VF part[kHeads];
        RETICLE_UNROLL for (size_t h = 0; h < kHeads; ++h) part[h] = hn::Zero(df);
        for (size_t d = group * 32; d < group * 32 + 32; ++d) {
          const VF key = LoadElements<kType>(keys, d * kTilePositions + v * kLanes);
          RETICLE_UNROLL for (size_t h = 0; h < kHeads; ++h) {
            part[h] = hn::MulAdd(key, hn::Set(df, q[h * dim + d]), part[h]);
          }
        }
        const VF scale = LoadHalf(tile, group * kTilePositions + v * kLanes);
        RETICLE_UNROLL for (size_t h = 0; h < kHeads; ++h) {
          sums[h] = hn::MulAdd(part[h], scale, sums[h]);
        }
      }
    } else {
      for (size_t d = 0; d < dim; ++d) {
        const VF key = LoadElements<kType>(keys, d * kTilePositions + v * kLanes);
        RETICLE_UNROLL for (size_t h = 0; h < kHeads; ++h) {
          sums[h] = hn::MulAdd(key, hn::Set(df, q[h * dim + d]), sums[h]);
        }
      }
    }
    RETICLE_UNROLL for (size_t h = 0; h < kHeads; ++h) {
      hn::StoreU(sums[h], df, scores + h * kStep + v * kLanes);
    }
  }
}

// sums[d] += weights[p] * V[p][d] for the `count` first positions of a tile, kVecs vectors of d.
template <KvType kType, size_t kVecs>
HWY_INLINE void AddValues(const KvGeometry& kv, const std::byte* tile, size_t d, size_t count,
                          const float* weights, float* sums) {
  const DF df;
  const std::byte* base = tile + kv.key_bytes();
  const std::byte* values = base + kv.scale_bytes();
  const size_t stride = kv.padded_head_dim();
  VF acc[kVecs];
  RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) acc[v] = hn::LoadU(df, sums + d + v * kLanes);
  for (size_t p = 0; p < count; ++p) {
    float weight = weights[p];
    if constexpr (kType == KvType::kQ8_0) weight *= HalfAt(base, p * (stride / 32) + d / 32);
    const VF w = hn::Set(df, weight);
    RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
      const VF value = LoadElements<kType>(values, p * stride + d + v * kLanes);
      acc[v] = hn::MulAdd(w, value, acc[v]);
    }
  }
  RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) hn::StoreU(acc[v], df, sums + d + v * kLanes);
}

// Turns `count` scores into weights relative to the running maximum; rescales what was summed.
// Scores up to the end of their 16 lanes are read, whatever they hold, and become zero.
HWY_INLINE void UpdateSoftmax(size_t count, size_t padded_dim, float* scores, float* max,
                              float* total, float* sums) {
  const DF df;
  const VF lowest = hn::Set(df, *max);
  const VF lane_index = hn::Iota(df, 0.0f);
  const auto bounded = [&](size_t i) HWY_ATTR {
    const auto valid =
        hn::Lt(lane_index, hn::Set(df, static_cast<float>(count) - static_cast<float>(i)));
    return hn::IfThenElse(valid, hn::LoadU(df, scores + i), lowest);
  };
  VF largest = lowest;
  for (size_t i = 0; i < count; i += kLanes) largest = hn::Max(largest, bounded(i));
  const VF maxima = hn::MaxOfLanes(df, largest);
  const float step_max = hn::GetLane(maxima);
  const float correction = hn::GetLane(hn::Exp(df, hn::Set(df, *max - step_max)));
  if (correction != 1.0f) {
    const VF factor = hn::Set(df, correction);
    for (size_t d = 0; d < padded_dim; d += kLanes) {
      hn::StoreU(hn::Mul(hn::LoadU(df, sums + d), factor), df, sums + d);
    }
  }
  VF parts[kPanelVecs];
  RETICLE_UNROLL for (size_t v = 0; v < kPanelVecs; ++v) parts[v] = hn::Zero(df);
  for (size_t i = 0; i < count; i += kPanelVecs * kLanes) {
    RETICLE_UNROLL for (size_t v = 0; v < kPanelVecs; ++v) {
      const size_t at = i + v * kLanes;
      const auto valid =
          hn::Lt(lane_index, hn::Set(df, static_cast<float>(count) - static_cast<float>(at)));
      const VF weights =
          hn::IfThenElseZero(valid, hn::Exp(df, hn::Sub(hn::LoadU(df, scores + at), maxima)));
      hn::StoreU(weights, df, scores + at);
      parts[v] = hn::Add(parts[v], weights);
    }
  }
  *total = *total * correction + SumOf16(parts);
  *max = step_max;
}

// AttendHead for one type. kGroup and kDim: the query heads that share a KV head, and the heads'
// size, or 0 when they are known at run time only.
template <KvType kType, size_t kGroup, size_t kDim>
HWY_INLINE void AttendHeadAs(const KvGeometry& kv, const std::byte* pool, const uint32_t* blocks,
                             size_t layer, size_t head, size_t position, const float* q,
                             size_t any_group, float* out, float* scratch) {
  const DF df;
  const size_t group = kGroup != 0 ? kGroup : any_group;
  const size_t dim = kDim != 0 ? kDim : kv.head_dim;
  const size_t padded = kDim != 0 ? (kDim + 15) / 16 * 16 : kv.padded_head_dim();
  float* scaled_q = scratch;
  float* scores = scaled_q + group * padded;
  float* sums = scores + group * kStep;
  float* maxima = sums + group * padded;
  float* totals = maxima + group;
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  for (size_t i = 0; i < group * dim; ++i) scaled_q[i] = q[i] * scale;
  std::fill_n(sums, group * padded, 0.0f);
  std::fill_n(maxima, group, -std::numeric_limits<float>::infinity());
  std::fill_n(totals, group, 0.0f);

  for (size_t start = 0; start <= position; start += kStep) {
    const size_t count = std::min(kStep, position + 1 - start);
    const std::byte* tiles[kStep / kTilePositions] = {};
    for (size_t t = 0; t * kTilePositions < count; ++t) {
      const size_t first = start + t * kTilePositions;
      tiles[t] = pool + kv.TileOffset(blocks, layer, head, first);
      float* to = scores + t * kTilePositions;
      size_t h = 0;
      for (; h + 4 <= group; h += 4) {
        ScoreTile<kType, 4, kDim>(kv, tiles[t], scaled_q + h * dim, to + h * kStep);
      }
      for (; h + 2 <= group; h += 2) {
        ScoreTile<kType, 2, kDim>(kv, tiles[t], scaled_q + h * dim, to + h * kStep);
      }
      for (; h < group; ++h) {
        ScoreTile<kType, 1, kDim>(kv, tiles[t], scaled_q + h * dim, to + h * kStep);
      }
    }
    for (size_t h = 0; h < group; ++h) {
      float* weights = scores + h * kStep;
      float* head_sums = sums + h * padded;
      UpdateSoftmax(count, padded, weights, &maxima[h], &totals[h], head_sums);
      for (size_t t = 0; t * kTilePositions < count; ++t) {
        const size_t in_tile = std::min(kTilePositions, count - t * kTilePositions);
        const float* tile_weights = weights + t * kTilePositions;
        constexpr size_t kWide = 32 / kLanes;
        size_t d = 0;
        for (; d + 32 <= padded; d += 32) {
          AddValues<kType, kWide>(kv, tiles[t], d, in_tile, tile_weights, head_sums);
        }
        for (; d < padded; d += kLanes) {
          AddValues<kType, 1>(kv, tiles[t], d, in_tile, tile_weights, head_sums);
        }
      }
    }
  }

  for (size_t h = 0; h < group; ++h) {
    const VF inverse = hn::Set(df, 1.0f / totals[h]);
    float* head_sums = sums + h * padded;
    for (size_t d = 0; d < padded; d += kLanes) {
      hn::StoreU(hn::Mul(hn::LoadU(df, head_sums + d), inverse), df, head_sums + d);
    }
    std::copy_n(head_sums, dim, out + h * dim);
  }
}

// Rounds to nearest even on every target.
HWY_INLINE void ToHalves(const float* x, size_t count, uint16_t* out) {
  size_t i = 0;
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
  for (; i + kLanes <= count; i += kLanes) {
    const auto halves = hn::DemoteTo(DF16(), hn::LoadU(DF(), x + i));
    hn::StoreU(hn::BitCast(DU16(), halves), DU16(), out + i);
  }
#endif
  for (; i < count; ++i) out[i] = models::FloatToHalf(x[i]);
}

}  // namespace reticle::backends::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // RETICLE_BACKENDS_KERNELS_ATTENTION_INL_H_
