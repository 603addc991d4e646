// From logits to a token, in the order of operations of the device ABI (reticle_sampling).
//
//   Sampler sampler(vocab_size);                       // one per computing thread
//   SequenceSampling sequence;                         // one per sequence
//   sequence.Set(params);                              // after ValidateSampling
//   auto sampled = sampler.Sample(logits, sequence, position, mask);
//   if (sampled.ok()) Emit(sampled->token, sampled->is_stop_id);
//   sequence.Append({&sampled->token, 1}, position);   // when it is fed
//
// The token is a function of the arguments alone, not of earlier calls, and for equal logits the
// same on every machine: weights come from exp.h, sums are of a fixed order in double precision.
// The draw walks the tokens that are left in the order of their ids until their weights pass
// UniformAt(seed, position) times the sum, so no sort of the vocabulary is needed.
#ifndef RETICLE_BACKENDS_SAMPLING_SAMPLER_H_
#define RETICLE_BACKENDS_SAMPLING_SAMPLER_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "backends/abi/reticle_device.h"
#include "backends/sampling/sequence_sampling.h"

namespace reticle::backends::sampling {

struct SampledToken {
  uint32_t token = 0;
  bool is_stop_id = false;
  // When asked for (params.logprobs > 0 or Score), else 0 and empty. `top` is the sampler's and
  // valid until its next call.
  float logprob = 0;
  uint32_t rank = 0;
  std::span<const reticle_token_logprob> top;
};

// Scratch for one vocabulary; makes no allocation after the first few calls. Not thread-safe.
class Sampler {
 public:
  explicit Sampler(uint32_t vocab_size);
  Sampler(Sampler&&) = default;
  Sampler& operator=(Sampler&&) = default;

  // Samples the token at `position`. `logits` has vocab_size values and is not changed; NaN and
  // -infinity are never sampled. `token_mask` as in reticle_work, or null. FAILED_PRECONDITION when
  // no token is left to choose from.
  absl::StatusOr<SampledToken> Sample(std::span<const float> logits,
                                      const SequenceSampling& sequence, uint32_t position,
                                      const uint32_t* token_mask = nullptr);

  // Log-probability and rank of `token` under `logits`, and the `top_count` likeliest tokens.
  SampledToken Score(std::span<const float> logits, uint32_t token, uint32_t top_count);

 private:
  struct Candidate {
    float logit;
    uint32_t token;
    float weight;
  };

  // `logits` as changed by bias, mask, banned stop ids and penalties; the same span if nothing
  // changes them.
  std::span<const float> Adjust(std::span<const float> logits, const SequenceSampling& sequence,
                                uint32_t position, const uint32_t* token_mask);
  void CopyMasked(std::span<const float> logits, const uint32_t* token_mask);
  // Fills candidates_ with the `count` likeliest tokens (fewer when not so many are finite), in no
  // order.
  void SelectTop(std::span<const float> logits, uint32_t count);
  uint32_t Draw(std::span<const float> logits, const reticle_sampling& params, uint32_t position);
  // Cuts sorted candidates_, whose weights are part of `total`, to the top_p nucleus; false when it
  // reaches beyond them.
  bool CutToNucleus(float top_p, double total);
  // The same for the whole vocabulary when the nucleus is large: zeroes the weights_ outside.
  void ZeroOutsideNucleus(std::span<const float> logits, float max, const reticle_sampling& params);
  uint32_t DrawFromCandidates(double uniform);
  uint32_t DrawFromWeights(double uniform);
  // Sum of weights_, block by block into block_sums_.
  double SumWeights();

  uint32_t vocab_size_;
  std::vector<float> adjusted_;
  std::vector<float> weights_;
  std::vector<double> block_sums_;
  std::vector<float> block_max_;
  std::vector<float> block_max_sorted_;
  std::vector<Candidate> candidates_;
  std::vector<double> bucket_sums_;
  std::vector<reticle_token_logprob> top_;
};

}  // namespace reticle::backends::sampling

#endif  // RETICLE_BACKENDS_SAMPLING_SAMPLER_H_
