#include "scheduler/appointments.h"

#include <algorithm>

namespace reticle::scheduler {
namespace {

// It looks at every appointment.
constexpr int64_t kPurgeEveryNs = 1'000'000'000;

}  // namespace

void AdmissionPace::OnAdmitted(int64_t arrival_ns, int64_t now_ns) {
  const int64_t last_ns = last_ns_.load(std::memory_order_relaxed);
  const int64_t gap_ns = std::max<int64_t>(now_ns - std::max(last_ns, arrival_ns), 0);
  int64_t& oldest_ns = gaps_ns_[count_ % kMeanOf];
  sum_ns_ += gap_ns - oldest_ns;
  oldest_ns = gap_ns;
  ++count_;
  int64_t longest_ns = 1;
  for (size_t back = 1; back <= std::min(count_, kLongestOf); ++back) {
    longest_ns = std::max(longest_ns, gaps_ns_[(count_ - back) % kMeanOf]);
  }
  const auto known = static_cast<int64_t>(std::min(count_, kMeanOf));
  longest_ns_.store(longest_ns, std::memory_order_relaxed);
  mean_ns_.store(std::max<int64_t>(sum_ns_ / known, 1), std::memory_order_relaxed);
  last_ns_.store(now_ns, std::memory_order_relaxed);
}

std::optional<int64_t> AppointmentBook::Book(uint64_t tenant, uint32_t excess,
                                             const AdmissionPace& pace, int64_t now_ns) {
  if (full_since_ns_ == 0) full_since_ns_ = now_ns;
  if (size_ >= kMost && now_ns >= next_purge_ns_) {
    next_purge_ns_ = now_ns + kPurgeEveryNs;
    absl::erase_if(due_ns_, [&](auto& entry) {
      DropLate(entry.second, now_ns);
      return entry.second.empty();
    });
  }
  if (const auto found = due_ns_.find(tenant); found != due_ns_.end()) {
    DropLate(found->second, now_ns);
    if (tenant != 0 && found->second.size() >= kMostOfTenant) {
      return std::max<int64_t>(found->second.back() - now_ns, 1);
    }
  }
  if (size_ >= kMost) return std::nullopt;
  Times& times = due_ns_[tenant];
  int64_t due_ns = now_ns + kUnknownWaitNs;
  if (const int64_t mean_ns = pace.mean_gap_ns(); mean_ns != 0) {
    // A queue that has stood still since it was full may go on standing for as long.
    const int64_t still_ns = now_ns - std::max(pace.last_ns(), full_since_ns_);
    const int64_t first_ns = now_ns + std::max(pace.longest_gap_ns(), still_ns);
    if (tenant != 0 && !times.empty()) {
      due_ns = std::max(first_ns, times.back() + mean_ns);
    } else {
      due_ns = std::max(first_ns + mean_ns * (int64_t{excess} - 1), last_due_ns_ + mean_ns);
      last_due_ns_ = due_ns;
    }
  }
  times.insert(std::upper_bound(times.begin(), times.end(), due_ns), due_ns);
  ++size_;
  return due_ns - now_ns;
}

bool AppointmentBook::Redeem(uint64_t tenant, int64_t now_ns) {
  const auto found = due_ns_.find(tenant);
  if (found == due_ns_.end()) return false;
  Times& times = found->second;
  DropLate(times, now_ns);
  const bool due = !times.empty() && times.front() <= now_ns;
  if (due) {
    times.pop_front();
    --size_;
  }
  if (times.empty()) due_ns_.erase(found);
  return due;
}

void AppointmentBook::DropLate(Times& times, int64_t now_ns) {
  while (!times.empty() && times.front() + kGraceNs < now_ns) {
    times.pop_front();
    --size_;
  }
}

}  // namespace reticle::scheduler
