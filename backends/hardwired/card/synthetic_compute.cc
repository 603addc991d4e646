#include "backends/hardwired/card/synthetic_compute.h"

#include <bit>

#include "base/check.h"
#include "base/status.h"

namespace reticle::backends::hardwired {
namespace {

constexpr uint64_t Mix(uint64_t a, uint64_t b) {
  uint64_t x = a ^ (b * 0x9E3779B97F4A7C15u + 0xD1B54A32D192ED03u);
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

}  // namespace

SyntheticCompute::SyntheticCompute(const SyntheticOptions& options)
    : options_(options), states_(options.slots) {
  for (uint64_t i = 0; i < 4; ++i) hash_ += absl::StrFormat("%016x", Mix(options.vocab_size, i));
}

void SyntheticCompute::Feed(uint32_t slot, uint32_t position, std::span<const uint32_t> tokens,
                            uint64_t adapter, std::span<float> logits) {
  std::vector<uint64_t>& states = states_[slot];
  RETICLE_CHECK(position <= states.size() && !tokens.empty());
  states.resize(position);
  const uint64_t start = adapter == 0 ? 1 : adapters_.at(adapter);
  for (const uint32_t token : tokens) {
    states.push_back(Mix(states.empty() ? start : states.back(), token));
  }
  RETICLE_CHECK(states.size() <= options_.context_limit);
  for (uint32_t token = 0; token < logits.size(); ++token) {
    const auto bits = static_cast<uint32_t>(Mix(states.back(), token) >> 40);
    logits[token] = static_cast<float>(bits) * (12.0f / (1 << 24)) - 6.0f;
  }
}

absl::Status SyntheticCompute::LoadAdapter(uint64_t adapter, const std::string& path, float scale) {
  if (adapters_.contains(adapter)) return AlreadyExistsError("adapter %u is loaded", adapter);
  uint64_t key = std::bit_cast<uint32_t>(scale);
  for (const char c : path) key = Mix(key, static_cast<unsigned char>(c));
  adapters_[adapter] = key;
  return absl::OkStatus();
}

absl::Status SyntheticCompute::UnloadAdapter(uint64_t adapter) {
  if (adapters_.erase(adapter) == 0) return NotFoundError("adapter %u is not loaded", adapter);
  return absl::OkStatus();
}

}  // namespace reticle::backends::hardwired
