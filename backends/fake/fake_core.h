// The fake device behind its C table: sequences, steps, completions. fake_device.h has the
// behaviour and the options.
#ifndef RETICLE_BACKENDS_FAKE_FAKE_CORE_H_
#define RETICLE_BACKENDS_FAKE_FAKE_CORE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "backends/abi/driver_support.h"
#include "backends/abi/reticle_device.h"
#include "backends/fake/fake_device.h"
#include "backends/fake/fake_options.h"
#include "backends/fake/fake_sequence.h"
#include "backends/sampling/sampler.h"

namespace reticle::backends::fake {

// Threads as in the ABI: capabilities, Stats and Health by any thread, the rest by one.
class FakeDevice {
 public:
  static absl::StatusOr<std::unique_ptr<FakeDevice>> Open(const reticle_host& host,
                                                          const reticle_device_config& config);
  ~FakeDevice();
  FakeDevice(const FakeDevice&) = delete;
  FakeDevice& operator=(const FakeDevice&) = delete;

  const reticle_capabilities& capabilities() const { return capabilities_; }

  // The verbs of the C table.
  absl::Status Submit(const reticle_work* work, size_t stride, size_t count, size_t* accepted);
  absl::Status Poll(reticle_completion* completions, size_t stride, size_t capacity, size_t* count);
  bool Arm();
  absl::Status Cancel(uint64_t sequence);
  absl::Status LoadAdapter(uint64_t adapter, const char* path, float scale);
  absl::Status UnloadAdapter(uint64_t adapter);
  reticle_stats Stats() const;
  reticle_health Health() const;
  absl::Status Reset();

 private:
  struct Adapter {
    uint64_t key = 0;
    uint32_t users = 0;
  };
  struct Counters {
    std::atomic<uint64_t> device_time_ns{0}, busy_ns{0}, prefill_tokens{0}, decode_tokens{0},
        steps{0}, resets{0}, adapter_swaps{0};
    std::atomic<uint32_t> sequences{0};
  };

  FakeDevice(const reticle_host& host, const FakeOptions& options);

  // ---- Taking orders ----
  absl::Status Accept(const reticle_work* from, size_t stride);
  absl::Status CheckRoom(const reticle_work& work, const FakeSequence* sequence);
  FakeSequence* Begin(const reticle_work& work);
  bool IsLost() const;
  bool IsHung() const;

  // ---- Steps ----
  void Advance(size_t wanted);
  void StartStep(uint64_t now);
  void FinishStep();
  void Run(FakeSequence& sequence);
  void RunItem(FakeSequence& sequence, const QueuedItem& item);
  void ScorePosition(FakeSequence& sequence, uint32_t token, uint32_t top_count);
  void Feed(FakeSequence& sequence, uint32_t token);
  bool FeedOwnToken(FakeSequence& sequence);
  void SampleToken(FakeSequence& sequence);
  uint64_t ReadState(const FakeSequence& sequence) const;
  void Activate(FakeSequence& sequence);

  // ---- Completions ----
  void Complete(FakeSequence& sequence, reticle_completion& completion,
                std::span<const reticle_token_logprob> top = {}, std::string_view message = {});
  void End(FakeSequence& sequence, uint32_t finish, int32_t status, std::string_view message);
  // Frees what the sequence holds; its record stays until its end is polled.
  void Close(FakeSequence& sequence);
  void SignalIn(uint64_t delay_ns);

  const reticle_host host_;
  const FakeOptions options_;
  reticle_capabilities capabilities_;
  std::shared_ptr<FakeControl> control_;
  int32_t timer_fd_ = -1;

  sampling::Sampler sampler_;
  std::vector<float> logits_;
  std::vector<uint64_t> entries_;  // paged: one word a position of a block
  CompletionQueue queue_{/*with_event_fd=*/false};
  absl::flat_hash_map<uint64_t, FakeSequence*> sequences_;
  std::vector<std::unique_ptr<FakeSequence>> pool_;
  std::vector<FakeSequence*> free_;
  std::vector<FakeSequence*> active_;
  std::vector<FakeSequence*> step_;  // of the step that runs; null: ended since
  absl::flat_hash_map<uint64_t, Adapter> adapters_;
  uint64_t current_adapter_ = 0;
  uint64_t kv_tokens_ = 0;  // slots mode
  bool step_runs_ = false;
  bool busy_ = false;  // since the last step, without a pause
  bool armed_ = false;
  uint64_t step_start_ns_ = 0;
  uint64_t step_end_ns_ = 0;
  uint64_t step_number_ = 0;
  uint64_t submit_number_ = 0;
  uint64_t item_number_ = 0;
  uint64_t token_number_ = 0;
  std::atomic<bool> hung_{false};
  std::atomic<bool> lost_{false};
  Counters counters_;
};

}  // namespace reticle::backends::fake

#endif  // RETICLE_BACKENDS_FAKE_FAKE_CORE_H_
