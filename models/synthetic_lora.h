// Random low-rank adapters for models of any shape as GGUF files: for tests. The bytes depend on
// the options only.
#ifndef RETICLE_MODELS_SYNTHETIC_LORA_H_
#define RETICLE_MODELS_SYNTHETIC_LORA_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/llama_config.h"
#include "models/tensor_type.h"

namespace reticle::models {

struct SyntheticLoraOptions {
  LlamaConfig config;  // of the model to adapt
  uint32_t rank = 4;
  float alpha = 8.0f;
  TensorType type = TensorType::kF32;  // of all tensors; F32, F16 or BF16
  // Endings of the names of the matrices to adapt; empty: all that can be.
  std::vector<std::string> targets;
  uint64_t seed = 1;
};

// Every pair changes its product by about half of it when the scale is 1.
absl::StatusOr<std::vector<std::byte>> MakeSyntheticLora(const SyntheticLoraOptions& options);
absl::Status WriteSyntheticLora(const SyntheticLoraOptions& options, const std::string& path);

}  // namespace reticle::models

#endif  // RETICLE_MODELS_SYNTHETIC_LORA_H_
