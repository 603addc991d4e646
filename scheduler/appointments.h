// When somebody whom a full queue turned away may come back: an appointment, which is kept.
//
// The times told follow each other as fast as the queue was seen to move, so that those who were
// turned away and come back (attendance.h) do so one after the other. Who comes at his time is
// taken although the queue is full: then it was slower than expected, or others took the room. So a
// queue passes its limit by no more than the appointments that are made, and no time is told that
// the book has no room for.
#ifndef RETICLE_SCHEDULER_APPOINTMENTS_H_
#define RETICLE_SCHEDULER_APPOINTMENTS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "scheduler/attendance.h"

namespace reticle::scheduler {

// How fast a queue moves. Written by one thread, read by any.
class AdmissionPace {
 public:
  // A sequence that came at `arrival_ns` leaves the queue, and another one waits behind it: else
  // the pace is not the queue's but that at which requests come.
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

// Who asks for an appointment: whoever comes back with the same under the same name. A new request
// is another's, or it would take the place of one that waited.
struct Asker {
  uint64_t tenant = 0;  // 0: nobody known
  // How many a known one has ahead at a time.
  uint32_t most = 1;
  uint64_t question = 0;  // tells its requests apart: a hash of what is asked
};

// Not thread-safe.
class AppointmentBook {
 public:
  static constexpr size_t kMost = 16'384;
  // How late one may come, and how late when the book is full.
  static constexpr int64_t kGraceNs = 60'000'000'000;
  static constexpr int64_t kShortGraceNs = Attendance::kJudgedAfterNs;
  // Told while nobody knows how fast the queue moves.
  static constexpr int64_t kUnknownWaitNs = 1'000'000'000;

  // Gives `asker` an appointment, `excess` (at least 1) places behind the end of the queue, and
  // returns how long to wait for it, at least 1 ns. Who has the most that he may have is told the
  // last of them. Nothing when the book is full.
  std::optional<int64_t> Book(const Asker& asker, uint32_t excess, const AdmissionPace& pace,
                              int64_t now_ns);
  // Whether `asker` has an appointment by now. Uses it up.
  bool Redeem(const Asker& asker, int64_t now_ns);
  // A request was taken without one: the queue is not full.
  void OnRoom() { full_since_ns_ = 0; }

  size_t size() const { return size_; }

 private:
  using Times = absl::InlinedVector<int64_t, 1>;  // ascending
  using Name = std::pair<uint64_t, uint64_t>;     // tenant, question
  void Purge(int64_t now_ns);
  void DropBefore(Times& times, int64_t before_ns);

  absl::flat_hash_map<Name, Times> entries_;
  absl::flat_hash_map<uint64_t, Times> ahead_;  // of known tenants; may hold what has passed
  Attendance attendance_;
  size_t size_ = 0;
  int64_t next_purge_ns_ = 0;
  int64_t full_since_ns_ = 0;  // 0: it has room
};

}  // namespace reticle::scheduler

#endif  // RETICLE_SCHEDULER_APPOINTMENTS_H_
