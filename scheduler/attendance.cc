#include "scheduler/attendance.h"

#include <algorithm>

namespace reticle::scheduler {
namespace {

// So many count as having come before anything was seen; the more, the later it believes that they
// do not.
constexpr double kBelief = 2;
// What was seen is forgotten by halves.
constexpr double kRemembered = 256;

}  // namespace

double Attendance::Share(int64_t now_ns) {
  Ahead(now_ns);
  while (!past_.empty() && past_.front() + kJudgedAfterNs <= now_ns) {
    past_.pop_front();
    if (++judged_ < kRemembered) continue;
    judged_ /= 2;
    came_ /= 2;
  }
  return std::min((came_ + kBelief) / (judged_ + kBelief), 1.0);
}

size_t Attendance::Ahead(int64_t now_ns) {
  while (!ahead_.empty() && ahead_.top() <= now_ns) {
    past_.push_back(ahead_.top());
    ahead_.pop();
  }
  return ahead_.size();
}

}  // namespace reticle::scheduler
