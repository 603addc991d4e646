#include "scheduler/fairness.h"

#include <algorithm>

#include "scheduler/sequence.h"

namespace reticle::scheduler {
namespace {

// Tenants of one priority that are remembered, unless more of them have sequences.
constexpr size_t kMaxAccounts = 4096;

// What admitting it will add to its tenant's counter; nothing the second time.
double CostOf(const Sequence& sequence) {
  return sequence.admitted_ns >= 0 ? 0.0 : kInputWeight * sequence.prompt_tokens();
}

}  // namespace

bool ArrivedBefore::operator()(const Sequence* a, const Sequence* b) const {
  return a->order != b->order ? a->order < b->order : a->choice < b->choice;
}

FairAccount* FairQueue::Account(int32_t priority, uint64_t tenant) {
  std::unique_ptr<FairClass>& in = classes_[priority];
  if (in == nullptr) in = std::make_unique<FairClass>();
  if (in->accounts.size() >= kMaxAccounts && !in->accounts.contains(tenant)) {
    absl::erase_if(in->accounts, [](const auto& entry) {
      return entry.second->waiting.empty() && entry.second->running == 0;
    });
  }
  std::unique_ptr<FairAccount>& account = in->accounts[tenant];
  if (account == nullptr) {
    account = std::make_unique<FairAccount>();
    account->tenant = tenant;
  }
  return account.get();
}

void FairQueue::Add(Sequence* sequence) {
  FairClass& in = *classes_.at(sequence->request().priority);
  FairAccount& account = *sequence->account;
  ++size_;
  if (account.waiting.empty()) {
    double least = in.left_at;
    for (size_t i = 0; i < in.backlogged.size(); ++i) {
      least = i == 0 ? in.backlogged[i]->served : std::min(least, in.backlogged[i]->served);
    }
    account.served = std::max(account.served, least);
    if (account.running == 0) ++in.active;
    in.backlogged.push_back(&account);
  }
  account.waiting.insert(sequence);
}

void FairQueue::Remove(Sequence* sequence) {
  FairClass& in = *classes_.at(sequence->request().priority);
  FairAccount& account = *sequence->account;
  --size_;
  account.waiting.erase(sequence);
  if (!account.waiting.empty()) return;
  in.left_at = account.served;
  std::erase(in.backlogged, &account);
  if (account.running > 0) return;
  --in.active;
}

void FairQueue::OnRunning(Sequence* sequence) {
  FairAccount& account = *sequence->account;
  if (account.waiting.empty() && account.running == 0) {
    ++classes_.at(sequence->request().priority)->active;
  }
  ++account.running;
}

void FairQueue::OnNotRunning(Sequence* sequence) {
  FairAccount& account = *sequence->account;
  --account.running;
  if (account.running > 0 || !account.waiting.empty()) return;
  --classes_.at(sequence->request().priority)->active;
}

std::vector<const Sequence*> FairQueue::All() const {
  std::vector<const Sequence*> all;
  for (const auto& [priority, in] : classes_) {
    for (const FairAccount* account : in->backlogged) {
      all.insert(all.end(), account->waiting.begin(), account->waiting.end());
    }
  }
  return all;
}

bool FairQueue::Contended(int32_t priority) const {
  const auto found = classes_.find(priority);
  return found != classes_.end() && found->second->active > 1;
}

uint32_t FairQueue::Share(int32_t priority, uint32_t slots) const {
  const auto found = classes_.find(priority);
  const uint32_t active = found == classes_.end() ? 1 : std::max(found->second->active, 1u);
  return std::max(slots / active, 1u);
}

FairQueue::Cursor::Cursor(const FairQueue& queue) : queue_(queue), class_(queue.classes_.begin()) {
  if (class_ != queue_.classes_.end()) EnterClass();
}

bool FairQueue::Cursor::Later(const Turn& a, const Turn& b) {
  if (a.served != b.served) return a.served > b.served;
  if (a.account->running != b.account->running) return a.account->running > b.account->running;
  return (*a.next)->order > (*b.next)->order;
}

void FairQueue::Cursor::EnterClass() {
  turns_.clear();
  for (const FairAccount* account : class_->second->backlogged) {
    turns_.push_back({account->served, account, account->waiting.begin()});
  }
  std::make_heap(turns_.begin(), turns_.end(), &Later);
}

Sequence* FairQueue::Cursor::Next() {
  if (class_ == queue_.classes_.end()) return nullptr;
  while (turns_.empty()) {
    if (++class_ == queue_.classes_.end()) return nullptr;
    EnterClass();
  }
  std::pop_heap(turns_.begin(), turns_.end(), &Later);
  Turn& turn = turns_.back();
  Sequence* const sequence = *turn.next;
  turn.served += CostOf(*sequence);
  if (++turn.next == turn.account->waiting.end()) {
    turns_.pop_back();
  } else {
    std::push_heap(turns_.begin(), turns_.end(), &Later);
  }
  return sequence;
}

}  // namespace reticle::scheduler
