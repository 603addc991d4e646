#include "backends/fake/fake_content.h"

#include "backends/sampling/sampler.h"
#include "base/check.h"

namespace reticle::backends::fake {
namespace {

constexpr float kScriptBonus = 1000;

// Calls `want(token)` for each token that the script puts at `position`.
template <typename Want>
void ForScripted(const std::vector<uint32_t>& script, uint32_t position, uint32_t prompt_tokens,
                 std::span<const uint32_t> stop_ids, Want want) {
  if (script.empty() || position < prompt_tokens) return;
  const uint32_t index = position - prompt_tokens;
  if (index < script.size() || stop_ids.empty()) {
    want(script[index % script.size()]);
  } else {
    for (const uint32_t token : stop_ids) want(token);
  }
}

}  // namespace

void FillLogits(const FakeContent& content, uint64_t state, uint32_t position,
                uint32_t prompt_tokens, std::span<const uint32_t> stop_ids,
                std::span<float> logits) {
  for (uint32_t token = 0; token < content.vocab_size; ++token) {
    const auto bits = static_cast<uint32_t>(Mix(state, token) >> 40);
    logits[token] = static_cast<float>(bits) * (12.0f / (1 << 24)) - 6.0f;
  }
  ForScripted(content.script, position, prompt_tokens, stop_ids,
              [&](uint32_t token) { logits[token] += kScriptBonus; });
}

uint32_t FastToken(const FakeContent& content, uint64_t state, uint32_t position,
                   const reticle_sampling& params, std::span<const uint32_t> stop_ids) {
  const bool is_random = params.temperature > 0.01f && params.top_k != 1;
  const uint64_t word = is_random ? Mix(Mix(state, params.seed), position) : state;
  uint32_t token = static_cast<uint32_t>((word >> 32) * content.vocab_size >> 32);
  ForScripted(content.script, position, params.prompt_tokens, stop_ids,
              [&](uint32_t scripted) { token = scripted; });
  return token;
}

std::vector<uint32_t> ExpectedTokens(const FakeContent& content, std::span<const uint32_t> prompt,
                                     const reticle_sampling& params, uint32_t max_tokens,
                                     uint64_t adapter_key) {
  reticle_sampling with_history = params;
  with_history.history = prompt.data();
  with_history.history_count = static_cast<uint32_t>(prompt.size());
  sampling::SequenceSampling sequence;
  sequence.Set(with_history);
  sampling::Sampler sampler(content.vocab_size);
  std::vector<float> logits(content.vocab_size);

  uint64_t state = StartState(adapter_key);
  uint32_t position = 0;
  const auto feed = [&](uint32_t token) {
    state = NextState(state, EntryOf(state, token, position++));
  };
  for (const uint32_t token : prompt) feed(token);
  std::vector<uint32_t> output;
  while (output.size() < max_tokens) {
    uint32_t token = 0;
    if (content.fast) {
      token = FastToken(content, state, position, params, sequence.stop_ids());
    } else {
      FillLogits(content, state, position, params.prompt_tokens, sequence.stop_ids(), logits);
      const auto sampled = sampler.Sample(logits, sequence, position);
      RETICLE_CHECK(sampled.ok());
      token = sampled->token;
    }
    output.push_back(token);
    if (sequence.IsStopId(token)) break;
    sequence.Append({&token, 1}, position);
    feed(token);
  }
  return output;
}

}  // namespace reticle::backends::fake
