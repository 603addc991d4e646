#include "scheduler/appointments.h"

#include <algorithm>

namespace reticle::scheduler {
namespace {

// It looks at every appointment.
constexpr int64_t kPurgeEveryNs = 1'000'000'000;
constexpr int kLooksForNobody = 64;

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

AppointmentBook::Name AppointmentBook::NameOf(const Asker& asker) {
  if (asker.tenant != 0) return {asker.tenant, nullptr};
  return {0, asker.connection.lock().get()};
}

void AppointmentBook::Add(const Name& name, Entry& entry, int64_t due_ns) {
  std::deque<int64_t>& times = entry.due_ns;
  times.insert(std::upper_bound(times.begin(), times.end(), due_ns), due_ns);
  if (name.tenant == 0) nameless_.emplace(due_ns, name.connection);
  ++size_;
}

void AppointmentBook::DropFirst(const Name& name, Entry& entry) {
  if (name.tenant == 0) nameless_.erase(nameless_.find({entry.due_ns.front(), name.connection}));
  entry.due_ns.pop_front();
  --size_;
}

void AppointmentBook::DropLate(const Name& name, Entry& entry, int64_t now_ns) {
  while (!entry.due_ns.empty() && entry.due_ns.front() + kGraceNs < now_ns) DropFirst(name, entry);
}

std::optional<int64_t> AppointmentBook::Book(const Asker& asker, uint32_t excess,
                                             const AdmissionPace& pace, int64_t now_ns) {
  if (full_since_ns_ == 0) full_since_ns_ = now_ns;
  if (size_ >= kMost && now_ns >= next_purge_ns_) {
    next_purge_ns_ = now_ns + kPurgeEveryNs;
    absl::erase_if(entries_, [&](auto& entry) {
      DropLate(entry.first, entry.second, now_ns);
      return entry.second.due_ns.empty();
    });
  }
  const Name name = NameOf(asker);
  if (const auto found = entries_.find(name); found != entries_.end()) {
    Entry& entry = found->second;
    DropLate(name, entry, now_ns);
    const bool named = name.tenant != 0 || name.connection != nullptr;
    if (named && entry.due_ns.size() >= asker.most && !entry.due_ns.empty()) {
      return std::max<int64_t>(entry.due_ns.back() - now_ns, 1);
    }
  }
  if (size_ >= kMost) return std::nullopt;
  int64_t due_ns = now_ns + kUnknownWaitNs;
  if (const int64_t mean_ns = pace.mean_gap_ns(); mean_ns != 0) {
    // A queue that has stood still since it was full may go on standing for as long.
    const int64_t still_ns = now_ns - std::max(pace.last_ns(), full_since_ns_);
    const int64_t first_ns = now_ns + std::max(pace.longest_gap_ns(), still_ns);
    due_ns = std::max(first_ns + mean_ns * (int64_t{excess} - 1), last_due_ns_ + mean_ns);
    last_due_ns_ = due_ns;
  }
  Entry& entry = entries_[name];
  entry.connection = asker.connection;
  Add(name, entry, due_ns);
  return due_ns - now_ns;
}

bool AppointmentBook::Redeem(const Asker& asker, int64_t now_ns) {
  const Name name = NameOf(asker);
  if (const auto found = entries_.find(name); found != entries_.end()) {
    Entry& entry = found->second;
    DropLate(name, entry, now_ns);
    const bool due = !entry.due_ns.empty() && entry.due_ns.front() <= now_ns;
    if (due) DropFirst(name, entry);
    const bool waits = !entry.due_ns.empty();
    if (!waits) entries_.erase(found);
    if (due) return true;
    if (waits && name != Name()) return false;
  }
  return name.tenant == 0 && RedeemOfNobody(now_ns);
}

bool AppointmentBook::RedeemOfNobody(int64_t now_ns) {
  // Whoever keeps his time comes soon after it.
  auto at = nameless_.upper_bound({now_ns, reinterpret_cast<const void*>(UINTPTR_MAX)});
  for (int looks = 0; looks < kLooksForNobody && at != nameless_.begin(); ++looks) {
    --at;
    const Name name{0, at->second};
    const auto found = entries_.find(name);
    Entry& entry = found->second;
    if (!entry.connection.expired()) continue;
    DropFirst(name, entry);
    if (entry.due_ns.empty()) entries_.erase(found);
    return true;
  }
  return false;
}

}  // namespace reticle::scheduler
