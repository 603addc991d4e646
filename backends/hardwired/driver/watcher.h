// Watches a card from a thread of its own: whether its process lives, whether its heart beats while
// it owes work, and a file of faults to inject.
#ifndef RETICLE_BACKENDS_HARDWIRED_DRIVER_WATCHER_H_
#define RETICLE_BACKENDS_HARDWIRED_DRIVER_WATCHER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "backends/hardwired/card/card_link.h"
#include "backends/hardwired/card/card_memory.h"
#include "backends/hardwired/card/fault.h"
#include "base/mutex.h"

namespace reticle::backends::hardwired {

// Why a device is lost.
enum class LossReason : uint32_t {
  kNone = 0,
  kGone,     // the card's process or firmware has ended
  kHang,     // no heartbeat
  kLink,     // records stay bad
  kMemory,   // an uncorrected memory error
  kImage,    // the image's seal does not match
  kRestart,  // it could not be started again
};
std::string LossText(LossReason reason);

// Thread-safe.
class Watcher {
 public:
  struct Options {
    int64_t watchdog_ns = 1'000'000'000;
    std::string fault_file;  // empty: none
    std::string device_name;
    uint32_t device_index = 0;
    bool watches_heartbeat = true;
    // True while the card owes something.
    std::function<bool()> owes_work;
    std::function<void(LossReason)> lose;
    std::function<void(const FaultSpec&)> inject;
  };

  static absl::StatusOr<std::unique_ptr<Watcher>> Start(Options options);
  ~Watcher();

  // Watches this card from now on. `hangup_fd` (-1: none) is read until the next call of Watch.
  void Watch(std::shared_ptr<CardMemory> memory, int hangup_fd);

 private:
  explicit Watcher(Options options) : options_(std::move(options)) {}
  void Run();
  void CheckHeartbeat(int64_t now_ns);
  void CheckFaultFile();
  void InjectLine(std::string_view line);
  void Wake();

  const Options options_;
  UniqueFd wake_;
  std::atomic<bool> stop_{false};
  Mutex mutex_;
  std::shared_ptr<CardMemory> memory_ RETICLE_GUARDED_BY(mutex_);
  UniqueFd hangup_ RETICLE_GUARDED_BY(mutex_);  // a duplicate
  uint64_t epoch_ RETICLE_GUARDED_BY(mutex_) = 0;

  // The thread's own.
  uint64_t heartbeat_ = 0;
  uint64_t heartbeat_epoch_ = 0;
  int64_t heartbeat_since_ns_ = 0;
  int64_t fault_file_time_ns_ = 0;
  int64_t fault_file_size_ = -1;
  std::thread thread_;
};

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_DRIVER_WATCHER_H_
