#include "scheduler/appointments.h"

#include <algorithm>

namespace reticle::scheduler {
namespace {

// It looks at every appointment.
constexpr int64_t kPurgeEveryNs = 1'000'000'000;
constexpr int kMostLooks = 64;

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
  return {asker.tenant, asker.connection.lock().get()};
}

void AppointmentBook::DropFirst(const Name& name, Entry& entry) {
  const auto tenant = tenants_.find(name.tenant);
  tenant->second.erase(tenant->second.find(Slot{entry.due_ns.front(), name.connection}));
  if (tenant->second.empty()) tenants_.erase(tenant);
  entry.due_ns.pop_front();
  --size_;
}

void AppointmentBook::DropLate(const Name& name, Entry& entry, int64_t now_ns) {
  while (!entry.due_ns.empty() && entry.due_ns.front() + kGraceNs < now_ns) DropFirst(name, entry);
}

void AppointmentBook::DropLateOf(uint64_t tenant, int64_t now_ns) {
  for (;;) {
    const auto found = tenants_.find(tenant);
    if (found == tenants_.end()) return;
    const Slot& first = *found->second.begin();
    if (first.due_ns + kGraceNs >= now_ns) return;
    const Name name{tenant, first.connection};
    const auto entry = entries_.find(name);
    DropLate(name, entry->second, now_ns);
    if (entry->second.due_ns.empty()) entries_.erase(entry);
  }
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
  DropLateOf(asker.tenant, now_ns);
  const Name name = NameOf(asker);
  std::optional<int64_t> last_ns;
  if (asker.tenant != 0) {
    const auto found = tenants_.find(asker.tenant);
    if (found != tenants_.end() && found->second.size() >= asker.most) {
      last_ns = found->second.rbegin()->due_ns;
    }
  } else if (const auto found = entries_.find(name); name.connection != nullptr &&
                                                     found != entries_.end() &&
                                                     found->second.due_ns.size() >= asker.most) {
    last_ns = found->second.due_ns.back();
  }
  if (last_ns.has_value()) {
    // Those that are due are others', who may still come.
    return *last_ns > now_ns ? std::optional(*last_ns - now_ns) : std::nullopt;
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
  entry.due_ns.insert(std::upper_bound(entry.due_ns.begin(), entry.due_ns.end(), due_ns), due_ns);
  tenants_[name.tenant].insert(Slot{due_ns, name.connection});
  ++size_;
  return due_ns - now_ns;
}

bool AppointmentBook::Redeem(const Asker& asker, bool lends, int64_t now_ns) {
  const Name name = NameOf(asker);
  const auto found = name.connection != nullptr ? entries_.find(name) : entries_.end();
  if (found != entries_.end()) {
    Entry& entry = found->second;
    DropLate(name, entry, now_ns);
    const bool due = !entry.due_ns.empty() && entry.due_ns.front() <= now_ns;
    if (due) DropFirst(name, entry);
    if (entry.due_ns.empty()) entries_.erase(found);
    if (due) return true;
  }
  return RedeemOther(name.tenant, lends, now_ns);
}

bool AppointmentBook::RedeemOther(uint64_t tenant, bool lends, int64_t now_ns) {
  const auto found = tenants_.find(tenant);
  if (found == tenants_.end()) return false;
  // Whoever keeps his time comes soon after it.
  auto at = found->second.upper_bound(Slot{now_ns, reinterpret_cast<const void*>(UINTPTR_MAX)});
  std::optional<Name> left;
  for (int looks = 0; looks < kMostLooks && at != found->second.begin(); ++looks) {
    --at;
    if (at->due_ns + kGraceNs < now_ns) break;
    if (lends && !at->lent) return at->lent = true;
    const Name name{tenant, at->connection};
    if (!left.has_value() && entries_.find(name)->second.connection.expired()) left = name;
  }
  if (!left.has_value()) return false;
  const auto entry = entries_.find(*left);
  DropFirst(*left, entry->second);
  if (entry->second.due_ns.empty()) entries_.erase(entry);
  return true;
}

}  // namespace reticle::scheduler
