// One sequence on a card.
#ifndef RETICLE_BACKENDS_HARDWIRED_CARD_STREAM_H_
#define RETICLE_BACKENDS_HARDWIRED_CARD_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "backends/abi/work_check.h"
#include "backends/hardwired/timing/device_time.h"
#include "backends/sampling/sequence_sampling.h"

namespace reticle::backends::hardwired {

// An order that waits for the ones before it.
struct StreamItem {
  uint64_t tag = 0;
  DeviceTime arrival;
  uint32_t token_count = 0;
  uint32_t credits = 0;
  bool prompt_logprobs = false;
  uint32_t prompt_top = 0;
  uint32_t next_token = RETICLE_NO_TOKEN;
};

// The log-probability of one prompt token, waiting for its PREFILL.
struct ScoredToken {
  uint32_t token = 0;
  uint32_t position = 0;
  float logprob = 0;
  uint32_t rank = 0;
  std::vector<reticle_token_logprob> top;
};

// Plain data; Firmware owns and reuses it.
struct CardStream {
  enum class Phase : uint8_t { kIdle, kPrefill, kDecode };

  uint64_t id = 0;
  uint64_t order = 0;  // in which it began: decides between equal deadlines
  uint32_t slot = 0;
  Phase phase = Phase::kIdle;
  bool sampled_on_host = false;

  // What the host may still do; as in work_check.h.
  SequenceView view;
  uint64_t tag = 0;      // of the item in force
  uint32_t credits = 0;  // of items that were reached
  uint32_t fed = 0;      // positions in KV memory
  uint32_t last_token = 0;
  uint64_t kv_tokens = 0;  // counted against the capacity

  std::vector<StreamItem> items;  // from item_head on; the first is in work in kPrefill
  size_t item_head = 0;
  std::vector<uint32_t> tokens;  // queued to be fed, from token_head on
  size_t token_head = 0;
  std::vector<uint32_t> mask;
  bool has_mask = false;
  sampling::SequenceSampling sampling;

  // The event that is due, and what it will show once it is computed.
  DeviceTime due;
  bool computed = false;
  uint32_t item_fed = 0;  // of the item in work
  bool has_token = false;
  uint32_t token = 0;
  bool is_stop_id = false;
  float logprob = 0;
  uint32_t rank = 0;
  std::vector<reticle_token_logprob> top;
  std::vector<ScoredToken> scored;
  size_t scored_count = 0;
  int32_t error = 0;  // RETICLE_*; then the event is its end
  std::string message;

  DeviceTime last;       // its last event
  DeviceTime busy_from;  // device time counted up to here
  double energy_mark = 0;

  bool HasItems() const { return item_head < items.size(); }
};

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_CARD_STREAM_H_
