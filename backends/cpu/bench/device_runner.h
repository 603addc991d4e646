// Drives a device through the C ABI as an engine of the scheduler does, and takes the time.
#ifndef RETICLE_BACKENDS_CPU_BENCH_DEVICE_RUNNER_H_
#define RETICLE_BACKENDS_CPU_BENCH_DEVICE_RUNNER_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "backends/abi/device.h"

namespace reticle::backends::cpu::bench {

// Resident memory of this process, bytes.
struct ResidentMemory {
  uint64_t anonymous = 0;
  uint64_t files = 0;   // pages of mapped files
  uint64_t shared = 0;  // memory files among them
  uint64_t huge = 0;    // anonymous memory in huge pages
};
ResidentMemory ReadResidentMemory();

// One host-paged device. Not thread-safe. It waits on the device's event, so that it takes no core
// from it.
class DeviceRunner {
 public:
  static absl::StatusOr<std::unique_ptr<DeviceRunner>> Open(Driver driver,
                                                            const DeviceConfig& config);

  const reticle_capabilities& capabilities() const { return device_->capabilities(); }
  double open_seconds() const { return open_seconds_; }

  // Seconds from handing in a prompt of `tokens` to the first token behind it.
  absl::StatusOr<double> Prefill(uint32_t tokens);

  // Tokens a second of `sequences` sequences together, each of which samples `tokens` tokens
  // (at least 2), greedily. They begin at position `context`, on blocks that hold whatever they
  // hold. Time counts while all of them decode.
  absl::StatusOr<double> Decode(uint32_t sequences, uint32_t context, uint32_t tokens);

 private:
  explicit DeviceRunner(std::unique_ptr<Device> device, double open_seconds)
      : device_(std::move(device)), open_seconds_(open_seconds) {}

  struct Sequence {
    uint64_t id = 0;
    uint32_t granted = 0;  // credits so far
    uint32_t credits_to_grant = 0;
    std::vector<uint32_t> blocks;
    std::vector<uint64_t> times;  // of its tokens
    bool ended = false;
  };

  // Begins a sequence with `tokens` prompt tokens at `position` that samples `count` tokens.
  absl::Status Begin(Sequence& sequence, uint32_t position, uint32_t tokens, uint32_t count);
  absl::Status TopUp(Sequence& sequence);
  // Runs until every sequence has its tokens, then ends them.
  absl::Status RunToEnd(std::vector<Sequence>& sequences, uint32_t count);
  absl::StatusOr<size_t> WaitForCompletions();

  std::unique_ptr<Device> device_;
  const double open_seconds_;
  uint64_t next_id_ = 1;
  uint32_t next_block_ = 0;
  std::vector<reticle_completion> completions_ = std::vector<reticle_completion>(256);
};

}  // namespace reticle::backends::cpu::bench

#endif  // RETICLE_BACKENDS_CPU_BENCH_DEVICE_RUNNER_H_
