// Who goes next among those of equal priority: virtual token counters, after Sheng et al.,
// "Fairness in Serving Large Language Models" (OSDI 2024).
//
// Each tenant has a counter of the service that it was given: its prompt tokens when a request is
// admitted (those found in the cache are free), its output tokens as they come, weighted. The
// tenant with the least goes next, first come first served within it. A tenant that comes back
// after it had nothing waiting is lifted to the least counter of those that wait, so that nobody
// saves up service while away. Whoever is alone gets everything: nothing is held back for others.
//
// Bound (theorem 1 of the paper): between two tenants that both have requests waiting all the time,
// the service differs by at most 2 max(w_in L, w_out M), where L is the longest prompt and M the
// largest number of tokens that run at once. Recomputing after a preemption is not charged.
#ifndef RETICLE_SCHEDULER_FAIRNESS_H_
#define RETICLE_SCHEDULER_FAIRNESS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace reticle::scheduler {

struct Sequence;

// A prompt token's and an output token's worth.
inline constexpr double kInputWeight = 1.0;
inline constexpr double kOutputWeight = 2.0;

// By arrival.
struct ArrivedBefore {
  bool operator()(const Sequence* a, const Sequence* b) const;
};

// One tenant's standing within one priority.
struct FairAccount {
  uint64_t tenant = 0;
  double served = 0;  // weighted tokens
  std::set<Sequence*, ArrivedBefore> waiting;
  uint32_t running = 0;
  // Of the current step: how many of its running sequences are beyond its share.
  uint32_t surplus = 0;
};

// The tenants of one priority.
struct FairClass {
  absl::flat_hash_map<uint64_t, std::unique_ptr<FairAccount>> accounts;
  std::vector<FairAccount*> backlogged;  // that have sequences waiting
  uint32_t active = 0;                   // that have sequences, waiting or running
  double left_at = 0;  // counter of the account that last had none waiting any more
};

// The waiting sequences of an engine, and the counters. Engine thread only.
class FairQueue {
 public:
  // Where a tenant's sequences are to be booked. Stays where it is until another call finds it
  // without sequences.
  FairAccount* Account(int32_t priority, uint64_t tenant);

  // `sequence` waits from now on, in its place by arrival.
  void Add(Sequence* sequence);
  void Remove(Sequence* sequence);
  // It began or ceased to run.
  void OnRunning(Sequence* sequence);
  void OnNotRunning(Sequence* sequence);

  size_t size() const { return size_; }
  // In no particular order.
  std::vector<const Sequence*> All() const;

  // Whether several tenants have sequences under `priority`, waiting or running.
  bool Contended(int32_t priority) const;
  // Of `slots`, the part of each tenant that has sequences under `priority`; at least 1.
  uint32_t Share(int32_t priority, uint32_t slots) const;

  // Visits the waiting in the order in which they should be served, each taken to be admitted: by
  // priority, then the least served tenant, then arrival. The queue must not change meanwhile.
  class Cursor {
   public:
    explicit Cursor(const FairQueue& queue);
    // Null at the end.
    Sequence* Next();

   private:
    struct Turn {
      double served = 0;
      const FairAccount* account = nullptr;
      std::set<Sequence*, ArrivedBefore>::const_iterator next;
    };
    static bool Later(const Turn& a, const Turn& b);
    void EnterClass();

    const FairQueue& queue_;
    std::map<int32_t, std::unique_ptr<FairClass>>::const_iterator class_;
    std::vector<Turn> turns_;  // a heap, the next at the front
  };

 private:
  std::map<int32_t, std::unique_ptr<FairClass>> classes_;
  size_t size_ = 0;
};

}  // namespace reticle::scheduler

#endif  // RETICLE_SCHEDULER_FAIRNESS_H_
