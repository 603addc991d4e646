// A deterministic fake device: tests of everything above the device ABI run on it, through the same
// C table as every driver. It has no thread and computes inside poll.
//
// Content. The next token is a pure function of all tokens before it, the sampling parameters, the
// seed and the position (fake_content.h has it as a function, for expected values). In host-paged
// mode the device keeps, per position, a value that depends on that token and on everything before
// it, in the block that the table names, and reads it back through the table for every token. So a
// wrong position, a wrong or shared block, a prefix-cache key that misses something or a block that
// was reused too early changes the output, as it would with real K and V.
//
// Options (reticle_device_config.options; the config's own fields win where both exist)
//   mode            paged (default) or slots: who owns KV memory
//   content         logits (default): a pseudo-random logit for every token of the vocabulary, then
//                   the sampler that the real drivers use, every feature. fast: one hash per token,
//                   the cheapest way to any token; of the features only temperature, stop ids,
//                   adapters and reset (any token is as likely as another unless
//                   temperature or top_k leave only one); nothing is kept in blocks, and
//                   output behind a cached prefix differs from that behind a prefilled one
//   script          token ids, such as 5,6,7: the output is these, then a stop id if the sequence
//                   has one, else they begin again. Unlikely tokens stay possible where a mask or a
//                   logit_bias asks for them
//   vocab           vocabulary size, default 256
//   context         context limit, default 4096 (config: context_limit)
//   block_tokens    tokens per block, default 16 (config: kv_block_tokens)
//   blocks          KV blocks, default 1024; in slots mode the capacity is blocks * block_tokens
//   max_sequences   default 64 (config: max_sequences)
//   prefill_chunk   longest prefill of one item, default 512
//   credits         credits that a sequence may hold, default 64
//   max_top_k       default 0: any
//   step_ns         length of a step on the host's clock, default 0: no waiting
//   prefill_token_ns  longer by this for each token prefilled in the step, default 0
//   adapter_swap_ns longer by this for each change of adapter in the step, default 0
//   cheap_poll      1 (default) or 0: whether the device says that polling it is cheap
//   event_fd        1 (default) or 0: whether it has a descriptor to wait for
//   name            makes the device known to FindFakeDevice
// Faults, each counted from 1 and off by default
//   fail_open       1: open fails with UNAVAILABLE
//   fail_submit     the n-th submit takes nothing and returns INTERNAL
//   refuse_every    every n-th item is refused once with RESOURCE_EXHAUSTED
//   error_token     the n-th token sampled is an error instead: its sequence ends with INTERNAL
//   hang_step       from the n-th step on nothing happens until reset
//   lost_step       from the n-th step on submit and poll return UNAVAILABLE until reset
#ifndef RETICLE_BACKENDS_FAKE_FAKE_DEVICE_H_
#define RETICLE_BACKENDS_FAKE_FAKE_DEVICE_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string_view>

#include "backends/abi/reticle_device.h"

namespace reticle::backends::fake {

// The driver "fake". Static.
const reticle_device_api* FakeDeviceApi();

// A test's hand on an open device that has a name. Thread-safe; outlives the device.
class FakeControl {
 public:
  // From the next step on: nothing happens until reset.
  void Hang() { fault_.store(kHang); }
  // At once: submit and poll return UNAVAILABLE until reset. A host that waits for the event of an
  // idle device is not woken.
  void Lose() { fault_.store(kLose); }
  // The next `count` items are refused with `status`, a RETICLE_* code other than OK.
  void RefuseItems(uint64_t count, int32_t status = RETICLE_RESOURCE_EXHAUSTED) {
    refuse_status_.store(status);
    refuse_.store(count);
  }
  // The next token is an error: its sequence ends with `status`, likewise.
  void FailNextToken(int32_t status = RETICLE_INTERNAL) { fail_next_.store(status); }

  // The next `count` resets fail with UNAVAILABLE.
  void FailResets(uint64_t count) { fail_resets_.store(count); }

  uint64_t submits() const { return submits_.load(); }
  uint64_t items() const { return items_.load(); }  // accepted
  uint64_t live_sequences() const { return live_sequences_.load(); }
  // Positions fed, over all sequences: what prefix caching saves.
  uint64_t tokens_fed() const { return tokens_fed_.load(); }

 private:
  friend class FakeDevice;
  enum Fault : int { kNone, kHang, kLose };
  std::atomic<int> fault_{kNone};
  std::atomic<uint64_t> refuse_{0};
  std::atomic<int32_t> refuse_status_{RETICLE_RESOURCE_EXHAUSTED};
  std::atomic<int32_t> fail_next_{RETICLE_OK};
  std::atomic<uint64_t> fail_resets_{0};
  std::atomic<uint64_t> submits_{0};
  std::atomic<uint64_t> items_{0};
  std::atomic<uint64_t> live_sequences_{0};
  std::atomic<uint64_t> tokens_fed_{0};
};

// The device that was opened last with the option name=`name`; null when there is none.
std::shared_ptr<FakeControl> FindFakeDevice(std::string_view name);

}  // namespace reticle::backends::fake

#endif  // RETICLE_BACKENDS_FAKE_FAKE_DEVICE_H_
