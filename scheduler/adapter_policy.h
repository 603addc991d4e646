// Whose turn it is on a device that applies one adapter at a time and takes long to swap it: a pure
// function from a snapshot to a decision.
//
// Sequences are served in turns, each of one adapter (0: none, the bare model). A turn lasts while
// its adapter has something to run, but when others wait at most `turn_ns`; then comes the next
// adapter that waits, in the cyclic order of their numbers. The device finishes what it was given
// for one adapter before it gets work for another, so that it swaps once a turn. With k adapters
// that wait, each has its turn within k - 1 turns and their finishing.
#ifndef RETICLE_SCHEDULER_ADAPTER_POLICY_H_
#define RETICLE_SCHEDULER_ADAPTER_POLICY_H_

#include <cstdint>
#include <span>

namespace reticle::scheduler {

struct AdapterDemand {
  uint64_t adapter = 0;
  bool wants = false;  // it has sequences that could run
  bool busy = false;   // the device works for it
};

struct AdapterTurn {
  uint64_t adapter = 0;
  int64_t since_ns = INT64_MIN;
};

struct AdapterPlan {
  AdapterTurn turn;
  // Nobody gets work: the device finishes what it has of the adapter before.
  bool finishing = false;
  // When the turn ends although its adapter could go on; INT64_MAX: nobody else waits.
  int64_t ends_ns = INT64_MAX;
};

// `demands` holds each adapter at most once.
AdapterPlan PlanAdapter(const AdapterTurn& turn, std::span<const AdapterDemand> demands,
                        int64_t now_ns, int64_t turn_ns);

}  // namespace reticle::scheduler

#endif  // RETICLE_SCHEDULER_ADAPTER_POLICY_H_
