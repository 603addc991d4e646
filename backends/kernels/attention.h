// Grouped-query attention of one position over the paged KV pool.
#ifndef RETICLE_BACKENDS_KERNELS_ATTENTION_H_
#define RETICLE_BACKENDS_KERNELS_ATTENTION_H_

#include <cstddef>
#include <cstdint>

#include "backends/kernels/kv_cache.h"

namespace reticle::backends::kernels {

// Stores key and value (head_dim floats each, the key already rotated) of one head of `position`.
void WriteKv(const KvGeometry& kv, std::byte* pool, const uint32_t* blocks, size_t layer,
             size_t head, size_t position, const float* key, const float* value);

// Floats of scratch that AttendHead needs.
size_t AttentionScratchFloats(const KvGeometry& kv, size_t group);

// out[g] = softmax(q[g] K^T / sqrt(head_dim)) V over positions 0 .. position, for the `group` query
// heads that share KV head `head`. q and out are [group][head_dim]. The sum over positions runs in
// order, in steps of 64 with a running maximum, whatever else is computed.
void AttendHead(const KvGeometry& kv, const std::byte* pool, const uint32_t* blocks, size_t layer,
                size_t head, size_t position, const float* q, size_t group, float* out,
                float* scratch);

}  // namespace reticle::backends::kernels

#endif  // RETICLE_BACKENDS_KERNELS_ATTENTION_H_
