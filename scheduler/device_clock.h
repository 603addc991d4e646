// A device's clock on the host's: when something happened there, as told here.
//
// What a device reports at `device_ns` was there before the host saw it, so every report bounds the
// difference of the clocks from one side; the smallest of the last seconds is taken. A delay that
// even the quickest report has is therefore not seen; for one that is polled by a spinning thread
// that is the time of a poll.
#ifndef RETICLE_SCHEDULER_DEVICE_CLOCK_H_
#define RETICLE_SCHEDULER_DEVICE_CLOCK_H_

#include <algorithm>
#include <cstdint>
#include <limits>

namespace reticle::scheduler {

// Not thread-safe.
class DeviceClock {
 public:
  // The host's time of `device_ns`, seen at `now_ns` or before; never later than `now_ns`.
  int64_t ToHost(uint64_t device_ns, int64_t now_ns) {
    const int64_t offset = now_ns - static_cast<int64_t>(device_ns);
    if (now_ns - window_begin_ns_ >= kWindowNs) {
      // Clocks drift apart; what was measured long ago is forgotten.
      previous_ = now_ns - window_begin_ns_ < 2 * kWindowNs ? current_ : kNone;
      current_ = kNone;
      window_begin_ns_ = now_ns;
    }
    current_ = std::min(current_, offset);
    return static_cast<int64_t>(device_ns) + std::min(previous_, current_);
  }
  // The device began anew: so may its clock have done.
  void Forget() { previous_ = current_ = kNone; }

 private:
  static constexpr int64_t kWindowNs = 1'000'000'000;
  static constexpr int64_t kNone = std::numeric_limits<int64_t>::max();

  int64_t window_begin_ns_ = 0;
  int64_t previous_ = kNone;
  int64_t current_ = kNone;
};

}  // namespace reticle::scheduler

#endif  // RETICLE_SCHEDULER_DEVICE_CLOCK_H_
