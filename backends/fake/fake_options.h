// The options of the fake device (fake_device.h lists them) as a struct.
#ifndef RETICLE_BACKENDS_FAKE_FAKE_OPTIONS_H_
#define RETICLE_BACKENDS_FAKE_FAKE_OPTIONS_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "backends/abi/reticle_device.h"
#include "backends/fake/fake_content.h"

namespace reticle::backends::fake {

struct FakeOptions {
  FakeContent content;
  bool paged = true;
  uint32_t context_limit = 4096;
  uint32_t block_tokens = 16;
  uint32_t blocks = 1024;
  uint32_t max_sequences = 64;
  uint32_t prefill_chunk = 512;
  uint32_t credits = 64;
  uint32_t max_top_k = 0;
  uint64_t step_ns = 0;
  uint64_t prefill_token_ns = 0;
  uint64_t adapter_swap_ns = 0;
  bool cheap_poll = true;
  bool event_fd = true;
  std::string name;
  std::string model_name;
  bool fail_open = false;
  uint64_t fail_submit = 0;
  uint64_t refuse_every = 0;
  uint64_t error_token = 0;
  uint64_t hang_step = 0;
  uint64_t lost_step = 0;

  // INVALID_ARGUMENT for an unknown name or a value out of range.
  static absl::StatusOr<FakeOptions> FromConfig(const reticle_device_config& config);
  reticle_capabilities Capabilities() const;
};

}  // namespace reticle::backends::fake

#endif  // RETICLE_BACKENDS_FAKE_FAKE_OPTIONS_H_
