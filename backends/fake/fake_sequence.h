// One sequence on the fake device.
#ifndef RETICLE_BACKENDS_FAKE_FAKE_SEQUENCE_H_
#define RETICLE_BACKENDS_FAKE_FAKE_SEQUENCE_H_

#include <cstdint>
#include <vector>

#include "backends/abi/work_check.h"
#include "backends/sampling/sequence_sampling.h"

namespace reticle::backends::fake {

// An accepted order that waits to be carried out.
struct QueuedItem {
  uint64_t tag = 0;
  uint32_t token_count = 0;
  uint32_t credits = 0;
  bool prompt_logprobs = false;
  uint32_t prompt_top = 0;
  uint32_t next_token = RETICLE_NO_TOKEN;
};

// Plain data; FakeDevice owns and reuses it.
struct FakeSequence {
  uint64_t id = 0;
  SequenceView view;
  uint64_t state = 0;  // of the content, after `fed` tokens
  uint64_t adapter_key = 0;
  uint64_t tag = 0;          // of the last item that was carried out
  uint32_t fed = 0;          // positions fed
  uint32_t run_credits = 0;  // of items that were carried out
  uint32_t last_token = 0;   // view.has_sampled
  bool is_active = false;    // in the device's list of work
  bool has_mask = false;
  std::vector<QueuedItem> items;  // from item_head on
  size_t item_head = 0;
  std::vector<uint32_t> tokens;  // queued to be fed, from token_head on
  size_t token_head = 0;
  std::vector<uint32_t> blocks;
  std::vector<uint32_t> mask;
  uint64_t kv_tokens = 0;  // slots mode: counted against the capacity
  sampling::SequenceSampling sampling;

  bool HasItems() const { return item_head < items.size(); }
  bool HasWork() const { return HasItems() || run_credits > 0; }
};

}  // namespace reticle::backends::fake

#endif  // RETICLE_BACKENDS_FAKE_FAKE_SEQUENCE_H_
