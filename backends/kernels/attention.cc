#include "backends/kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "models/half.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/kernels/attention.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// Highway's headers come after foreach_target.h.
#include "backends/kernels/dot-inl.h"
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

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

// Scores kHeads query heads against the 16 positions of a tile.
template <KvType kType, size_t kHeads>
HWY_INLINE void ScoreTile(const KvGeometry& kv, const std::byte* tile, const float* q,
                          float* scores) {
  const DF df;
  const size_t dim = kv.head_dim;
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
HWY_INLINE void UpdateSoftmax(size_t count, size_t padded_dim, float* scores, float* max,
                              float* total, float* sums) {
  const DF df;
  float step_max = *max;
  for (size_t i = 0; i < count; ++i) step_max = std::max(step_max, scores[i]);
  const float correction = hn::GetLane(hn::Exp(df, hn::Set(df, *max - step_max)));
  if (correction != 1.0f) {
    const VF factor = hn::Set(df, correction);
    for (size_t d = 0; d < padded_dim; d += kLanes) {
      hn::StoreU(hn::Mul(hn::LoadU(df, sums + d), factor), df, sums + d);
    }
  }
  HWY_ALIGN float lanes[16] = {};
  const VF maxima = hn::Set(df, step_max);
  for (size_t i = 0; i < count; i += kLanes) {
    const VF weights = hn::Exp(df, hn::Sub(hn::LoadU(df, scores + i), maxima));
    hn::StoreU(weights, df, scores + i);
  }
  for (size_t i = 0; i < count; ++i) lanes[i % 16] += scores[i];
  for (size_t width = 8; width > 0; width /= 2) {
    for (size_t i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  *total = *total * correction + lanes[0];
  *max = step_max;
}

template <KvType kType>
void AttendHeadAs(const KvGeometry& kv, const std::byte* pool, const uint32_t* blocks, size_t layer,
                  size_t head, size_t position, const float* q, size_t group, float* out,
                  float* scratch) {
  const DF df;
  const size_t dim = kv.head_dim;
  const size_t padded = kv.padded_head_dim();
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
        ScoreTile<kType, 4>(kv, tiles[t], scaled_q + h * dim, to + h * kStep);
      }
      for (; h < group; ++h) {
        ScoreTile<kType, 1>(kv, tiles[t], scaled_q + h * dim, to + h * kStep);
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

void AttendHeadTarget(const KvGeometry& kv, const std::byte* pool, const uint32_t* blocks,
                      size_t layer, size_t head, size_t position, const float* q, size_t group,
                      float* out, float* scratch) {
  switch (kv.type) {
    case KvType::kF32:
      return AttendHeadAs<KvType::kF32>(kv, pool, blocks, layer, head, position, q, group, out,
                                        scratch);
    case KvType::kF16:
      return AttendHeadAs<KvType::kF16>(kv, pool, blocks, layer, head, position, q, group, out,
                                        scratch);
    case KvType::kQ8_0:
      return AttendHeadAs<KvType::kQ8_0>(kv, pool, blocks, layer, head, position, q, group, out,
                                         scratch);
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

void ToHalvesTarget(const float* x, size_t count, uint16_t* out) { ToHalves(x, count, out); }

}  // namespace reticle::backends::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <cstring>

namespace reticle::backends::kernels {
namespace {

HWY_EXPORT(AttendHeadTarget);
HWY_EXPORT(ToHalvesTarget);

// Quantises 32 floats; returns the scale as it is stored.
uint16_t QuantizeGroup(const float* x, int8_t* quants) {
  float max = 0.0f;
  for (size_t i = 0; i < 32; ++i) max = std::max(max, std::fabs(x[i]));
  const uint16_t half = models::FloatToHalf(max / 127.0f);
  const float scale = models::HalfToFloat(half);
  const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
  for (size_t i = 0; i < 32; ++i) {
    const float value = std::clamp(x[i] * inverse, -127.0f, 127.0f);
    quants[i] = static_cast<int8_t>(std::nearbyint(value));
  }
  return half;
}

}  // namespace

void WriteKv(const KvGeometry& kv, std::byte* pool, const uint32_t* blocks, size_t layer,
             size_t head, size_t position, const float* key, const float* value) {
  std::byte* tile = pool + kv.TileOffset(blocks, layer, head, position);
  std::byte* keys = tile + kv.scale_bytes();
  std::byte* value_base = tile + kv.key_bytes();
  std::byte* values = value_base + kv.scale_bytes();
  const size_t p = position % kTilePositions;
  const size_t padded = kv.padded_head_dim();
  switch (kv.type) {
    case KvType::kF32: {
      float* k = reinterpret_cast<float*>(keys);
      for (size_t d = 0; d < kv.head_dim; ++d) k[d * kTilePositions + p] = key[d];
      std::memcpy(values + p * padded * 4, value, kv.head_dim * 4);
      return;
    }
    case KvType::kF16: {
      uint16_t halves[32];
      uint16_t* k = reinterpret_cast<uint16_t*>(keys);
      uint16_t* v = reinterpret_cast<uint16_t*>(values) + p * padded;
      for (size_t d = 0; d < kv.head_dim; d += 32) {
        const size_t count = std::min<size_t>(32, kv.head_dim - d);
        HWY_DYNAMIC_DISPATCH(ToHalvesTarget)(key + d, count, halves);
        for (size_t i = 0; i < count; ++i) k[(d + i) * kTilePositions + p] = halves[i];
      }
      HWY_DYNAMIC_DISPATCH(ToHalvesTarget)(value, kv.head_dim, v);
      return;
    }
    case KvType::kQ8_0: {
      int8_t quants[32];
      int8_t* k = reinterpret_cast<int8_t*>(keys);
      int8_t* v = reinterpret_cast<int8_t*>(values) + p * padded;
      uint16_t* key_scales = reinterpret_cast<uint16_t*>(tile);
      uint16_t* value_scales = reinterpret_cast<uint16_t*>(value_base);
      for (size_t g = 0; g < kv.head_dim / 32; ++g) {
        key_scales[g * kTilePositions + p] = QuantizeGroup(key + 32 * g, quants);
        for (size_t i = 0; i < 32; ++i) k[(32 * g + i) * kTilePositions + p] = quants[i];
        value_scales[p * (kv.head_dim / 32) + g] = QuantizeGroup(value + 32 * g, v + 32 * g);
      }
      return;
    }
  }
}

size_t AttentionScratchFloats(const KvGeometry& kv, size_t group) {
  return group * (2 * kv.padded_head_dim() + 64 + 2);
}

void AttendHead(const KvGeometry& kv, const std::byte* pool, const uint32_t* blocks, size_t layer,
                size_t head, size_t position, const float* q, size_t group, float* out,
                float* scratch) {
  HWY_DYNAMIC_DISPATCH(AttendHeadTarget)
  (kv, pool, blocks, layer, head, position, q, group, out, scratch);
}

}  // namespace reticle::backends::kernels

#endif  // HWY_ONCE
