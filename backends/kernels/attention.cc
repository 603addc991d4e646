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

void AttendHeadTarget(const KvGeometry& kv, const std::byte* pool, const uint32_t* blocks,
                      size_t layer, size_t head, size_t position, const float* q, size_t group,
                      float* out, float* scratch) {
  switch (kv.type) {
    case KvType::kF32:
      return AttendHeadAs<KvType::kF32, 0, 0>(kv, pool, blocks, layer, head, position, q, group,
                                              out, scratch);
    case KvType::kF16:
      return AttendHeadAs<KvType::kF16, 0, 0>(kv, pool, blocks, layer, head, position, q, group,
                                              out, scratch);
    case KvType::kQ8_0:
      return AttendHeadAs<KvType::kQ8_0, 0, 0>(kv, pool, blocks, layer, head, position, q, group,
                                               out, scratch);
  }
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
