// The clock of a simulation: time stands still while host and devices have something to do, and
// then jumps to the next event. One thread owns the simulation:
//
//   auto clock = VirtualClock::Create("fairness");
//   // devices opened with the options clock=virtual, virtual_clock=fairness follow it;
//   // engines take *clock as their Clock
//   while (!done) {
//     bool any;
//     do {
//       any = false;
//       for (Engine& engine : engines) any |= engine.Step();
//     } while (any);
//     if (!clock->AdvanceToNextEvent(std::min(next_arrival, next_timer))) break;
//   }
//
// The same events at the same times give the same run, to the nanosecond. A device opened with
// clock=virtual and no virtual_clock has a time of its own, which a poll that finds nothing due
// advances to the device's next event: what `reticle serve --clock virtual` does.
#ifndef RETICLE_BACKENDS_HARDWIRED_TIMING_VIRTUAL_CLOCK_H_
#define RETICLE_BACKENDS_HARDWIRED_TIMING_VIRTUAL_CLOCK_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"

namespace reticle::backends::hardwired {

// NowNanos by any thread; the rest by the thread of the simulation.
class VirtualClock : public Clock {
 public:
  // Something with events of its own, such as a card.
  class Source {
   public:
    virtual ~Source() = default;
    // The time of its next event, INT64_MAX: none.
    virtual int64_t NextEventNanos() const = 0;
  };

  // Begins at 0. While it lives, devices find it by its name, which must be free (else null).
  static std::shared_ptr<VirtualClock> Create(std::string_view name);
  // Null when there is none.
  static std::shared_ptr<VirtualClock> Find(std::string_view name);
  ~VirtualClock() override;

  int64_t NowNanos() const override { return now_ns_.load(std::memory_order_acquire); }
  // The earliest event of all sources; INT64_MAX: none.
  int64_t NextEventNanos() const;
  // Moves to the earliest event of all sources or to `limit_ns`, whichever is first, never back.
  // False, and the time stands, when there is neither (limit_ns is INT64_MAX).
  bool AdvanceToNextEvent(int64_t limit_ns = INT64_MAX);

  // `source` must be removed before it goes.
  void AddSource(const Source* source);
  void RemoveSource(const Source* source);

 private:
  explicit VirtualClock(std::string_view name) : name_(name) {}

  const std::string name_;
  std::atomic<int64_t> now_ns_{0};
  std::vector<const Source*> sources_;
};

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_TIMING_VIRTUAL_CLOCK_H_
