// Grouped-query attention over the paged KV pool.
#ifndef RETICLE_BACKENDS_KERNELS_ATTENTION_H_
#define RETICLE_BACKENDS_KERNELS_ATTENTION_H_

#include <cstddef>
#include <cstdint>

#include "backends/kernels/kv_cache.h"

namespace reticle::backends::kernels {

// Stores key and value (head_dim floats each, the key already rotated) of one head of `position`.
void WriteKv(const KvGeometry& kv, std::byte* pool, const uint32_t* blocks, size_t layer,
             size_t head, size_t position, const float* key, const float* value);

// Positions are attended to in parts that begin at multiples of this, each by itself, and the parts
// are merged in their order: whoever computes a part, the result is the same to the bit.
inline constexpr size_t kAttentionPart = 2048;

// Floats of scratch that the functions below need for `rows` queries, heads times tokens.
size_t AttentionScratchFloats(const KvGeometry& kv, size_t rows);

// out[t][g] = softmax(q[t][g] K^T / sqrt(head_dim)) V over positions 0 .. first_position + t, for
// the `group` query heads that share KV head `head`. q and out are [tokens][group][head_dim],
// tokens lie q_stride and out_stride apart. Within a part the sum over positions runs in order, in
// steps of 64 with a running maximum, whatever else is computed.
void AttendTokens(const KvGeometry& kv, const std::byte* pool, const uint32_t* blocks, size_t layer,
                  size_t head, size_t first_position, size_t tokens, const float* q,
                  size_t q_stride, size_t group, float* out, size_t out_stride, float* scratch);

// The same for the token at `position` in two steps: AttendPart gathers part `part` of the
// positions 0 .. position, FinishParts merges the `parts` of them, which lie one behind the other.
inline size_t AttentionParts(size_t position) { return position / kAttentionPart + 1; }
size_t AttentionPartFloats(const KvGeometry& kv, size_t group);
void AttendPart(const KvGeometry& kv, const std::byte* pool, const uint32_t* blocks, size_t layer,
                size_t head, size_t position, size_t part, const float* q, size_t group,
                float* result, float* scratch);
void FinishParts(const KvGeometry& kv, size_t parts, size_t group, float* results, float* out);

}  // namespace reticle::backends::kernels

#endif  // RETICLE_BACKENDS_KERNELS_ATTENTION_H_
