#include "models/rope.h"

#include <cmath>
#include <numbers>
#include <span>

#include "base/status.h"

namespace reticle::models {
namespace {

double BaseFrequency(double rope_base, uint32_t pair, uint32_t head_dim) {
  return std::pow(rope_base, -2.0 * pair / head_dim);
}

}  // namespace

std::vector<float> Llama3RopeFactors(uint32_t head_dim, double rope_base,
                                     const Llama3RopeScaling& scaling) {
  std::vector<float> factors(head_dim / 2);
  for (uint32_t i = 0; i < head_dim / 2; ++i) {
    const double wavelength = 2.0 * std::numbers::pi / BaseFrequency(rope_base, i, head_dim);
    const double turns = scaling.original_context / wavelength;
    if (turns > scaling.high_freq_factor) {
      factors[i] = 1.0f;
    } else if (turns < scaling.low_freq_factor) {
      factors[i] = static_cast<float>(scaling.factor);
    } else {
      const double smooth =
          (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
      factors[i] = static_cast<float>(1.0 / ((1.0 - smooth) / scaling.factor + smooth));
    }
  }
  return factors;
}

absl::StatusOr<std::vector<double>> RopeFrequencies(const LlamaConfig& config,
                                                    const LlamaWeights& weights) {
  std::vector<double> frequencies(config.head_dim / 2);
  for (uint32_t i = 0; i < frequencies.size(); ++i) {
    frequencies[i] =
        BaseFrequency(config.rope_base, i, config.head_dim) / config.rope_linear_factor;
  }
  if (weights.rope_freqs == nullptr) return frequencies;
  const std::span<const float> factors = AsFloats(*weights.rope_freqs);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    if (!std::isfinite(factors[i]) || factors[i] <= 0.0f) {
      return InvalidArgumentError("rope_freqs.weight[%d] is %g; it must be finite and positive", i,
                                  factors[i]);
    }
    frequencies[i] /= factors[i];
  }
  return frequencies;
}

}  // namespace reticle::models
