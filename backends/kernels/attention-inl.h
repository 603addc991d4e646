// Grouped-query attention over the paged KV pool, for each instruction set. Included once for every
// target by Highway.
//
// "Rows" are queries that read the same keys and values: the heads of a group, of one token or of
// some that follow each other. Keys and values are converted once for up to kMaxRows of them. What
// happens to a row does not depend on the others.
#if defined(RETICLE_BACKENDS_KERNELS_ATTENTION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RETICLE_BACKENDS_KERNELS_ATTENTION_INL_H_
#undef RETICLE_BACKENDS_KERNELS_ATTENTION_INL_H_
#else
#define RETICLE_BACKENDS_KERNELS_ATTENTION_INL_H_
#endif

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "backends/kernels/attention.h"
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
inline constexpr size_t kStepTiles = kStep / kTilePositions;

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

// Rows that are computed side by side.
#if HWY_TARGET == HWY_AVX3
inline constexpr size_t kMaxRows = 8;
#else
inline constexpr size_t kMaxRows = 4;
#endif

// Calls function.operator()<rows>(first) for 0 .. rows-1 in parts of kMaxRows, .., 2, 1.
template <class Function>
HWY_INLINE void ForRows(size_t rows, const Function& function) {
  size_t r = 0;
  for (; kMaxRows == 8 && r + 8 <= rows; r += 8) function.template operator()<kMaxRows>(r);
  for (; r + 4 <= rows; r += 4) function.template operator()<4>(r);
  if (r + 3 <= rows) {
    function.template operator()<3>(r);
    r += 3;
  }
  for (; r + 2 <= rows; r += 2) function.template operator()<2>(r);
  for (; r < rows; ++r) function.template operator()<1>(r);
}

// Asks for the lines of the next step's tiles, a line of each tile at a time and evenly while this
// step is computed: a core waits for few lines at once, and tiles of a long context lie far apart,
// where the hardware does not look ahead.
class Fetcher {
 public:
  static constexpr size_t kLineBytes = 64;

  Fetcher(const std::byte* const* tiles, size_t tile_bytes) : tiles_(tiles), end_(tile_bytes) {}

  // Another `bytes` of each tile may be asked for.
  HWY_INLINE void Advance(size_t bytes) {
    due_ += bytes;
    if (due_ < kLineBytes) return;
    due_ -= kLineBytes;
    FetchLine();
  }
  HWY_INLINE void AdvanceFar(size_t bytes) {
    for (due_ += bytes; due_ >= kLineBytes; due_ -= kLineBytes) FetchLine();
  }

 private:
  HWY_INLINE void FetchLine() {
    if (at_ >= end_) return;
    // Into the second-level cache, which waits for more lines at a time than the first.
    RETICLE_UNROLL for (size_t t = 0; t < kStepTiles; ++t) {
      __builtin_prefetch(tiles_[t] + at_, 0, 2);
    }
    at_ += kLineBytes;
  }

  const std::byte* const* tiles_;
  size_t end_;
  size_t at_ = 0;
  size_t due_ = 0;
};

// to[i][r] += q[r][d] * K[i][..][d] for the positions of vector v of each tile and the dimensions
// first .. end-1, in their order.
template <KvType kType, size_t kRows, size_t kTiles>
HWY_INLINE void AddDims(const std::byte* const* tiles, size_t scale_bytes, size_t v, const float* q,
                        size_t dim, size_t first, size_t end, size_t fetch_bytes, Fetcher& fetcher,
                        VF (&to)[kTiles][kRows]) {
  const std::byte* keys[kTiles];
  RETICLE_UNROLL for (size_t i = 0; i < kTiles; ++i) keys[i] = tiles[i] + scale_bytes;
  for (size_t d = first; d < end; ++d) {
    VF loaded[kTiles];
    RETICLE_UNROLL for (size_t i = 0; i < kTiles; ++i) {
      loaded[i] = LoadElements<kType>(keys[i], d * kTilePositions + v * kLanes);
    }
    RETICLE_UNROLL for (size_t r = 0; r < kRows; ++r) {
      const VF query = hn::Set(DF(), q[r * dim + d]);
      RETICLE_UNROLL for (size_t i = 0; i < kTiles; ++i) {
        to[i][r] = hn::MulAdd(loaded[i], query, to[i][r]);
      }
    }
    fetcher.Advance(fetch_bytes);
  }
}

// Scores kRows queries against the 16 positions of each of kTiles tiles. kDim: the heads' size, or
// 0 when it is known at run time only. Each dimension lets `fetcher` advance by fetch_bytes.
template <KvType kType, size_t kRows, size_t kTiles, size_t kDim>
HWY_INLINE void ScoreTiles(const KvGeometry& kv, const std::byte* const* tiles, const float* q,
                           size_t fetch_bytes, Fetcher& fetcher, float* scores) {
  const DF df;
  const size_t dim = kDim != 0 ? kDim : kv.head_dim;
  const size_t scale_bytes = kv.scale_bytes();
  for (size_t v = 0; v < kPanelVecs; ++v) {
    VF sums[kTiles][kRows];
    RETICLE_UNROLL for (size_t i = 0; i < kTiles; ++i) {
      RETICLE_UNROLL for (size_t r = 0; r < kRows; ++r) sums[i][r] = hn::Zero(df);
    }
    if constexpr (kType == KvType::kQ8_0) {
      for (size_t group = 0; group < dim / 32; ++group) {
        VF parts[kTiles][kRows];
        RETICLE_UNROLL for (size_t i = 0; i < kTiles; ++i) {
          RETICLE_UNROLL for (size_t r = 0; r < kRows; ++r) parts[i][r] = hn::Zero(df);
        }
        AddDims<kType, kRows, kTiles>(tiles, scale_bytes, v, q, dim, group * 32, group * 32 + 32,
                                      fetch_bytes, fetcher, parts);
        RETICLE_UNROLL for (size_t i = 0; i < kTiles; ++i) {
          const VF scale = LoadHalf(tiles[i], group * kTilePositions + v * kLanes);
          RETICLE_UNROLL for (size_t r = 0; r < kRows; ++r) {
            sums[i][r] = hn::MulAdd(parts[i][r], scale, sums[i][r]);
          }
        }
      }
    } else {
      AddDims<kType, kRows, kTiles>(tiles, scale_bytes, v, q, dim, 0, dim, fetch_bytes, fetcher,
                                    sums);
    }
    RETICLE_UNROLL for (size_t i = 0; i < kTiles; ++i) {
      RETICLE_UNROLL for (size_t r = 0; r < kRows; ++r) {
        hn::StoreU(sums[i][r], df, scores + r * kStep + i * kTilePositions + v * kLanes);
      }
    }
  }
}

// sums[r][d] += weights[r][p] * V[p][d] for the `count` first positions of a step's tiles and kVecs
// vectors of d, in the order of positions. Each position lets `fetcher` advance by fetch_bytes.
template <KvType kType, size_t kRows, size_t kVecs>
HWY_INLINE void AddValues(const KvGeometry& kv, const std::byte* const* tiles, size_t d,
                          size_t count, const float* weights, size_t padded, size_t fetch_bytes,
                          Fetcher& fetcher, float* sums) {
  const DF df;
  const size_t value_bytes = kv.key_bytes() + kv.scale_bytes();
  HWY_ALIGN float scaled[kType == KvType::kQ8_0 ? kRows * kStep : kLanes];
  if constexpr (kType == KvType::kQ8_0) {
    // All of one group of 32.
    for (size_t first = 0; first < count; first += kTilePositions) {
      const std::byte* const scales = tiles[first / kTilePositions] + kv.key_bytes();
      for (size_t v = 0; v < kTilePositions; v += kLanes) {
        const VF scale = LoadHalf(scales, d / 32 * kTilePositions + v);
        RETICLE_UNROLL for (size_t r = 0; r < kRows; ++r) {
          const size_t at = r * kStep + first + v;
          hn::Store(hn::Mul(hn::LoadU(df, weights + at), scale), df, scaled + at);
        }
      }
    }
    weights = scaled;
  }
  VF acc[kRows][kVecs];
  RETICLE_UNROLL for (size_t r = 0; r < kRows; ++r) {
    RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
      acc[r][v] = hn::LoadU(df, sums + r * padded + d + v * kLanes);
    }
  }
  for (size_t first = 0; first < count; first += kTilePositions) {
    const std::byte* const tile = tiles[first / kTilePositions];
    const size_t in_tile = std::min(kTilePositions, count - first);
    const float* const tile_weights = weights + first;
    for (size_t p = 0; p < in_tile; ++p) {
      const size_t at = p * padded + d;
      VF values[kVecs];
      RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
        values[v] = LoadElements<kType>(tile + value_bytes, at + v * kLanes);
      }
      RETICLE_UNROLL for (size_t r = 0; r < kRows; ++r) {
        const VF weight = hn::Set(df, tile_weights[r * kStep + p]);
        RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
          acc[r][v] = hn::MulAdd(weight, values[v], acc[r][v]);
        }
      }
      fetcher.Advance(fetch_bytes);
    }
  }
  RETICLE_UNROLL for (size_t r = 0; r < kRows; ++r) {
    RETICLE_UNROLL for (size_t v = 0; v < kVecs; ++v) {
      hn::StoreU(acc[r][v], df, sums + r * padded + d + v * kLanes);
    }
  }
}

// Multiplies what was summed so far when the running maximum grows; returns the factor.
HWY_INLINE float Rescale(float old_max, float new_max, size_t padded_dim, float* sums) {
  if (old_max == new_max) return 1.0f;
  const DF df;
  const float correction = hn::GetLane(hn::Exp(df, hn::Set(df, old_max - new_max)));
  const VF factor = hn::Set(df, correction);
  for (size_t d = 0; d < padded_dim; d += kLanes) {
    hn::StoreU(hn::Mul(hn::LoadU(df, sums + d), factor), df, sums + d);
  }
  return correction;
}

// UpdateSoftmax for a whole step.
HWY_INLINE void UpdateWholeStep(size_t padded_dim, float* scores, float* max, float* total,
                                float* sums) {
  const DF df;
  constexpr size_t kVecs = kStep / kLanes;
  VF largest[kPanelVecs];
  RETICLE_UNROLL for (size_t v = 0; v < kPanelVecs; ++v) largest[v] = hn::Set(df, *max);
  RETICLE_UNROLL for (size_t i = 0; i < kVecs; ++i) {
    VF& of_lane = largest[i % kPanelVecs];
    of_lane = hn::Max(of_lane, hn::LoadU(df, scores + i * kLanes));
  }
  RETICLE_UNROLL for (size_t v = 1; v < kPanelVecs; ++v) {
    largest[0] = hn::Max(largest[0], largest[v]);
  }
  const VF maxima = hn::MaxOfLanes(df, largest[0]);
  const float step_max = hn::GetLane(maxima);
  const float correction = Rescale(*max, step_max, padded_dim, sums);
  VF parts[kPanelVecs];
  RETICLE_UNROLL for (size_t v = 0; v < kPanelVecs; ++v) parts[v] = hn::Zero(df);
  RETICLE_UNROLL for (size_t i = 0; i < kVecs; ++i) {
    const VF score = hn::LoadU(df, scores + i * kLanes);
    const VF weights = hn::Exp(df, hn::Sub(score, maxima));
    hn::StoreU(weights, df, scores + i * kLanes);
    parts[i % kPanelVecs] = hn::Add(parts[i % kPanelVecs], weights);
  }
  *total = *total * correction + SumOf16(parts);
  *max = step_max;
}

// Turns `count` scores into weights relative to the running maximum; rescales what was summed.
// Scores up to the end of their 16 lanes are read, whatever they hold, and become zero.
HWY_INLINE void UpdateSoftmax(size_t count, size_t padded_dim, float* scores, float* max,
                              float* total, float* sums) {
  if (count == kStep) return UpdateWholeStep(padded_dim, scores, max, total, sums);
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
  const float correction = Rescale(*max, step_max, padded_dim, sums);
  VF parts[kPanelVecs];
  RETICLE_UNROLL for (size_t v = 0; v < kPanelVecs; ++v) parts[v] = hn::Zero(df);
  for (size_t i = 0; i < count; i += kPanelVecs * kLanes) {
    RETICLE_UNROLL for (size_t v = 0; v < kPanelVecs; ++v) {
      const size_t at = i + v * kLanes;
      const auto valid =
          hn::Lt(lane_index, hn::Set(df, static_cast<float>(count) - static_cast<float>(at)));
      // What is not valid may be no number, which the emulated instruction set cannot convert.
      const VF score = hn::IfThenElse(valid, hn::LoadU(df, scores + at), maxima);
      const VF weights = hn::IfThenElseZero(valid, hn::Exp(df, hn::Sub(score, maxima)));
      hn::StoreU(weights, df, scores + at);
      parts[v] = hn::Add(parts[v], weights);
    }
  }
  *total = *total * correction + SumOf16(parts);
  *max = step_max;
}

// The tiles of one layer and head, one behind the other.
class TileWalker {
 public:
  TileWalker(const KvGeometry& kv, const std::byte* pool, const uint32_t* blocks, size_t layer,
             size_t head, size_t position)
      : blocks_(blocks + position / kv.block_tokens),
        pool_(pool),
        alone_(kv.FirstTileOffset(kv.run_end, layer, head) - kv.run_end * kv.block_bytes()),
        in_run_(kRunBlocks * alone_),
        block_bytes_(kv.block_bytes()),
        head_bytes_(kv.block_tokens / kTilePositions * kv.tile_bytes()),
        tile_bytes_(kv.tile_bytes()),
        run_end_(kv.run_end),
        tile_(position % kv.block_tokens / kTilePositions * tile_bytes_) {}

  const std::byte* Next() {
    const size_t block = *blocks_;
    const size_t in_run = block % kRunBlocks;
    const std::byte* const first =
        block < run_end_ ? pool_ + (block - in_run) * block_bytes_ + in_run_ + in_run * head_bytes_
                         : pool_ + block * block_bytes_ + alone_;
    const std::byte* const tile = first + tile_;
    tile_ += tile_bytes_;
    if (tile_ == head_bytes_) {
      tile_ = 0;
      ++blocks_;
    }
    return tile;
  }

 private:
  const uint32_t* blocks_;
  const std::byte* const pool_;
  // Where the layer and head begin in a block, and in a run.
  const size_t alone_;
  const size_t in_run_;
  const size_t block_bytes_;
  const size_t head_bytes_;
  const size_t tile_bytes_;
  const size_t run_end_;
  size_t tile_;
};

// What a row has gathered: its values' weighted sum ([rows][padded]), the largest score and the sum
// of the weights.
struct AttentionSums {
  float* values;
  float* maxima;
  float* totals;
};

// The queries of an attention: `tokens` that follow each other from first_position on, of a group
// of heads each; row = token * group + head. q is scaled already, [row][dim].
struct AttentionRows {
  const float* q;
  size_t first_position;
  size_t tokens;
  size_t group;
};

// Eighths of the next step's tiles that are asked for while scores, weights and sums of values are
// computed: their shares of the time.
inline constexpr size_t kScoreEighths = 3;
inline constexpr size_t kWeightEighths = 2;
inline constexpr size_t kValueEighths = 3;

// Tiles that ScoreTiles takes together: as many as their sums fit into the registers.
template <size_t kRows>
constexpr size_t TilesTogether() {
  constexpr size_t kSums = kLanes == 16 ? 16 : 8;
  return std::clamp<size_t>(std::bit_floor(kSums / kRows), 1, kStepTiles);
}

// Vectors of values that AddValues takes together, likewise; with Q8_0 of one group of 32.
template <KvType kType, size_t kRows>
constexpr size_t ValuesTogether() {
  constexpr size_t kSums = kLanes == 16 ? 16 : 8;
  constexpr size_t kMost = (kType == KvType::kQ8_0 ? 32 : 128) / kLanes;
  return std::clamp<size_t>(std::bit_floor(kSums / kRows), 1, std::min<size_t>(kMost, 8));
}

// Gathers positions begin .. end-1, as far as each row may see them, from nothing. begin is a
// multiple of kStep. A row that sees none is left with a maximum of minus infinity. The step behind
// the range is fetched, too, as far as there are positions before `limit`.
template <KvType kType, size_t kDim>
HWY_INLINE void AttendRange(const KvGeometry& kv, const std::byte* pool, const uint32_t* blocks,
                            size_t layer, size_t head, const AttentionRows& rows, size_t begin,
                            size_t end, size_t limit, float* scores, const AttentionSums& sums) {
  const size_t dim = kDim != 0 ? kDim : kv.head_dim;
  const size_t padded = kDim != 0 ? (kDim + 15) / 16 * 16 : kv.padded_head_dim();
  const size_t count_rows = rows.tokens * rows.group;
  std::fill_n(sums.values, count_rows * padded, 0.0f);
  std::fill_n(sums.maxima, count_rows, -std::numeric_limits<float>::infinity());
  std::fill_n(sums.totals, count_rows, 0.0f);
  const size_t tile_bytes = kv.tile_bytes();
  const size_t eighth = tile_bytes / 8;
  TileWalker walker(kv, pool, blocks, layer, head, begin);
  // The tiles of this step and of the next, in turns. Behind the last tile the first of its step is
  // repeated.
  const std::byte* step[2][kStepTiles] = {};
  const size_t end_tile = (limit + kTilePositions - 1) / kTilePositions;
  size_t next_tile = begin / kTilePositions;
  const auto load = [&](const std::byte** to) {
    const size_t left = end_tile - std::min(end_tile, next_tile);
    for (size_t t = 0; t < kStepTiles; ++t) to[t] = t < left ? walker.Next() : to[0];
    next_tile += kStepTiles;
    return left > 0 ? tile_bytes : 0;
  };
  load(step[begin / kStep % 2]);
  for (size_t start = begin; start < end; start += kStep) {
    const size_t count = std::min(kStep, end - start);
    const size_t tile_count = (count + kTilePositions - 1) / kTilePositions;
    const std::byte** const tiles = step[start / kStep % 2];
    const std::byte** const next = step[(start / kStep + 1) % 2];
    Fetcher fetcher(next, load(next));
    // The last position of the first token that sees this step, and the rows from there on.
    const size_t blind =
        rows.first_position >= start ? 0 : std::min(rows.tokens, start - rows.first_position);
    const size_t first_row = blind * rows.group;
    const auto score = [&]<size_t kRows>(size_t r) HWY_ATTR {
      constexpr size_t kTogether = TilesTogether<kRows>();
      const size_t fetch_bytes =
          eighth * kScoreEighths / (dim * kPanelVecs * kStepTiles / kTogether);
      const float* q = rows.q + (first_row + r) * dim;
      float* to = scores + (first_row + r) * kStep;
      Fetcher local = fetcher;
      size_t t = 0;
      for (; t + kTogether <= tile_count; t += kTogether) {
        ScoreTiles<kType, kRows, kTogether, kDim>(kv, tiles + t, q, fetch_bytes, local,
                                                  to + t * kTilePositions);
      }
      for (; t < tile_count; ++t) {
        ScoreTiles<kType, kRows, 1, kDim>(kv, tiles + t, q, fetch_bytes, local,
                                          to + t * kTilePositions);
      }
      fetcher = local;
    };
    ForRows(count_rows - first_row, score);
    const size_t weight_bytes = eighth * kWeightEighths / (count_rows - first_row);
    for (size_t r = first_row; r < count_rows; ++r) {
      const size_t seen = std::min(count, rows.first_position + r / rows.group + 1 - start);
      UpdateSoftmax(seen, padded, scores + r * kStep, &sums.maxima[r], &sums.totals[r],
                    sums.values + r * padded);
      for (size_t p = (seen + 15) / 16 * 16; p < count; ++p) scores[r * kStep + p] = 0.0f;
      fetcher.AdvanceFar(weight_bytes);
    }
    const auto add = [&]<size_t kRows>(size_t r) HWY_ATTR {
      constexpr size_t kWide = ValuesTogether<kType, kRows>();
      const size_t fetch_bytes = eighth * kValueEighths * kWide * kLanes / (kStep * padded);
      const float* weights = scores + (first_row + r) * kStep;
      float* values = sums.values + (first_row + r) * padded;
      Fetcher local = fetcher;
      size_t d = 0;
      const auto take = [&]<size_t kVecs>() HWY_ATTR __attribute__((always_inline)) {
        for (; d + kVecs * kLanes <= padded; d += kVecs * kLanes) {
          AddValues<kType, kRows, kVecs>(kv, tiles, d, count, weights, padded, fetch_bytes, local,
                                         values);
        }
      };
      take.template operator()<kWide>();
      // What is left of a head whose size is no multiple of that.
      if constexpr (kType != KvType::kQ8_0) {
        if constexpr (kWide > 4) take.template operator()<4>();
        if constexpr (kWide > 2) take.template operator()<3>();
        if constexpr (kWide > 2) take.template operator()<2>();
        if constexpr (kWide > 1) take.template operator()<1>();
      }
      fetcher = local;
    };
    ForRows(count_rows - first_row, add);
    fetcher.AdvanceFar(tile_bytes);
  }
}

// Adds what `rows` rows gathered from later positions.
HWY_INLINE void MergeSums(size_t rows, size_t padded, const AttentionSums& later,
                          const AttentionSums& sums) {
  const DF df;
  for (size_t r = 0; r < rows; ++r) {
    if (later.maxima[r] == -std::numeric_limits<float>::infinity()) continue;
    const float max = std::max(sums.maxima[r], later.maxima[r]);
    const VF old_factor = hn::Exp(df, hn::Set(df, sums.maxima[r] - max));
    const VF new_factor = hn::Exp(df, hn::Set(df, later.maxima[r] - max));
    for (size_t d = r * padded; d < (r + 1) * padded; d += kLanes) {
      const VF old = hn::Mul(hn::LoadU(df, sums.values + d), old_factor);
      hn::StoreU(hn::MulAdd(hn::LoadU(df, later.values + d), new_factor, old), df, sums.values + d);
    }
    sums.totals[r] =
        sums.totals[r] * hn::GetLane(old_factor) + later.totals[r] * hn::GetLane(new_factor);
    sums.maxima[r] = max;
  }
}

// Divides by the sums of weights; row r goes to out + r / group * out_stride + r % group * dim.
HWY_INLINE void FinishRows(size_t rows, size_t group, size_t dim, size_t padded,
                           const AttentionSums& sums, float* out, size_t out_stride) {
  const DF df;
  for (size_t r = 0; r < rows; ++r) {
    const VF inverse = hn::Set(df, 1.0f / sums.totals[r]);
    float* values = sums.values + r * padded;
    for (size_t d = 0; d < padded; d += kLanes) {
      hn::StoreU(hn::Mul(hn::LoadU(df, values + d), inverse), df, values + d);
    }
    std::copy_n(values, dim, out + r / group * out_stride + r % group * dim);
  }
}

HWY_INLINE AttentionSums TakeSums(float** scratch, size_t rows, size_t padded) {
  const AttentionSums sums = {*scratch, *scratch + rows * padded, *scratch + rows * (padded + 1)};
  *scratch += rows * (padded + 2);
  return sums;
}

HWY_INLINE void ScaleQueries(const float* q, size_t q_stride, size_t tokens, size_t width,
                             size_t dim, float* out) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t i = 0; i < width; ++i) out[t * width + i] = q[t * q_stride + i] * scale;
  }
}

// AttendTokens for one type. kGroup and kDim: the query heads that share a KV head, and the heads'
// size, or 0 when they are known at run time only.
template <KvType kType, size_t kGroup, size_t kDim>
HWY_INLINE void AttendTokensAs(const KvGeometry& kv, const std::byte* pool, const uint32_t* blocks,
                               size_t layer, size_t head, size_t first_position, size_t tokens,
                               const float* q, size_t q_stride, size_t any_group, float* out,
                               size_t out_stride, float* scratch) {
  const size_t group = kGroup != 0 ? kGroup : any_group;
  const size_t dim = kDim != 0 ? kDim : kv.head_dim;
  const size_t padded = kDim != 0 ? (kDim + 15) / 16 * 16 : kv.padded_head_dim();
  const size_t count = tokens * group;
  float* scaled_q = scratch;
  float* scores = scaled_q + count * padded;
  scratch = scores + count * kStep;
  const AttentionSums sums = TakeSums(&scratch, count, padded);
  const AttentionSums later = TakeSums(&scratch, count, padded);
  ScaleQueries(q, q_stride, tokens, group * dim, dim, scaled_q);
  const AttentionRows rows = {scaled_q, first_position, tokens, group};
  const size_t end = first_position + tokens;
  for (size_t begin = 0; begin < end; begin += kAttentionPart) {
    const size_t part_end = std::min(end, begin + kAttentionPart);
    AttendRange<kType, kDim>(kv, pool, blocks, layer, head, rows, begin, part_end, end, scores,
                             begin == 0 ? sums : later);
    if (begin != 0) MergeSums(count, padded, later, sums);
  }
  FinishRows(count, group, dim, padded, sums, out, out_stride);
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
