// The driver of the emulated card behind its C table: checks orders, mirrors sequences, reads
// completions, and notices when the card is lost. hardwired_device.h has the options.
#ifndef RETICLE_BACKENDS_HARDWIRED_DRIVER_HARDWIRED_CORE_H_
#define RETICLE_BACKENDS_HARDWIRED_DRIVER_HARDWIRED_CORE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "backends/abi/driver_support.h"
#include "backends/abi/reticle_device.h"
#include "backends/abi/work_check.h"
#include "backends/hardwired/card/card_link.h"
#include "backends/hardwired/card/completions.h"
#include "backends/hardwired/card/orders.h"
#include "backends/hardwired/driver/connection.h"
#include "backends/hardwired/driver/driver_options.h"
#include "backends/hardwired/driver/watcher.h"
#include "base/mutex.h"

namespace reticle::backends::hardwired {

// Threads as in the ABI: capabilities, Stats, Health and Inject by any thread, the rest by one.
class HardwiredDevice {
 public:
  // Among the OpenDevices from then on until it is destroyed.
  static absl::StatusOr<std::unique_ptr<HardwiredDevice>> Open(const reticle_host& host,
                                                               const reticle_device_config& config);
  ~HardwiredDevice();
  HardwiredDevice(const HardwiredDevice&) = delete;
  HardwiredDevice& operator=(const HardwiredDevice&) = delete;

  const reticle_capabilities& capabilities() const { return capabilities_; }
  const std::string& name() const { return options_.name; }
  uint32_t device_index() const { return options_.device_index; }

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

  bool Inject(const FaultSpec& fault) { return connection_->fault_port().Inject(fault); }

 private:
  struct HostSequence {
    SequenceView view;
    uint64_t kv_tokens = 0;
    uint64_t device_time_ns = 0;
    uint64_t tag = 0;
    uint32_t prefills = 0;  // items whose PREFILL is to come
    uint32_t scores = 0;    // PROMPT_LOGPROBs that may come
    bool is_cancelled = false;
    bool is_owed = false;  // counted in owed_
  };
  struct Adapter {
    std::string path;
    float scale = 0;
    uint32_t users = 0;
  };
  struct Counters {
    uint64_t device_time_ns = 0, busy_ns = 0, prefill_tokens = 0, decode_tokens = 0, steps = 0,
             energy_uj = 0, stretched_ns = 0, corrected_errors = 0, uncorrected_errors = 0,
             adapter_swaps = 0;
  };

  HardwiredDevice(const reticle_host& host, DriverOptions options);

  absl::Status Start();
  int64_t Now() const { return static_cast<int64_t>(host_.now_ns(host_.context)); }

  // When an order is sent; simulated time is the card's to tell.
  int64_t Stamp() const { return is_virtual_ ? INT64_MAX : Now(); }

  // ---- Loss
  bool IsLost();
  absl::Status LossStatus() const;
  // First reason wins. Any thread.
  void Lose(LossReason reason);
  static LossReason ReasonOfCard(const CardRegisters& registers);
  // Inline cards have no watcher: looks at the heartbeat while work is owed.
  void WatchInline();
  bool OwesWork() const;

  // ---- Orders
  absl::Status Accept(const reticle_work* from, size_t stride);
  absl::Status CheckRoom(const reticle_work& work, const HostSequence* sequence) const;
  HostSequence* Begin(uint64_t id);
  void FlushCancels();
  absl::Status RunAdapterOrder(OrderKind kind, uint64_t adapter, std::string_view path,
                               float scale);

  // ---- Completions
  void Drain(size_t wanted);
  void OnCompletion(const ReadCompletion& read);
  bool IsSane(const ReadCompletion& read, const HostSequence& sequence) const;
  void OnEnd(HostSequence& sequence);
  // Counts the sequence in or out of owed_.
  void CountOwed(HostSequence& sequence);
  // When an inline card has something for an armed host, ns from now; INT64_MAX: nothing is coming.
  int64_t InlineDelay() const;
  void SignalInline();

  Counters ReadCounters(const CardRegisters& registers) const RETICLE_REQUIRES(mutex_);

  const reticle_host host_;
  const DriverOptions options_;
  reticle_capabilities capabilities_{};
  UniqueFd event_fd_;
  std::unique_ptr<Connection> connection_;

  // Of the card as it was started last; the driving thread's.
  std::unique_ptr<OrderWriter> orders_;
  std::unique_ptr<CompletionReader> completions_;
  CardRegisters* registers_ = nullptr;
  bool is_virtual_ = false;
  int64_t resend_since_ns_ = 0;
  uint64_t link_errors_before_ = 0;
  uint64_t heartbeat_ = 0;
  int64_t heartbeat_since_ns_ = 0;  // 0: it has just beaten

  CompletionQueue queue_{/*with_event_fd=*/false};
  absl::flat_hash_map<uint64_t, HostSequence*> sequences_;
  std::vector<std::unique_ptr<HostSequence>> pool_;
  std::vector<HostSequence*> free_;
  std::vector<uint64_t> cancels_;  // that the ring had no room for
  absl::flat_hash_map<uint64_t, Adapter> adapters_;
  uint64_t kv_tokens_ = 0;
  bool armed_ = false;  // inline
  bool adapter_answered_ = false;
  absl::Status adapter_status_;

  std::atomic<uint32_t> lost_{0};  // a LossReason
  std::atomic<uint32_t> alive_{0};
  std::atomic<uint32_t> owed_{0};  // sequences that a completion is to come for
  std::atomic<uint64_t> link_errors_{0};
  std::atomic<int64_t> last_link_error_ns_{0};
  std::atomic<uint64_t> resets_{0};

  mutable Mutex mutex_;
  // For Stats and Health, which other threads may call during a reset.
  std::shared_ptr<CardMemory> memory_ RETICLE_GUARDED_BY(mutex_);
  mutable Counters before_ RETICLE_GUARDED_BY(mutex_);  // of cards before the last reset

  std::unique_ptr<Watcher> watcher_;
};

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_DRIVER_HARDWIRED_CORE_H_
