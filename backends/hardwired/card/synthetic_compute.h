// A made-up model for tests: logits that depend on every token of the slot, the adapter and the
// position, and on nothing else.
#ifndef RETICLE_BACKENDS_HARDWIRED_CARD_SYNTHETIC_COMPUTE_H_
#define RETICLE_BACKENDS_HARDWIRED_CARD_SYNTHETIC_COMPUTE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "backends/hardwired/compute.h"

namespace reticle::backends::hardwired {

struct SyntheticOptions {
  uint32_t vocab_size = 256;
  uint32_t context_limit = 4096;
  uint32_t slots = 32;
};

class SyntheticCompute : public Compute {
 public:
  explicit SyntheticCompute(const SyntheticOptions& options);

  std::string_view model_name() const override { return "synthetic"; }
  std::string_view image_hash() const override { return hash_; }
  uint32_t vocab_size() const override { return options_.vocab_size; }
  uint32_t context_limit() const override { return options_.context_limit; }
  uint32_t slots() const override { return options_.slots; }
  uint64_t kv_bytes_per_token() const override { return sizeof(uint64_t); }
  void Feed(uint32_t slot, uint32_t position, std::span<const uint32_t> tokens, uint64_t adapter,
            std::span<float> logits) override;
  absl::Status LoadAdapter(uint64_t adapter, const std::string& path, float scale) override;
  absl::Status UnloadAdapter(uint64_t adapter) override;

 private:
  const SyntheticOptions options_;
  std::string hash_;
  std::vector<std::vector<uint64_t>> states_;  // by slot: what each position adds up to
  absl::flat_hash_map<uint64_t, uint64_t> adapters_;
};

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_CARD_SYNTHETIC_COMPUTE_H_
