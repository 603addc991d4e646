// A test bench around one open device: it runs sequences through the raw C table and checks every
// completion against the rules of the ABI on the way. A broken rule is a test failure.
#ifndef RETICLE_BACKENDS_CONFORMANCE_BENCH_H_
#define RETICLE_BACKENDS_CONFORMANCE_BENCH_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backends/abi/device.h"
#include "backends/abi/reticle_device.h"
#include "backends/conformance/subject.h"

namespace reticle::backends::conformance {

// What to generate. Owns what the C structs point to.
struct Request {
  std::vector<uint32_t> prompt;
  uint32_t max_tokens = 8;  // credits granted in all
  reticle_sampling params;  // pointers and counts are filled from the vectors
  std::vector<uint32_t> stop_ids;
  std::vector<reticle_logit_bias> logit_bias;
  uint32_t chunk = 0;       // tokens of a prefill item; 0: the most that is allowed
  uint32_t credits = 0;     // credits of a grant; 0: the most that is allowed
  bool feed_itself = true;  // top up with no tokens; else feed the sampled token explicitly
  std::vector<std::vector<uint32_t>> masks;  // one per token from the first on
  std::optional<uint32_t> prompt_logprobs;   // likeliest tokens to list
  std::vector<uint32_t> prefix_blocks;       // host-paged: hold the first tokens already
  uint64_t adapter = 0;
  bool reverse_blocks = false;  // take blocks from the other end of the pool

  Request();
};

struct Scored {
  uint32_t token = 0;
  uint32_t position = 0;
  float logprob = 0;
  uint32_t rank = 0;
  std::vector<reticle_token_logprob> top;
};

struct Output {
  std::vector<uint32_t> tokens;
  std::vector<Scored> scored;         // per token, when logprobs were asked for
  std::vector<Scored> prompt_scored;  // in the order of their completions
  uint32_t prefills = 0;              // PREFILL completions
  bool ended = false;                 // its terminal completion came
  uint32_t finish = RETICLE_FINISH_NONE;
  int32_t status = RETICLE_OK;
};

class Bench {
 public:
  // Opens the subject's device; `adjust` changes the configuration. On failure the test fails and
  // the bench is not usable (ok() is false).
  template <typename Adjust>
  explicit Bench(Adjust adjust) {
    DeviceConfig config = TheSubject().config;
    adjust(config);
    Open(config);
  }
  Bench() : Bench([](DeviceConfig&) {}) {}
  ~Bench();
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  bool ok() const { return ok_; }
  const reticle_device_api& api() const { return TheSubject().driver.api(); }
  reticle_device* device() const { return device_; }
  const reticle_capabilities& caps() const { return caps_; }
  bool Has(uint64_t feature) const { return (caps_.features & feature) == feature; }
  bool IsPaged() const { return caps_.kv_mode == RETICLE_KV_HOST_PAGED; }

  // ---- Whole generations ----
  // Runs the requests together to their ends (a request that used all its credits is cancelled).
  std::vector<Output> Run(const std::vector<Request>& requests);
  Output Run(const Request& request);

  // ---- Step by step ----
  uint64_t Start(const Request& request);
  // Submits what is due and polls once; true if anything moved.
  bool Pump();
  // Pumps until `done` or patience ends (a failure).
  template <typename Done>
  bool PumpUntil(Done done) {
    auto last = std::chrono::steady_clock::now();
    while (!done()) {
      if (Pump()) last = std::chrono::steady_clock::now();
      if (OutOfPatience(last)) return false;
    }
    return true;
  }
  void Cancel(uint64_t sequence);
  // All that was granted is sampled, or it has ended.
  bool IsSpent(uint64_t sequence) const;
  bool IsEnded(uint64_t sequence) const { return sequences_.at(sequence).output.ended; }
  const Output& OutputOf(uint64_t sequence) const { return sequences_.at(sequence).output; }
  const std::vector<uint32_t>& BlocksOf(uint64_t sequence) const {
    return sequences_.at(sequence).blocks;
  }
  // Cancels all that lives and waits for the ends.
  void Finish();

  // ---- Raw items ----
  uint64_t NewId() { return next_id_++; }
  // A prefill of `tokens` at position 0 without credits, with blocks; the vectors must outlive it.
  reticle_work Prefill(uint64_t sequence, const std::vector<uint32_t>& tokens,
                       const std::vector<uint32_t>& blocks) const;
  // Takes blocks for `positions`; empty for device slots. They are given back by ReleaseBlocks.
  std::vector<uint32_t> TakeBlocks(uint64_t positions, bool from_end = false);
  void ReleaseBlocks(const std::vector<uint32_t>& blocks);
  // Submits one item; the message goes to last_message().
  int32_t Submit(const reticle_work& work);
  // Polls into the ledger of sequences; completions of unknown ones fail the test.
  size_t Poll();
  // Lets a raw sequence be known to the ledger (its completions are collected, its rules checked
  // as far as `granted` and `position` tell).
  void Adopt(uint64_t sequence, uint32_t position, uint32_t granted);
  const std::string& last_message() const { return last_message_; }
  uint32_t LiveByStats();

 private:
  struct Item {
    uint64_t tag;
    uint32_t token_count;
    uint32_t end;  // position behind it
  };
  struct Sequence {
    Request request;
    Output output;
    bool adopted = false;
    std::vector<uint32_t> blocks;
    uint32_t own_blocks_from = 0;
    uint32_t submitted = 0;      // positions of the prompt that were submitted
    uint32_t next_token_at = 0;  // position of the next TOKEN
    uint32_t granted = 0;
    uint32_t grants = 0;
    bool is_cancelled = false;
    bool was_reset = false;
    std::deque<Item> unfed;  // prefill items without their PREFILL
    uint64_t last_tag = 0;   // of its completions
    uint64_t max_tag = 0;    // of its items
    uint64_t device_time_ns = 0;
  };

  void Open(const DeviceConfig& config);
  bool OutOfPatience(std::chrono::steady_clock::time_point since) const;
  // One item for the sequence if one is due; true if it was accepted.
  bool SubmitDue(uint64_t id, Sequence& sequence);
  void OnCompletion(const reticle_completion& completion);
  void CheckToken(const Sequence& sequence, const reticle_completion& completion);
  void CheckLogprobs(const reticle_completion& completion, uint32_t top_count);
  void CheckEnd(const Sequence& sequence, const reticle_completion& completion);

 public:
  // The ends of all live sequences become ABORTED errors.
  int32_t Reset();

 private:
  bool ok_ = false;
  reticle_device* device_ = nullptr;
  reticle_capabilities caps_{};
  uint64_t next_id_ = 1;
  uint64_t next_tag_ = 1000;
  std::map<uint64_t, Sequence> sequences_;
  std::deque<uint32_t> free_blocks_;
  std::string last_message_;
};

// Deterministic prompts that differ by `salt`.
std::vector<uint32_t> MakePrompt(const reticle_capabilities& caps, uint32_t length, uint32_t salt);

}  // namespace reticle::backends::conformance

#endif  // RETICLE_BACKENDS_CONFORMANCE_BENCH_H_
