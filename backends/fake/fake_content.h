// What the fake device says: the pure functions behind it, and the expected output for tests.
#ifndef RETICLE_BACKENDS_FAKE_FAKE_CONTENT_H_
#define RETICLE_BACKENDS_FAKE_FAKE_CONTENT_H_

#include <cstdint>
#include <span>
#include <vector>

#include "backends/abi/reticle_device.h"

namespace reticle::backends::fake {

// A mixing function of two words (the finaliser of splitmix64 over their combination).
constexpr uint64_t Mix(uint64_t a, uint64_t b) {
  uint64_t x = a ^ (b * 0x9E3779B97F4A7C15u + 0xD1B54A32D192ED03u);
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

// The state of a sequence is one word that stands for all tokens so far. `entry` is what the device
// keeps of a position in its KV block; the state is the fold of all entries.
constexpr uint64_t StartState(uint64_t adapter_key) { return Mix(0x52657469636C65, adapter_key); }
constexpr uint64_t EntryOf(uint64_t state, uint32_t token, uint32_t position) {
  return Mix(state, uint64_t{token} << 32 | position);
}
constexpr uint64_t NextState(uint64_t state, uint64_t entry) { return Mix(state, entry); }

// The content options of a device.
struct FakeContent {
  uint32_t vocab_size = 256;
  bool fast = false;
  std::vector<uint32_t> script;
};

// Logits after `state` for the token at `position` of a sequence with this prompt length and these
// stop ids: in [-6, 6), and 1000 more for what the script wants.
void FillLogits(const FakeContent& content, uint64_t state, uint32_t position,
                uint32_t prompt_tokens, std::span<const uint32_t> stop_ids,
                std::span<float> logits);

// content=fast: the token itself.
uint32_t FastToken(const FakeContent& content, uint64_t state, uint32_t position,
                   const reticle_sampling& params, std::span<const uint32_t> stop_ids);

// The tokens that the device samples after `prompt`, until a stop id (included) or `max_tokens`;
// `params` as in a work item (its history is not read). `adapter_key` is 0 without an adapter.
std::vector<uint32_t> ExpectedTokens(const FakeContent& content, std::span<const uint32_t> prompt,
                                     const reticle_sampling& params, uint32_t max_tokens,
                                     uint64_t adapter_key = 0);

}  // namespace reticle::backends::fake

#endif  // RETICLE_BACKENDS_FAKE_FAKE_CONTENT_H_
