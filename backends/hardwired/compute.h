// The computing half of a card: what turns tokens into logits. The firmware owns everything else
// (sequences, credits, sampling, time, faults).
#ifndef RETICLE_BACKENDS_HARDWIRED_COMPUTE_H_
#define RETICLE_BACKENDS_HARDWIRED_COMPUTE_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace reticle::backends::hardwired {

// Not thread-safe: one firmware loop drives it. Results depend on the tokens of the slot and on the
// adapter alone: not on other slots, nor on how a prompt was cut into calls of Feed.
class Compute {
 public:
  virtual ~Compute() = default;

  virtual std::string_view model_name() const = 0;
  // Lower-case hex SHA-256 of the image.
  virtual std::string_view image_hash() const = 0;
  virtual uint32_t vocab_size() const = 0;
  virtual uint32_t context_limit() const = 0;  // tokens a slot can hold
  virtual uint32_t slots() const = 0;          // sequences whose KV fits at once
  virtual uint64_t kv_bytes_per_token() const = 0;

  // Feeds `tokens` (at least one, each below vocab_size) to `slot` at positions position,
  // position + 1, ...; whatever the slot held at or beyond `position` is forgotten first, and every
  // position before it must have been fed. `logits` is empty, or holds vocab_size floats that
  // receive the logits after the last token. `adapter` is 0 or one that is loaded; a sequence keeps
  // its adapter.
  virtual void Feed(uint32_t slot, uint32_t position, std::span<const uint32_t> tokens,
                    uint64_t adapter, std::span<float> logits) = 0;

  // As adapter_load and adapter_unload of the device ABI; no slot uses the adapter.
  virtual absl::Status LoadAdapter(uint64_t adapter, const std::string& path, float scale) = 0;
  virtual absl::Status UnloadAdapter(uint64_t adapter) = 0;
};

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_COMPUTE_H_
