// One choice of one request on its way through an engine. Engine thread only.
#ifndef RETICLE_SCHEDULER_SEQUENCE_H_
#define RETICLE_SCHEDULER_SEQUENCE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "base/ids.h"
#include "scheduler/fairness.h"
#include "scheduler/kv_memory.h"
#include "scheduler/refuge.h"
#include "scheduler/request.h"

namespace reticle::scheduler {

struct Sequence;

// A request and what its choices have in common.
struct Group {
  Request request;
  std::vector<Sequence*> choices;  // null once the choice is gone
  std::vector<reticle_logit_bias> logit_bias;
  Hash128 root;         // host-paged: under which name its blocks are shared
  bool shares = false;  // it publishes its blocks
  // Until then the first living choice goes alone, so that the others find its blocks.
  bool prompt_published = false;
};

struct Sequence : SequenceProgress {
  enum class State : uint8_t {
    kWaiting,   // in the waiting queue: new, or preempted
    kRunning,   // holds memory; on the device or about to be
    kRequeue,   // to be ended by the device, then waits again
    kFinished,  // its stream has ended or is another engine's; the device has not yet ended it
  };

  SequenceId id;
  std::shared_ptr<Group> group;
  FairAccount* account = nullptr;
  State state = State::kWaiting;

  KvLease lease;
  std::vector<Hash128> names;  // of the leading full blocks, as far as they were needed

  // On the device, under an id of its own for each stay.
  bool on_device = false;
  uint64_t device_id = 0;
  uint32_t slot = 0;
  uint32_t positions = 0;   // filled when all that was ordered is done
  uint32_t in_flight = 0;   // tokens of a work item whose PREFILL has not come
  uint32_t credits = 0;     // granted, their tokens not received
  uint32_t units_sent = 0;  // of the block table that the device has
  bool sampling_sent = false;

  uint32_t reports_due = 0;  // prompt log-probabilities of the item in flight

  int64_t full_since_ns = -1;  // its stream has had no room since

  bool removed = false;  // kept until the step ends

  // Of the current step.
  bool touched = false;
  uint32_t gaps = 0;
  int64_t gaps_ns = 0;

  const Request& request() const { return group->request; }
  TokenStream& stream() const { return *group->request.outputs[choice]; }
  uint32_t prompt_tokens() const { return static_cast<uint32_t>(request().prompt->size()); }
  // Prompt and output so far.
  uint32_t known_tokens() const {
    return tokens.empty() ? prompt_tokens() : static_cast<uint32_t>(tokens.size());
  }
  uint32_t output_tokens() const { return known_tokens() - prompt_tokens(); }
  bool reports_prompt() const {
    return choice == 0 && request().sampling.prompt_logprobs.has_value() &&
           prompt_reported < prompt_tokens();
  }
  bool idle() const { return credits == 0 && in_flight == 0; }
  // The device has something to say about it.
  bool owed() const { return on_device && (!idle() || state != State::kRunning); }
  // Events that the device may still send for what it was given.
  uint32_t promised_events() const { return credits + reports_due; }
};

// The order of service.
struct ServedBefore {
  bool operator()(const Sequence* a, const Sequence* b) const {
    if (a->request().priority != b->request().priority) {
      return a->request().priority < b->request().priority;
    }
    return a->order != b->order ? a->order < b->order : a->choice < b->choice;
  }
};

}  // namespace reticle::scheduler

#endif  // RETICLE_SCHEDULER_SEQUENCE_H_
