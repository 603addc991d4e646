// What a GGUF file of a Llama-architecture model says about the model, checked, and its weights by
// role, so that every backend computes the same model.
//
// The computation that the file describes (x is the residual stream, all per position):
//   x = token_embd[token]
//   per layer: h = rms_norm(x) * attn_norm; q, k, v = attn_q h, attn_k h, attn_v h; RoPE turns the
//   pairs (2i, 2i + 1) of each head of q and k (adjacent, not split in halves: GGUF stores Llama's
//   q and k rows permuted for that); x += attn_output attention(q, k, v), with scale
//   1 / sqrt(head_dim); h = rms_norm(x) * ffn_norm; x += ffn_down (silu(ffn_gate h) * (ffn_up h))
//   logits = output (rms_norm(x) * output_norm)
#ifndef RETICLE_MODELS_LLAMA_CONFIG_H_
#define RETICLE_MODELS_LLAMA_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/gguf.h"

namespace reticle::models {

struct LlamaConfig {
  std::string name;         // general.name; empty when the file has none
  uint32_t vocab_size = 0;  // rows of token_embd and output
  uint32_t dim = 0;         // length of the residual stream
  uint32_t layers = 0;
  uint32_t heads = 0;     // query heads
  uint32_t kv_heads = 0;  // key and value heads; divides `heads`
  uint32_t head_dim = 0;  // even; heads * head_dim need not equal dim
  uint32_t ffn_dim = 0;
  uint32_t context_length = 0;  // positions that the model was trained for
  float norm_epsilon = 0.0f;    // of all rms norms
  double rope_base = 0.0;
  // Linear rope scaling: positions are divided by it. 1 means none.
  double rope_linear_factor = 1.0;
  // The file carries rope_freqs.weight (Llama 3.1 scaling): a divisor for each pair's frequency.
  bool has_rope_factors = false;
  bool tied_embeddings = false;  // no output.weight: token_embd serves as output

  uint32_t q_dim() const { return heads * head_dim; }
  uint32_t kv_dim() const { return kv_heads * head_dim; }
  // Query heads that share one key and value head.
  uint32_t group_size() const { return heads / kv_heads; }
  uint64_t parameters() const;  // of all matrices and norms; tied embeddings count once

  // INVALID_ARGUMENT naming the first field that is out of its limits, the value and the limit.
  absl::Status Validate() const;
};

// Reads and validates. INVALID_ARGUMENT naming the key, its value and the limit; NOT_FOUND for a
// missing key; UNIMPLEMENTED for another architecture and for what Llama files may ask that is not
// computed (mixture of experts, YaRN and LongRoPE scaling, sliding windows, partial rotation,
// ALiBi).
absl::StatusOr<LlamaConfig> ReadLlamaConfig(const GgufFile& file);

// The weights of one layer. Matrices are [in, out] (shape[0] is the input), norms are F32.
struct LlamaLayerWeights {
  const GgufTensor* attn_norm;
  const GgufTensor* attn_q;       // [dim, q_dim]
  const GgufTensor* attn_k;       // [dim, kv_dim]
  const GgufTensor* attn_v;       // [dim, kv_dim]
  const GgufTensor* attn_output;  // [q_dim, dim]
  const GgufTensor* ffn_norm;
  const GgufTensor* ffn_gate;  // [dim, ffn_dim]
  const GgufTensor* ffn_up;    // [dim, ffn_dim]
  const GgufTensor* ffn_down;  // [ffn_dim, dim]
};

// Pointers into a GgufFile, which must outlive them. None is null but rope_freqs.
struct LlamaWeights {
  const GgufTensor* token_embd;   // [dim, vocab_size]
  const GgufTensor* output_norm;  // [dim]
  const GgufTensor* output;       // [dim, vocab_size]; token_embd when embeddings are tied
  const GgufTensor* rope_freqs;   // F32 [head_dim / 2], or nullptr
  std::vector<LlamaLayerWeights> layers;
};

// Finds every weight and checks its shape and type against `config` (as ReadLlamaConfig gave it for
// the same file). NOT_FOUND names a missing tensor, INVALID_ARGUMENT a wrong shape, UNIMPLEMENTED a
// tensor that the computation above has no place for (biases, for example).
absl::StatusOr<LlamaWeights> BindLlamaWeights(const GgufFile& file, const LlamaConfig& config);

// A norm or another F32 tensor as floats; in place.
std::span<const float> AsFloats(const GgufTensor& tensor);

}  // namespace reticle::models

#endif  // RETICLE_MODELS_LLAMA_CONFIG_H_
