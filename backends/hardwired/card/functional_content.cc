#include "backends/hardwired/card/functional_content.h"

#include <algorithm>

namespace reticle::backends::hardwired {
namespace {

constexpr uint32_t kMaxStopIds = 64;
constexpr uint32_t kMaxLogprobs = 21;

void CopyText(std::string_view text, std::span<char> to) {
  const size_t length = std::min(text.size(), to.size() - 1);
  std::copy_n(text.data(), length, to.data());
  to[length] = '\0';
}

}  // namespace

FunctionalContent::FunctionalContent(std::unique_ptr<Compute> compute,
                                     std::function<absl::Status()> check_seal)
    : compute_(std::move(compute)),
      check_seal_(std::move(check_seal)),
      sampler_(compute_->vocab_size()),
      logits_(compute_->vocab_size()) {}

void FunctionalContent::Describe(reticle_capabilities* capabilities) const {
  CopyText(compute_->model_name(), capabilities->model_name);
  CopyText(compute_->image_hash(), capabilities->model_hash);
  capabilities->vocab_size = compute_->vocab_size();
  capabilities->context_limit = compute_->context_limit();
  capabilities->max_sequences = compute_->slots();
  capabilities->kv_bytes_per_token = compute_->kv_bytes_per_token();
  capabilities->max_stop_ids = kMaxStopIds;
  capabilities->max_logprobs = std::min(kMaxLogprobs, compute_->vocab_size());
  capabilities->features =
      RETICLE_FEATURE_TOKEN_MASK | RETICLE_FEATURE_LOGPROBS | RETICLE_FEATURE_PROMPT_LOGPROBS |
      RETICLE_FEATURE_LOGIT_BIAS | RETICLE_FEATURE_PENALTIES | RETICLE_FEATURE_MIN_P |
      RETICLE_FEATURE_TOP_P | RETICLE_FEATURE_TEMPERATURE | RETICLE_FEATURE_MIN_TOKENS;
}

void FunctionalContent::Feed(uint32_t slot, uint32_t position, std::span<const uint32_t> tokens,
                             uint64_t adapter, bool wants_logits) {
  compute_->Feed(slot, position, tokens, adapter,
                 wants_logits ? std::span<float>(logits_) : std::span<float>());
}

absl::StatusOr<sampling::SampledToken> FunctionalContent::Sample(
    const sampling::SequenceSampling& sequence, uint32_t position, const uint32_t* token_mask) {
  return sampler_.Sample(logits_, sequence, position, token_mask);
}

sampling::SampledToken FunctionalContent::Score(uint32_t token, uint32_t top_count) {
  return sampler_.Score(logits_, token, top_count);
}

absl::Status FunctionalContent::LoadAdapter(uint64_t adapter, const std::string& path,
                                            float scale) {
  return compute_->LoadAdapter(adapter, path, scale);
}

absl::Status FunctionalContent::UnloadAdapter(uint64_t adapter) {
  return compute_->UnloadAdapter(adapter);
}

}  // namespace reticle::backends::hardwired
