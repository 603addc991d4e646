// Attention of one position for head sizes and groups that are compile-time constants, over 16-bit
// KV. The bits of kernels' AttendTokens: the same sums in the same order, but keys of several tiles
// are scored side by side, so that sums do not wait for each other, and each key and value is read
// and widened once for all query heads that share it. Included once for every target by Highway.
#if defined(RETICLE_BACKENDS_HARDWIRED_ETCHED_ATTENTION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RETICLE_BACKENDS_HARDWIRED_ETCHED_ATTENTION_INL_H_
#undef RETICLE_BACKENDS_HARDWIRED_ETCHED_ATTENTION_INL_H_
#else
#define RETICLE_BACKENDS_HARDWIRED_ETCHED_ATTENTION_INL_H_
#endif

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "backends/kernels/attention-inl.h"
#include "backends/kernels/kv_cache.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace reticle::backends::hardwired::HWY_NAMESPACE {

namespace k = kernels::HWY_NAMESPACE;
namespace hn = hwy::HWY_NAMESPACE;

// Sums that are kept in registers at once: about half of them.
inline constexpr size_t kSums = HWY_TARGET == HWY_AVX3 ? 16 : 8;
inline constexpr size_t kStepTiles = k::kStep / kernels::kTilePositions;

template <size_t kGroup>
constexpr size_t TilesTogether() {
  return std::clamp<size_t>(std::bit_floor(kSums / (k::kPanelVecs * kGroup)), 1, kStepTiles);
}

// scores[h][t * 16 + p] = q[h] * K[p] for the kTiles tiles.
template <size_t kGroup, size_t kDim, size_t kTiles>
HWY_INLINE void ScoreTiles(const std::byte* const* tiles, const float* q, float* scores) {
  const k::DF df;
  k::VF sums[kTiles][k::kPanelVecs][kGroup];
  RETICLE_UNROLL for (size_t t = 0; t < kTiles; ++t) {
    RETICLE_UNROLL for (size_t v = 0; v < k::kPanelVecs; ++v) {
      RETICLE_UNROLL for (size_t h = 0; h < kGroup; ++h) sums[t][v][h] = hn::Zero(df);
    }
  }
  for (size_t d = 0; d < kDim; ++d) {
    RETICLE_UNROLL for (size_t t = 0; t < kTiles; ++t) {
      RETICLE_UNROLL for (size_t v = 0; v < k::kPanelVecs; ++v) {
        const k::VF key = k::LoadHalf(tiles[t], d * kernels::kTilePositions + v * k::kLanes);
        RETICLE_UNROLL for (size_t h = 0; h < kGroup; ++h) {
          sums[t][v][h] = hn::MulAdd(key, hn::Set(df, q[h * kDim + d]), sums[t][v][h]);
        }
      }
    }
  }
  RETICLE_UNROLL for (size_t t = 0; t < kTiles; ++t) {
    RETICLE_UNROLL for (size_t v = 0; v < k::kPanelVecs; ++v) {
      RETICLE_UNROLL for (size_t h = 0; h < kGroup; ++h) {
        hn::StoreU(sums[t][v][h], df,
                   scores + h * k::kStep + t * kernels::kTilePositions + v * k::kLanes);
      }
    }
  }
}

// sums[h][d] += weights[h][p] * V[p][d] for the `count` positions of a step, in their order.
template <size_t kGroup, size_t kDim>
HWY_INLINE void AddStepValues(const std::byte* const* tiles, size_t count, const float* weights,
                              float* sums) {
  constexpr size_t kVecs = std::min(kDim / k::kLanes, std::bit_floor(kSums / kGroup));
  constexpr size_t kKeyElements = kDim * kernels::kTilePositions;
  const k::DF df;
  for (size_t d = 0; d < kDim; d += kVecs * k::kLanes) {
    k::VF acc[kGroup][kVecs];
    RETICLE_UNROLL for (size_t h = 0; h < kGroup; ++h) {
      RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
        acc[h][v] = hn::LoadU(df, sums + h * kDim + d + v * k::kLanes);
      }
    }
    for (size_t first = 0; first < count; first += kernels::kTilePositions) {
      const std::byte* const tile = tiles[first / kernels::kTilePositions];
      const size_t in_tile = std::min(kernels::kTilePositions, count - first);
      for (size_t p = 0; p < in_tile; ++p) {
        k::VF values[kVecs];
        RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
          values[v] = k::LoadHalf(tile, kKeyElements + p * kDim + d + v * k::kLanes);
        }
        RETICLE_UNROLL for (size_t h = 0; h < kGroup; ++h) {
          const k::VF weight = hn::Set(df, weights[h * k::kStep + first + p]);
          RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
            acc[h][v] = hn::MulAdd(weight, values[v], acc[h][v]);
          }
        }
      }
    }
    RETICLE_UNROLL for (size_t h = 0; h < kGroup; ++h) {
      RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
        hn::StoreU(acc[h][v], df, sums + h * kDim + d + v * k::kLanes);
      }
    }
  }
}

// Gathers positions begin .. end-1, whose tiles lie one behind the other from `first` on.
template <size_t kGroup, size_t kDim>
HWY_INLINE void AttendRange(const std::byte* first, size_t tile_bytes, size_t begin, size_t end,
                            const float* scaled_q, float* scores, const k::AttentionSums& sums) {
  constexpr size_t kTogether = TilesTogether<kGroup>();
  std::fill_n(sums.values, kGroup * kDim, 0.0f);
  std::fill_n(sums.maxima, kGroup, -std::numeric_limits<float>::infinity());
  std::fill_n(sums.totals, kGroup, 0.0f);
  for (size_t start = begin; start < end; start += k::kStep) {
    const size_t count = std::min(k::kStep, end - start);
    const size_t tile_count = (count + kernels::kTilePositions - 1) / kernels::kTilePositions;
    const std::byte* tiles[kStepTiles];
    for (size_t t = 0; t < tile_count; ++t) {
      tiles[t] = first + (start / kernels::kTilePositions + t) * tile_bytes;
    }
    size_t t = 0;
    for (; t + kTogether <= tile_count; t += kTogether) {
      ScoreTiles<kGroup, kDim, kTogether>(tiles + t, scaled_q,
                                          scores + t * kernels::kTilePositions);
    }
    for (; t < tile_count; ++t) {
      ScoreTiles<kGroup, kDim, 1>(tiles + t, scaled_q, scores + t * kernels::kTilePositions);
    }
    for (size_t h = 0; h < kGroup; ++h) {
      k::UpdateSoftmax(count, kDim, scores + h * k::kStep, &sums.maxima[h], &sums.totals[h],
                       sums.values + h * kDim);
    }
    AddStepValues<kGroup, kDim>(tiles, count, scores, sums.values);
  }
}

// kernels::AttendTokens for one token and kGroup query heads of kDim elements, a multiple of 16.
// The KV type is kF16, and one block holds all positions.
template <size_t kGroup, size_t kDim>
HWY_INLINE void AttendGroup(const kernels::KvGeometry& kv, const std::byte* pool,
                            const uint32_t* blocks, size_t layer, size_t head, size_t position,
                            const float* q, float* out, float* scratch) {
  static_assert(kDim % kernels::kTilePositions == 0);
  float* const scaled_q = scratch;
  float* const scores = scaled_q + kGroup * kDim;
  scratch = scores + kGroup * k::kStep;
  const k::AttentionSums sums = k::TakeSums(&scratch, kGroup, kDim);
  const k::AttentionSums later = k::TakeSums(&scratch, kGroup, kDim);
  k::ScaleQueries(q, 0, 1, kGroup * kDim, kDim, scaled_q);
  const std::byte* const first = pool + kv.TileOffset(blocks, layer, head, 0);
  for (size_t begin = 0; begin <= position; begin += kernels::kAttentionPart) {
    const size_t end = std::min<size_t>(position + 1, begin + kernels::kAttentionPart);
    AttendRange<kGroup, kDim>(first, kv.tile_bytes(), begin, end, scaled_q, scores,
                              begin == 0 ? sums : later);
    if (begin != 0) k::MergeSums(kGroup, kDim, later, sums);
  }
  k::FinishRows(kGroup, kGroup, kDim, kDim, sums, out, 0);
}

}  // namespace reticle::backends::hardwired::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // RETICLE_BACKENDS_HARDWIRED_ETCHED_ATTENTION_INL_H_
