// How long a thread that has nothing to do looks again before it sleeps.
//
// A sleeping thread is 35-65 us late, a spinning one takes a core. So it spins for the whole limit
// while that catches the next work, and for less and less of it when work comes later than that: a
// server with nothing or little to do sleeps.
#ifndef RETICLE_SCHEDULER_ADAPTIVE_SPIN_H_
#define RETICLE_SCHEDULER_ADAPTIVE_SPIN_H_

#include <algorithm>
#include <cstdint>
#include <thread>

namespace reticle::scheduler {

// One for each thread, not thread-safe. Times are ns on any one clock.
class AdaptiveSpin {
 public:
  // `limit_ns` 0: never spins.
  AdaptiveSpin(int64_t limit_ns, int64_t now_ns)
      : limit_ns_(limit_ns), budget_ns_(limit_ns), idle_since_ns_(now_ns) {}

  // There was work.
  void OnWork(int64_t now_ns) {
    // One after a sleep that spinning would have spared brings the whole budget back.
    if (slept_ && now_ns - idle_since_ns_ <= limit_ns_) budget_ns_ = limit_ns_;
    slept_ = false;
    idle_since_ns_ = now_ns;
  }
  // There was none: whether to look again.
  bool Spins(int64_t now_ns) const { return now_ns - idle_since_ns_ < budget_ns_; }
  // The thread goes to sleep, having spun in vain.
  void OnSleep() {
    if (slept_) return;
    slept_ = true;
    budget_ns_ = std::max(budget_ns_ / 2, limit_ns_ / kLeastShare);
  }
  int64_t budget_ns() const { return budget_ns_; }

  // `limit_ns`, or 0 on a machine with one core, where spinning keeps what it waits for from
  // running.
  static int64_t OnThisMachine(int64_t limit_ns) {
    return std::thread::hardware_concurrency() > 1 ? limit_ns : 0;
  }

 private:
  static constexpr int64_t kLeastShare = 16;

  const int64_t limit_ns_;
  int64_t budget_ns_;
  int64_t idle_since_ns_;
  bool slept_ = false;
};

// Tells the core that this is a spin.
inline void SpinPause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace reticle::scheduler

#endif  // RETICLE_SCHEDULER_ADAPTIVE_SPIN_H_
