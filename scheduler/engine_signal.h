// How other threads tell an engine that there is something to do, and wake the thread that steps it
// only when it sleeps. Shared by the engine and its streams, so either may go first.
#ifndef RETICLE_SCHEDULER_ENGINE_SIGNAL_H_
#define RETICLE_SCHEDULER_ENGINE_SIGNAL_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <utility>

#include "base/mutex.h"

namespace reticle::scheduler {

// All state is in one atomic word, so that a notification can fall neither between the engine's
// last look and its sleep, nor be sent twice for one sleep.
class EngineSignal {
 public:
  static constexpr uint32_t kSubmitted = 1u << 0;
  static constexpr uint32_t kCancelled = 1u << 1;
  static constexpr uint32_t kRoom = 1u << 2;
  static constexpr uint32_t kControl = 1u << 3;

  // ---- any thread
  // `wake` is called by notifying threads, under a lock: after SetWake(nullptr) has returned no
  // call is under way.
  void SetWake(std::function<void()> wake) {
    MutexLock lock(mutex_);
    wake_ = std::move(wake);
  }
  void Notify(uint32_t bits) {
    if ((bits_.fetch_or(bits, std::memory_order_acq_rel) & kAsleep) == 0) return;
    if ((bits_.fetch_and(~kAsleep, std::memory_order_acq_rel) & kAsleep) == 0) return;
    MutexLock lock(mutex_);
    if (wake_) wake_();
  }

  // ---- engine thread
  // What was notified since the last call; awake from now on.
  uint32_t Take() {
    if (bits_.load(std::memory_order_relaxed) == 0) return 0;
    return bits_.exchange(0, std::memory_order_acq_rel) & ~kAsleep;
  }
  bool Pending() const { return (bits_.load(std::memory_order_acquire) & ~kAsleep) != 0; }
  // From now on a notification wakes. False when one is there already.
  bool FallAsleep() {
    uint32_t expected = 0;
    return bits_.compare_exchange_strong(expected, kAsleep, std::memory_order_acq_rel) ||
           expected == kAsleep;
  }

 private:
  static constexpr uint32_t kAsleep = 1u << 31;
  std::atomic<uint32_t> bits_{0};
  Mutex mutex_;
  std::function<void()> wake_ RETICLE_GUARDED_BY(mutex_);
};

}  // namespace reticle::scheduler

#endif  // RETICLE_SCHEDULER_ENGINE_SIGNAL_H_
