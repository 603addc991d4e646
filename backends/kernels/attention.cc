#include "backends/kernels/attention.h"

#include <algorithm>
#include <cmath>

#include "models/half.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/kernels/attention.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// Highway's headers come after foreach_target.h.
#include "backends/kernels/attention-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace reticle::backends::kernels::HWY_NAMESPACE {

// Calls function.operator()<type>() for the type of the pool.
template <class Function>
HWY_INLINE void ForType(const KvGeometry& kv, const Function& function) {
  switch (kv.type) {
    case KvType::kF32:
      return function.template operator()<KvType::kF32>();
    case KvType::kF16:
      return function.template operator()<KvType::kF16>();
    case KvType::kQ8_0:
      return function.template operator()<KvType::kQ8_0>();
  }
}

void AttendTokensTarget(const KvGeometry& kv, const std::byte* pool, const uint32_t* blocks,
                        size_t layer, size_t head, size_t first_position, size_t tokens,
                        const float* q, size_t q_stride, size_t group, float* out,
                        size_t out_stride, float* scratch) {
  ForType(kv, [&]<KvType kType>() HWY_ATTR {
    AttendTokensAs<kType, 0, 0>(kv, pool, blocks, layer, head, first_position, tokens, q, q_stride,
                                group, out, out_stride, scratch);
  });
}

void AttendPartTarget(const KvGeometry& kv, const std::byte* pool, const uint32_t* blocks,
                      size_t layer, size_t head, size_t position, size_t part, const float* q,
                      size_t group, float* result, float* scratch) {
  const size_t padded = kv.padded_head_dim();
  float* scores = scratch + group * padded;
  ScaleQueries(q, 0, 1, group * kv.head_dim, kv.head_dim, scratch);
  const AttentionRows rows = {scratch, position, 1, group};
  const AttentionSums sums = TakeSums(&result, group, padded);
  const size_t begin = part * kAttentionPart;
  const size_t end = std::min(position + 1, begin + kAttentionPart);
  ForType(kv, [&]<KvType kType>() HWY_ATTR {
    AttendRange<kType, 0>(kv, pool, blocks, layer, head, rows, begin, end, position + 1, scores,
                          sums);
  });
}

void FinishPartsTarget(const KvGeometry& kv, size_t parts, size_t group, float* results,
                       float* out) {
  const size_t padded = kv.padded_head_dim();
  const AttentionSums sums = TakeSums(&results, group, padded);
  for (size_t part = 1; part < parts; ++part) {
    MergeSums(group, padded, TakeSums(&results, group, padded), sums);
  }
  FinishRows(group, group, kv.head_dim, padded, sums, out, 0);
}

void ToHalvesTarget(const float* x, size_t count, uint16_t* out) { ToHalves(x, count, out); }

}  // namespace reticle::backends::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <cstring>

namespace reticle::backends::kernels {
namespace {

HWY_EXPORT(AttendTokensTarget);
HWY_EXPORT(AttendPartTarget);
HWY_EXPORT(FinishPartsTarget);
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
        value_scales[g * kTilePositions + p] = QuantizeGroup(value + 32 * g, v + 32 * g);
      }
      return;
    }
  }
}

size_t AttentionScratchFloats(const KvGeometry& kv, size_t rows) {
  constexpr size_t kStepFloats = 64;
  return rows * (3 * kv.padded_head_dim() + kStepFloats + 4);
}

size_t AttentionPartFloats(const KvGeometry& kv, size_t group) {
  return group * (kv.padded_head_dim() + 2);
}

void AttendTokens(const KvGeometry& kv, const std::byte* pool, const uint32_t* blocks, size_t layer,
                  size_t head, size_t first_position, size_t tokens, const float* q,
                  size_t q_stride, size_t group, float* out, size_t out_stride, float* scratch) {
  HWY_DYNAMIC_DISPATCH(AttendTokensTarget)
  (kv, pool, blocks, layer, head, first_position, tokens, q, q_stride, group, out, out_stride,
   scratch);
}

void AttendPart(const KvGeometry& kv, const std::byte* pool, const uint32_t* blocks, size_t layer,
                size_t head, size_t position, size_t part, const float* q, size_t group,
                float* result, float* scratch) {
  HWY_DYNAMIC_DISPATCH(AttendPartTarget)
  (kv, pool, blocks, layer, head, position, part, q, group, result, scratch);
}

void FinishParts(const KvGeometry& kv, size_t parts, size_t group, float* results, float* out) {
  HWY_DYNAMIC_DISPATCH(FinishPartsTarget)(kv, parts, group, results, out);
}

}  // namespace reticle::backends::kernels

#endif  // HWY_ONCE
