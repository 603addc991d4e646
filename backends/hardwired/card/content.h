// What a card says: the tokens behind the timing.
//
//   functional_content.h   the real tokens of a model, computed and sampled
//   replay_content.h       token ids that are played, whatever was asked
#ifndef RETICLE_BACKENDS_HARDWIRED_CARD_CONTENT_H_
#define RETICLE_BACKENDS_HARDWIRED_CARD_CONTENT_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backends/abi/reticle_device.h"
#include "backends/sampling/sampler.h"
#include "backends/sampling/sequence_sampling.h"

namespace reticle::backends::hardwired {

// Not thread-safe: one firmware drives it. A token depends on the tokens of its slot, the
// parameters, the seed and the position alone.
class Content {
 public:
  virtual ~Content() = default;

  // Fills what the content decides: model_name, model_hash, vocab_size, context_limit,
  // max_sequences, kv_bytes_per_token, features, max_logprobs, max_stop_ids.
  virtual void Describe(reticle_capabilities* capabilities) const = 0;
  // True when it computes, so that the host's speed matters.
  virtual bool computes() const = 0;

  // Feeds `tokens` (at least one) to `slot` from `position` on; what the slot held there is
  // forgotten. `wants_logits`: Sample or Score follows before the next Feed.
  virtual void Feed(uint32_t slot, uint32_t position, std::span<const uint32_t> tokens,
                    uint64_t adapter, bool wants_logits) = 0;
  // The token at `position`, after the last Feed. FAILED_PRECONDITION when none is left to choose.
  virtual absl::StatusOr<sampling::SampledToken> Sample(const sampling::SequenceSampling& sequence,
                                                        uint32_t position,
                                                        const uint32_t* token_mask) = 0;
  virtual sampling::SampledToken Score(uint32_t token, uint32_t top_count) = 0;

  virtual absl::Status LoadAdapter(uint64_t adapter, const std::string& path, float scale) = 0;
  virtual absl::Status UnloadAdapter(uint64_t adapter) = 0;
  // Compares the image with its seal; DATA_LOSS when a bit differs.
  virtual absl::Status CheckSeal() = 0;
};

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_CARD_CONTENT_H_
