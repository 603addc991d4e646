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

std::optional<int64_t> AppointmentBook::Book(const Asker& asker, uint32_t excess,
                                             const AdmissionPace& pace, int64_t now_ns) {
  if (full_since_ns_ == 0) full_since_ns_ = now_ns;
  if (size_ >= kMost && now_ns >= next_purge_ns_) {
    next_purge_ns_ = now_ns + kPurgeEveryNs;
    Purge(now_ns);
  }
  if (asker.tenant != 0) {
    Times& ahead = ahead_[asker.tenant];
    ahead.erase(ahead.begin(), std::upper_bound(ahead.begin(), ahead.end(), now_ns));
    if (!ahead.empty() && ahead.size() >= asker.most) return ahead.back() - now_ns;
  }
  if (size_ >= kMost) return std::nullopt;
  int64_t due_ns = now_ns + kUnknownWaitNs;
  if (const int64_t mean_ns = pace.mean_gap_ns(); mean_ns != 0) {
    // A queue that has stood still since it was full may go on standing for as long.
    const int64_t still_ns = now_ns - std::max(pace.last_ns(), full_since_ns_);
    const int64_t first_ns = now_ns + std::max(pace.longest_gap_ns(), still_ns);
    const double come = attendance_.Share(now_ns) * static_cast<double>(attendance_.Ahead(now_ns));
    due_ns = std::max(first_ns + mean_ns * (int64_t{excess} - 1),
                      now_ns + mean_ns + static_cast<int64_t>(static_cast<double>(mean_ns) * come));
  }
  const auto add = [due_ns](Times& times) {
    times.insert(std::upper_bound(times.begin(), times.end(), due_ns), due_ns);
  };
  add(entries_[{asker.tenant, asker.question}]);
  if (asker.tenant != 0) add(ahead_[asker.tenant]);
  attendance_.OnBooked(due_ns);
  ++size_;
  return due_ns - now_ns;
}

bool AppointmentBook::Redeem(const Asker& asker, int64_t now_ns) {
  const auto found = entries_.find({asker.tenant, asker.question});
  if (found == entries_.end()) return false;
  Times& times = found->second;
  DropBefore(times, now_ns - kGraceNs);
  const bool due = !times.empty() && times.front() <= now_ns;
  if (due) {
    times.erase(times.begin());
    --size_;
    attendance_.OnCame();
  }
  if (times.empty()) entries_.erase(found);
  return due;
}

void AppointmentBook::Purge(int64_t now_ns) {
  absl::erase_if(entries_, [&](auto& entry) {
    DropBefore(entry.second, now_ns - kShortGraceNs);
    return entry.second.empty();
  });
  absl::erase_if(ahead_, [&](const auto& entry) {
    return entry.second.empty() || entry.second.back() <= now_ns;
  });
}

void AppointmentBook::DropBefore(Times& times, int64_t before_ns) {
  const auto end = std::lower_bound(times.begin(), times.end(), before_ns);
  size_ -= static_cast<size_t>(end - times.begin());
  times.erase(times.begin(), end);
}

}  // namespace reticle::scheduler
