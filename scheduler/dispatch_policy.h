// Which engine a request goes to: a pure function from what is known of the engines.
#ifndef RETICLE_SCHEDULER_DISPATCH_POLICY_H_
#define RETICLE_SCHEDULER_DISPATCH_POLICY_H_

#include <cstdint>
#include <vector>

namespace reticle::scheduler {

struct DispatchCandidate {
  uint32_t engine = 0;  // the caller's number for it
  // Sequences queued and running per sequence that the device serves at full speed.
  double load = 0;
  uint32_t cached_tokens = 0;  // of the prompt
  // Another adapter would have to be swapped out for this request, at a cost.
  bool swaps_adapter = false;
};

// Sorts `candidates` into the order in which to ask them: who need not swap an adapter, then the
// longest cached prefix, then the least load. Neither advantage counts for an engine that is busier
// than the least busy one by more than half of its full-speed capacity.
void RankCandidates(std::vector<DispatchCandidate>* candidates);

}  // namespace reticle::scheduler

#endif  // RETICLE_SCHEDULER_DISPATCH_POLICY_H_
