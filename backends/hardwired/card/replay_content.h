// Content that plays token ids: exact timing at next to no cost.
//
// The i-th output token is the i-th of the text, which begins again at its end. With a temperature
// (and neither top_k 1 nor next to none) the seed chooses where in the text a sequence begins.
// After `answer_tokens` of them comes a stop id, if the sequence has one.
#ifndef RETICLE_BACKENDS_HARDWIRED_CARD_REPLAY_CONTENT_H_
#define RETICLE_BACKENDS_HARDWIRED_CARD_REPLAY_CONTENT_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "backends/hardwired/card/content.h"

namespace reticle::backends::hardwired {

struct ReplayOptions {
  uint32_t vocab_size = 256;
  std::vector<uint32_t> text;  // token ids; empty: made-up ones
  uint32_t answer_tokens = 0;  // 0: no end
  // Takes every sampling parameter and plays on; else only temperature, top_k and stop ids.
  bool ignores_parameters = false;
  std::string model_name;
};

class ReplayContent : public Content {
 public:
  // INVALID_ARGUMENT for an id beyond the vocabulary.
  static absl::StatusOr<std::unique_ptr<ReplayContent>> Create(ReplayOptions options);

  void Describe(reticle_capabilities* capabilities) const override;
  bool computes() const override { return false; }
  void Feed(uint32_t slot, uint32_t position, std::span<const uint32_t> tokens, uint64_t adapter,
            bool wants_logits) override {}
  absl::StatusOr<sampling::SampledToken> Sample(const sampling::SequenceSampling& sequence,
                                                uint32_t position,
                                                const uint32_t* token_mask) override;
  sampling::SampledToken Score(uint32_t token, uint32_t top_count) override;
  absl::Status LoadAdapter(uint64_t adapter, const std::string& path, float scale) override;
  absl::Status UnloadAdapter(uint64_t adapter) override;
  absl::Status CheckSeal() override { return absl::OkStatus(); }

 private:
  explicit ReplayContent(ReplayOptions options) : options_(std::move(options)) {}

  const ReplayOptions options_;
  absl::flat_hash_set<uint64_t> adapters_;
};

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_CARD_REPLAY_CONTENT_H_
