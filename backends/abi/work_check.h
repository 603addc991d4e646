// The rules of a sequence's life (reticle_device.h) as one pure function, for drivers in C++.
#ifndef RETICLE_BACKENDS_ABI_WORK_CHECK_H_
#define RETICLE_BACKENDS_ABI_WORK_CHECK_H_

#include <cstdint>

#include "absl/status/status.h"
#include "backends/abi/reticle_device.h"

namespace reticle::backends {

// What a driver knows of a sequence once everything that it accepted so far is counted in.
struct SequenceView {
  // kUnknown: never began, or its end was polled. kEnded: its end waits to be polled.
  enum class State : uint8_t { kUnknown, kAlive, kEnded };

  State state = State::kUnknown;
  // Its last token was sampled by the device and is not fed yet.
  bool has_sampled = false;
  bool has_sampling = false;    // an earlier item brought parameters
  uint32_t next_position = 0;   // the first that is neither fed nor queued to be fed
  uint32_t credits = 0;         // granted and not spent
  uint32_t kv_block_count = 0;  // host-paged: length of the block table in force
  uint64_t adapter = 0;         // as in its first item
};

// Positions that the sequence will have fed when its credits and those of `work` are spent: how far
// its block table must reach.
uint64_t FedWhenSpent(const reticle_work& work, const SequenceView& sequence,
                      uint32_t context_limit);

// Checks everything about `work` but the values in its sampling parameters (ValidateSampling does
// those) and whether its adapter is loaded. `work` and `sampling` are whole (WholeWork); `sampling`
// stands for work.sampling. Reads tokens, blocks and mask; changes nothing. The messages name
// field, value and limit.
absl::Status CheckWork(const reticle_work& work, const reticle_sampling* sampling,
                       const SequenceView& sequence, const reticle_capabilities& capabilities);

}  // namespace reticle::backends

#endif  // RETICLE_BACKENDS_ABI_WORK_CHECK_H_
