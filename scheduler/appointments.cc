#include "scheduler/appointments.h"

#include <algorithm>
#include <numeric>

namespace reticle::scheduler {
namespace {

// It looks at every appointment.
constexpr int64_t kPurgeEveryNs = 1'000'000'000;

}  // namespace

void AdmissionPace::OnAdmitted(int64_t arrival_ns, int64_t now_ns) {
  const int64_t last_ns = last_ns_.load(std::memory_order_relaxed);
  gaps_ns_[count_++ % gaps_ns_.size()] =
      std::max<int64_t>(now_ns - std::max(last_ns, arrival_ns), 0);
  const size_t known = std::min(count_, gaps_ns_.size());
  const auto end = gaps_ns_.begin() + static_cast<ptrdiff_t>(known);
  const int64_t sum = std::accumulate(gaps_ns_.begin(), end, int64_t{0});
  longest_ns_.store(std::max<int64_t>(*std::max_element(gaps_ns_.begin(), end), 1),
                    std::memory_order_relaxed);
  mean_ns_.store(std::max<int64_t>(sum / static_cast<int64_t>(known), 1),
                 std::memory_order_relaxed);
  last_ns_.store(now_ns, std::memory_order_relaxed);
}

int64_t AppointmentBook::Book(uint64_t who, uint32_t excess, const AdmissionPace& pace,
                              int64_t now_ns) {
  if (full_since_ns_ == 0) full_since_ns_ = now_ns;
  if (size_ >= kMost && now_ns >= next_purge_ns_) {
    next_purge_ns_ = now_ns + kPurgeEveryNs;
    absl::erase_if(due_ns_, [&](auto& entry) {
      DropLate(entry.second, now_ns - kShortGraceNs);
      return entry.second.empty();
    });
  }
  const auto found = due_ns_.find(who);
  if (found != due_ns_.end()) {
    Times& times = found->second;
    DropLate(times, now_ns - kGraceNs);
    // One that has come and could not be kept is replaced.
    if (!times.empty() && times.front() <= now_ns) {
      times.erase(times.begin());
      --size_;
    }
    if (times.size() >= kMostOfOne) return times.back() - now_ns;
  }
  int64_t due_ns = now_ns + kUnknownWaitNs;
  if (const int64_t mean_ns = pace.mean_gap_ns(); mean_ns != 0) {
    // A queue that has stood still since it was full may go on standing for as long.
    const int64_t still_ns = now_ns - std::max(pace.last_ns(), full_since_ns_);
    const int64_t first_ns = now_ns + std::max(pace.longest_gap_ns(), still_ns);
    const double come = attendance_.Share(now_ns) * static_cast<double>(attendance_.Ahead(now_ns));
    due_ns = std::max(first_ns + mean_ns * (int64_t{excess} - 1),
                      now_ns + mean_ns + static_cast<int64_t>(static_cast<double>(mean_ns) * come));
  }
  if (size_ < kMost) {
    Times& times = due_ns_[who];
    times.insert(std::upper_bound(times.begin(), times.end(), due_ns), due_ns);
    ++size_;
    attendance_.OnBooked(due_ns);
  }
  return due_ns - now_ns;
}

bool AppointmentBook::Redeem(uint64_t who, int64_t now_ns) {
  const auto found = due_ns_.find(who);
  if (found == due_ns_.end()) return false;
  Times& times = found->second;
  DropLate(times, now_ns - kGraceNs);
  const bool due = !times.empty() && times.front() <= now_ns;
  if (due) {
    times.erase(times.begin());
    --size_;
    attendance_.OnCame();
  }
  if (times.empty()) due_ns_.erase(found);
  return due;
}

void AppointmentBook::DropLate(Times& times, int64_t before_ns) {
  const auto end = std::lower_bound(times.begin(), times.end(), before_ns);
  size_ -= static_cast<size_t>(end - times.begin());
  times.erase(times.begin(), end);
}

}  // namespace reticle::scheduler
