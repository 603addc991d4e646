// How sequences leave an engine whose device was lost and go on at another one.
//
// The engine that owns a sequence packs what makes it go on (Displaced) and offers it to the
// Refuge. Whoever takes it owns it from that moment: its streams notify the new engine, and the old
// one never touches them again. What nobody takes stays where it is and waits for the device.
#ifndef RETICLE_SCHEDULER_REFUGE_H_
#define RETICLE_SCHEDULER_REFUGE_H_

#include <cstdint>
#include <vector>

#include "base/ids.h"
#include "scheduler/request.h"

namespace reticle::scheduler {

class Engine;

// What a sequence has achieved, wherever that was. Sampling is keyed by (seed, position), so this
// and the request are all that another device with the same image needs to go on with the same
// tokens.
struct SequenceProgress {
  uint32_t choice = 0;
  uint64_t order = 0;  // of arrival, over all engines
  // Prompt and output; empty before the first admission.
  std::vector<TokenId> tokens;
  uint32_t prompt_reported = 0;  // positions of the prompt that the stream has
  uint32_t cached_tokens = 0;
  uint32_t preemptions = 0;
  uint32_t recoveries = 0;  // in all
  uint32_t fruitless = 0;   // recoveries since its last token
  uint64_t device_busy_ns = 0;
  uint64_t energy_nj = 0;
  int64_t admitted_ns = -1;  // first time
  int64_t first_token_ns = -1;
  int64_t last_token_ns = -1;
};

// The choices of one request that still live; they move together, so that they share blocks again.
struct Displaced {
  Request request;
  std::vector<SequenceProgress> choices;
};

// Thread-safe; called on the thread of the engine in question, which holds no lock meanwhile.
class Refuge {
 public:
  virtual ~Refuge() = default;
  // True: another engine than `from` owns it now, and `displaced` is spent. False: nobody takes it,
  // and `displaced` is as it was.
  virtual bool Take(const Engine& from, Displaced& displaced) = 0;
  // The device of `engine` works again.
  virtual void OnRecovered(const Engine& engine) = 0;
};

}  // namespace reticle::scheduler

#endif  // RETICLE_SCHEDULER_REFUGE_H_
