// How many of those who were told a time to come back do so. Most programs that are turned away
// never return, or ask somebody else: times that allowed for all of them would grow without end.
#ifndef RETICLE_SCHEDULER_ATTENDANCE_H_
#define RETICLE_SCHEDULER_ATTENDANCE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <queue>
#include <vector>

namespace reticle::scheduler {

// Not thread-safe.
class Attendance {
 public:
  // Whoever has not come by then is counted as one who does not come. Longer than the second by
  // which those are late who read whole seconds only.
  static constexpr int64_t kJudgedAfterNs = 1'200'000'000;

  void OnBooked(int64_t due_ns) { ahead_.push(due_ns); }
  void OnCame() { came_ += 1; }

  // Of late, in (0, 1]; 1 while nothing is known.
  double Share(int64_t now_ns);
  // Appointments whose time has not come.
  size_t Ahead(int64_t now_ns);

 private:
  std::priority_queue<int64_t, std::vector<int64_t>, std::greater<>> ahead_;
  std::deque<int64_t> past_;  // not judged yet, ascending
  double came_ = 0;
  double judged_ = 0;
};

}  // namespace reticle::scheduler

#endif  // RETICLE_SCHEDULER_ATTENDANCE_H_
