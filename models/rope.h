// Frequencies of rotary position embedding for Llama models.
#ifndef RETICLE_MODELS_ROPE_H_
#define RETICLE_MODELS_ROPE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "models/llama_config.h"

namespace reticle::models {

// The frequency scaling of Llama 3.1: wavelengths longer than original_context / low_freq_factor
// are slowed by `factor`, those shorter than original_context / high_freq_factor stay, and between
// the two the frequency is interpolated. Source: apply_scaling in
// https://github.com/meta-llama/llama-models/blob/main/models/llama3/model.py, whose constants the
// defaults are (Llama 3.1 8B, 70B, 405B). Llama 3.2 1B and 3B use factor 32.
struct Llama3RopeScaling {
  double factor = 8.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  double original_context = 8192.0;
};

// The divisors of the frequencies of the head_dim / 2 pairs, as rope_freqs.weight holds them.
std::vector<float> Llama3RopeFactors(uint32_t head_dim, double rope_base,
                                     const Llama3RopeScaling& scaling);

// The angle in radians by which pair i turns from one position to the next:
// rope_base^(-2i / head_dim) / (rope_linear_factor * rope_freqs[i]). INVALID_ARGUMENT for a
// rope_freqs value that is not finite and positive.
absl::StatusOr<std::vector<double>> RopeFrequencies(const LlamaConfig& config,
                                                    const LlamaWeights& weights);

}  // namespace reticle::models

#endif  // RETICLE_MODELS_ROPE_H_
