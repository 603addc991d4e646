// What a driver keeps of a sequence's sampling parameters, and the check that comes before.
#ifndef RETICLE_BACKENDS_SAMPLING_SEQUENCE_SAMPLING_H_
#define RETICLE_BACKENDS_SAMPLING_SEQUENCE_SAMPLING_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "backends/abi/reticle_device.h"

namespace reticle::backends::sampling {

// Checks the parameters against the device: INVALID_ARGUMENT names field, value and limit;
// UNIMPLEMENTED names the feature that `capabilities` lacks. `params` is whole (a struct of an
// older host has been completed with zeros). What has no effect is not refused: with temperature 0,
// top_k, top_p and min_p need only be in range.
absl::Status ValidateSampling(const reticle_sampling& params,
                              const reticle_capabilities& capabilities);

// True when a penalty is set, so that `history` is needed.
bool HasPenalties(const reticle_sampling& params);

// The sampling state of one sequence: an owned copy of the parameters and, when a penalty is set,
// the counts of its tokens, kept up as the sequence grows. Not thread-safe; movable.
class SequenceSampling {
 public:
  struct TokenCount {
    uint32_t token;
    uint32_t in_output;  // times in the output; 0: in the prompt only
  };

  // Takes validated parameters and counts their history.
  void Set(const reticle_sampling& params);
  bool is_set() const { return is_set_; }

  // `tokens` were fed at positions position, position+1, ... after Set (those in its history are
  // counted already). Free without penalties.
  void Append(std::span<const uint32_t> tokens, uint32_t position);

  // Pointers in it are null; use the accessors.
  const reticle_sampling& params() const { return params_; }
  std::span<const uint32_t> stop_ids() const { return stop_ids_; }
  std::span<const reticle_logit_bias> logit_bias() const { return logit_bias_; }
  bool has_penalties() const { return has_penalties_; }
  // The distinct tokens of the sequence, in no particular order; empty without penalties.
  std::span<const TokenCount> counts() const { return counts_; }
  bool IsStopId(uint32_t token) const;
  // True when a token at `position` must not be a stop id.
  bool StopIdsBanned(uint32_t position) const {
    return uint64_t{position} < uint64_t{params_.prompt_tokens} + params_.min_tokens;
  }

 private:
  reticle_sampling params_{};
  bool is_set_ = false;
  bool has_penalties_ = false;
  std::vector<uint32_t> stop_ids_;
  std::vector<reticle_logit_bias> logit_bias_;
  std::vector<TokenCount> counts_;
  absl::flat_hash_map<uint32_t, uint32_t> index_;  // token -> index in counts_
};

}  // namespace reticle::backends::sampling

#endif  // RETICLE_BACKENDS_SAMPLING_SEQUENCE_SAMPLING_H_
