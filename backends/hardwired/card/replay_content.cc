#include "backends/hardwired/card/replay_content.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/status.h"

namespace reticle::backends::hardwired {
namespace {

constexpr uint32_t kMadeUpTokens = 4093;  // a prime, so that it falls into no step with anything
constexpr uint32_t kMaxStopIds = 64;

constexpr uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

void CopyText(std::string_view text, std::span<char> to) {
  const size_t length = std::min(text.size(), to.size() - 1);
  std::copy_n(text.data(), length, to.data());
  to[length] = '\0';
}

}  // namespace

absl::StatusOr<std::unique_ptr<ReplayContent>> ReplayContent::Create(ReplayOptions options) {
  for (const uint32_t token : options.text) {
    if (token < options.vocab_size) continue;
    return InvalidArgumentError("the text to replay holds token %u; it must be below vocab, %u",
                                token, options.vocab_size);
  }
  if (options.text.empty()) {
    for (uint32_t i = 0; i < kMadeUpTokens; ++i) {
      options.text.push_back(static_cast<uint32_t>((Mix(i) >> 32) * options.vocab_size >> 32));
    }
  }
  return std::unique_ptr<ReplayContent>(new ReplayContent(std::move(options)));
}

void ReplayContent::Describe(reticle_capabilities* capabilities) const {
  CopyText(options_.model_name, capabilities->model_name);
  uint64_t state = Mix(options_.vocab_size) ^ options_.answer_tokens;
  for (const uint32_t token : options_.text) state = Mix(state ^ token);
  std::string hash;
  for (uint64_t i = 0; i < 4; ++i) hash += absl::StrFormat("%016x", Mix(state + i));
  CopyText(hash, capabilities->model_hash);
  capabilities->vocab_size = options_.vocab_size;
  capabilities->context_limit = UINT32_MAX;
  capabilities->max_sequences = UINT32_MAX;
  capabilities->kv_bytes_per_token = 0;
  capabilities->max_stop_ids = kMaxStopIds;
  capabilities->features = RETICLE_FEATURE_TEMPERATURE;
  if (options_.ignores_parameters) {
    capabilities->features |= RETICLE_FEATURE_TOP_P | RETICLE_FEATURE_MIN_P |
                              RETICLE_FEATURE_PENALTIES | RETICLE_FEATURE_LOGIT_BIAS |
                              RETICLE_FEATURE_MIN_TOKENS;
  }
}

absl::StatusOr<sampling::SampledToken> ReplayContent::Sample(
    const sampling::SequenceSampling& sequence, uint32_t position, const uint32_t* /*mask*/) {
  const reticle_sampling& params = sequence.params();
  const uint32_t index = position - std::min(position, params.prompt_tokens);
  sampling::SampledToken sampled;
  if (options_.answer_tokens > 0 && index >= options_.answer_tokens &&
      !sequence.stop_ids().empty()) {
    sampled.token = sequence.stop_ids().front();
    sampled.is_stop_id = true;
    return sampled;
  }
  const bool is_random = params.temperature > 0.01f && params.top_k != 1;
  const uint64_t begin = is_random ? Mix(params.seed) >> 32 : 0;
  sampled.token = options_.text[(begin + index) % options_.text.size()];
  sampled.is_stop_id = sequence.IsStopId(sampled.token);
  return sampled;
}

sampling::SampledToken ReplayContent::Score(uint32_t token, uint32_t /*top_count*/) {
  sampling::SampledToken scored;
  scored.token = token;
  return scored;
}

absl::Status ReplayContent::LoadAdapter(uint64_t adapter, const std::string& /*path*/,
                                        float /*scale*/) {
  if (!adapters_.insert(adapter).second) return AlreadyExistsError("adapter %u is loaded", adapter);
  return absl::OkStatus();
}

absl::Status ReplayContent::UnloadAdapter(uint64_t adapter) {
  if (adapters_.erase(adapter) == 0) return NotFoundError("adapter %u is not loaded", adapter);
  return absl::OkStatus();
}

}  // namespace reticle::backends::hardwired
