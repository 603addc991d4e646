// The time source that everything above the devices reads, so that tests and simulations choose the
// time.
#ifndef RETICLE_BASE_CLOCK_H_
#define RETICLE_BASE_CLOCK_H_

#include <atomic>
#include <cstdint>

namespace reticle {

// Thread-safe. Times are nanoseconds since an arbitrary origin and never go back.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual int64_t NowNanos() const = 0;

  // The monotonic clock of the system; lives for ever.
  static Clock& Monotonic();
};

// Seconds since the Unix epoch, for `created` fields and logs. Never used for durations.
int64_t UnixSeconds();

// A clock that moves only when told. Thread-safe.
class ManualClock : public Clock {
 public:
  explicit ManualClock(int64_t start_ns = 0) : now_ns_(start_ns) {}
  int64_t NowNanos() const override { return now_ns_.load(std::memory_order_acquire); }
  void AdvanceNanos(int64_t delta_ns) { now_ns_.fetch_add(delta_ns, std::memory_order_acq_rel); }

 private:
  std::atomic<int64_t> now_ns_;
};

}  // namespace reticle

#endif  // RETICLE_BASE_CLOCK_H_
