// Low-rank adapters for Llama models in GGUF files (general.type "adapter", adapter.type "lora"):
// for a matrix NAME of the model, two small ones, NAME.lora_a [in, rank] and NAME.lora_b [rank,
// out]. The adapted model computes NAME x + scale * lora_b (lora_a x), scale = alpha / rank times
// what the user asks for.
#ifndef RETICLE_MODELS_LORA_H_
#define RETICLE_MODELS_LORA_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "models/gguf.h"
#include "models/llama_config.h"

namespace reticle::models {

// Ranks beyond it are refused.
inline constexpr uint32_t kMaxLoraRank = 1024;

// Both null: the matrix is not adapted.
struct LoraPair {
  const GgufTensor* a = nullptr;
  const GgufTensor* b = nullptr;
  uint32_t rank() const { return a == nullptr ? 0 : static_cast<uint32_t>(a->shape[1]); }
};

struct LoraLayer {
  LoraPair attn_q, attn_k, attn_v, attn_output, ffn_gate, ffn_up, ffn_down;
};

// Pointers into a GgufFile, which must outlive them.
struct LoraWeights {
  float alpha = 0.0f;  // adapter.lora.alpha; 0: none is given, so nothing is divided by the rank
  std::vector<LoraLayer> layers;
  LoraPair output;

  // What lora_b (lora_a x) of a pair is multiplied with when the user asks for `scale`.
  float ScaleOf(const LoraPair& pair, float scale) const {
    return alpha == 0.0f ? scale : scale * alpha / static_cast<float>(pair.rank());
  }
};

// Reads and checks an adapter for a model of that shape. INVALID_ARGUMENT for a file that is no
// adapter, a tensor of a wrong shape, half a pair, or none at all; UNIMPLEMENTED for another
// architecture or kind of adapter and for tensors that the computation has no place for.
absl::StatusOr<LoraWeights> ReadLora(const GgufFile& file, const LlamaConfig& config);

}  // namespace reticle::models

#endif  // RETICLE_MODELS_LORA_H_
