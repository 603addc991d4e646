// Content that computes: the logits of a Compute, and the sampler that all drivers share.
#ifndef RETICLE_BACKENDS_HARDWIRED_CARD_FUNCTIONAL_CONTENT_H_
#define RETICLE_BACKENDS_HARDWIRED_CARD_FUNCTIONAL_CONTENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backends/hardwired/card/content.h"
#include "backends/hardwired/compute.h"

namespace reticle::backends::hardwired {

class FunctionalContent : public Content {
 public:
  // `check_seal` compares the image with its seal; empty: there is nothing to check.
  FunctionalContent(std::unique_ptr<Compute> compute, std::function<absl::Status()> check_seal);

  void Describe(reticle_capabilities* capabilities) const override;
  bool computes() const override { return true; }
  void Feed(uint32_t slot, uint32_t position, std::span<const uint32_t> tokens, uint64_t adapter,
            bool wants_logits) override;
  absl::StatusOr<sampling::SampledToken> Sample(const sampling::SequenceSampling& sequence,
                                                uint32_t position,
                                                const uint32_t* token_mask) override;
  sampling::SampledToken Score(uint32_t token, uint32_t top_count) override;
  absl::Status LoadAdapter(uint64_t adapter, const std::string& path, float scale) override;
  absl::Status UnloadAdapter(uint64_t adapter) override;
  absl::Status CheckSeal() override { return check_seal_ ? check_seal_() : absl::OkStatus(); }

 private:
  const std::unique_ptr<Compute> compute_;
  const std::function<absl::Status()> check_seal_;
  sampling::Sampler sampler_;
  std::vector<float> logits_;
};

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_CARD_FUNCTIONAL_CONTENT_H_
