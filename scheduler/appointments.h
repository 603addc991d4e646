// When somebody whom a full queue turned away may come back: an appointment, which is kept.
//
// The times told follow each other as fast as the queue was seen to move, so that those who were
// turned away come back one after the other. Who comes at his time is taken although the queue is
// full: then it was slower than expected, or others took the room. So a queue passes its limit by
// no more than the appointments that are made, and no time is told that the book has no room for.
#ifndef RETICLE_SCHEDULER_APPOINTMENTS_H_
#define RETICLE_SCHEDULER_APPOINTMENTS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>

#include "absl/container/flat_hash_map.h"

namespace reticle::scheduler {

// How fast a queue moves. Written by one thread, read by any.
class AdmissionPace {
 public:
  // A sequence that came at `arrival_ns` leaves the queue.
  void OnAdmitted(int64_t arrival_ns, int64_t now_ns);

  // Between two admissions of late, ns; 0: there was none yet. Sequences tend to be admitted in
  // bursts, so the two differ.
  int64_t longest_gap_ns() const { return longest_ns_.load(std::memory_order_relaxed); }
  int64_t mean_gap_ns() const { return mean_ns_.load(std::memory_order_relaxed); }
  int64_t last_ns() const { return last_ns_.load(std::memory_order_relaxed); }

 private:
  // The mean is of more than the longest: of several bursts, else the pace within one would count.
  static constexpr size_t kMeanOf = 64;
  static constexpr size_t kLongestOf = 16;
  std::array<int64_t, kMeanOf> gaps_ns_{};
  int64_t sum_ns_ = 0;
  size_t count_ = 0;
  std::atomic<int64_t> longest_ns_{0};
  std::atomic<int64_t> mean_ns_{0};
  std::atomic<int64_t> last_ns_{0};
};

// Not thread-safe.
class AppointmentBook {
 public:
  static constexpr size_t kMost = 16'384;
  // Of one tenant, but for tenant 0, which stands for everybody without a name.
  static constexpr size_t kMostOfTenant = 256;
  // How late one may come.
  static constexpr int64_t kGraceNs = 60'000'000'000;
  // Told while nobody knows how fast the queue moves.
  static constexpr int64_t kUnknownWaitNs = 1'000'000'000;

  // Gives `tenant` an appointment, `excess` (at least 1) places behind the end of the queue, and
  // returns how long to wait for it, at least 1 ns. Further ones of a tenant that has one follow
  // that one and delay nobody else's; beyond kMostOfTenant it is told the last. Nothing when the
  // book is full.
  std::optional<int64_t> Book(uint64_t tenant, uint32_t excess, const AdmissionPace& pace,
                              int64_t now_ns);
  // Whether `tenant` has an appointment by now. Uses it up.
  bool Redeem(uint64_t tenant, int64_t now_ns);
  // A request was taken without one: the queue is not full.
  void OnRoom() { full_since_ns_ = 0; }

  size_t size() const { return size_; }

 private:
  using Times = std::deque<int64_t>;  // ascending
  void DropLate(Times& times, int64_t now_ns);

  absl::flat_hash_map<uint64_t, Times> due_ns_;
  size_t size_ = 0;
  int64_t next_purge_ns_ = 0;
  int64_t last_due_ns_ = 0;
  int64_t full_since_ns_ = 0;  // 0: it has room
};

}  // namespace reticle::scheduler

#endif  // RETICLE_SCHEDULER_APPOINTMENTS_H_
