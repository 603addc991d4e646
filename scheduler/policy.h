// What the next step does: a pure function from a snapshot of one engine to a plan. No clock, no
// state, no allocation once the plan's vectors have grown.
//
// The order of service is that of the lists in the snapshot: ascending (priority, arrival).
// Better priorities are planned first, each with all of its needs: what a worse one wants comes out
// of what is left, so it delays a better one by no more than the step that is under way. Within one
// priority:
//  1. Running sequences that need one token fed (they decode) get it, before anything else. When
//     memory is short the last in order (stalled ones first) is preempted, down to the one that
//     asks, never one ahead of it: so the first in order always proceeds.
//  2. Running prompts share the rest of the token budget in chunks, in order.
//  3. Devices that run ahead get more credits, from memory that is free.
//  4. Waiting sequences are admitted in order, each when the memory of all of its known tokens is
//     there: none overtakes one that memory holds up, so none starves. For the first of them, and
//     only if that is enough to admit it, sequences of a strictly worse priority, stalled ones, and
//     for one below its tenant's share those that are surplus of another tenant, are preempted.
//
// Memory is counted in units of `unit_tokens` positions: KV blocks of a host-paged device, single
// positions of a device that owns its memory.
#ifndef RETICLE_SCHEDULER_POLICY_H_
#define RETICLE_SCHEDULER_POLICY_H_

#include <cstdint>
#include <vector>

namespace reticle::scheduler {

struct PolicyLimits {
  uint32_t step_tokens = 1;    // fed in one step; at least max_running, or the last ones starve
  uint32_t max_running = 1;    // sequences alive on the device
  uint32_t max_chunk = 1;      // tokens fed by one work item
  uint32_t run_ahead = 1;      // credits that one sequence may hold
  uint32_t unit_tokens = 1;    // positions in a unit of memory
  uint32_t reserve_units = 0;  // left free by admissions while something runs
  // Sequences of this priority or worse leave so many places to better ones, which so begin at
  // once.
  int32_t yield_priority = INT32_MAX;
  uint32_t kept_slots = 0;
};

// A sequence that lives on the device. `pending` > 0 only if nothing of it is under way.
struct RunningSnapshot {
  int32_t priority = 0;
  uint32_t pending = 0;          // known tokens to feed; 1: it decodes
  uint32_t in_flight = 0;        // prompt tokens under way to the device
  uint32_t credits = 0;          // held on the device
  uint32_t positions = 0;        // filled when all that was ordered is done
  uint32_t units = 0;            // of memory that it holds
  uint32_t output_room = 0;      // tokens that it may still be asked to generate
  uint32_t event_room = 0;       // free places in its stream that are not promised yet
  bool event_per_token = false;  // fed tokens take a place too (prompt log-probabilities)
  bool leaving = false;          // the device was told to end it; its memory is on the way back
  bool stalled = false;          // its reader has not made room for long
  bool surplus = false;          // beyond its tenant's share, while another waits below its own
};

struct WaitingSnapshot {
  int32_t priority = 0;
  bool ready = true;               // else passed over, without holding up those behind it
  uint32_t tokens = 0;             // known tokens, at least 1
  uint32_t cached = 0;             // of these in cached units; below `tokens`
  uint32_t cached_free_units = 0;  // cached units that count as free until they are taken
  uint32_t output_room = 0;
  uint32_t event_room = 0;
  bool event_per_token = false;
  bool below_share = false;  // of places, which its tenant could have
};

struct PolicySnapshot {
  PolicyLimits limits;
  uint32_t free_units = 0;
  std::vector<RunningSnapshot> running = {};
  std::vector<WaitingSnapshot> waiting = {};
};

// `tokens` are fed; `credits` are added; `new_units` of memory are needed before. tokens == 0: adds
// credits to a sequence that holds some. credits == 0: part of a prompt.
struct PlannedWork {
  uint32_t index = 0;  // into running or waiting
  uint32_t tokens = 0;
  uint32_t credits = 0;
  uint32_t new_units = 0;
};

struct Plan {
  std::vector<PlannedWork> work;   // of running sequences; decoding ones first
  std::vector<PlannedWork> admit;  // of waiting sequences, with their first work
  std::vector<uint32_t> preempt;   // running sequences
  std::vector<uint8_t> preempted;  // by running index

  bool empty() const { return work.empty() && admit.empty() && preempt.empty(); }
};

// Replaces `*plan`.
void MakePlan(const PolicySnapshot& snapshot, Plan* plan);

}  // namespace reticle::scheduler

#endif  // RETICLE_SCHEDULER_POLICY_H_
