// The step loop of the CPU device: takes work from the host, forms one batch of all sequences a
// step, computes it, samples, and hands completions back.
//
// A step: every sequence that holds credits feeds the token it sampled last; what is left of the
// token budget goes to queued prompt tokens, oldest item first. What is submitted while a step
// computes joins the next one; what is cancelled ends with the current one.
#ifndef RETICLE_BACKENDS_CPU_ENGINE_H_
#define RETICLE_BACKENDS_CPU_ENGINE_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "backends/abi/driver_support.h"
#include "backends/abi/reticle_device.h"
#include "backends/abi/work_check.h"
#include "backends/kernels/adapter.h"
#include "backends/kernels/forward.h"
#include "backends/kernels/thread_pool.h"
#include "backends/sampling/sampler.h"
#include "base/mutex.h"

namespace reticle::backends::cpu {

// Submit, Poll, Arm, Cancel, adapters and Reset: one thread at a time, and none of them waits for a
// step (they share a lock that is never held while the model computes). Stats: any thread.
class Engine {
 public:
  struct Counters {
    uint64_t busy_ns = 0;
    uint64_t prefill_tokens = 0;
    uint64_t decode_tokens = 0;
    uint64_t steps = 0;
    uint64_t resets = 0;
    uint32_t sequences = 0;
  };

  // Borrows pool and forward, which must outlive it. `step_tokens`: prompt tokens that a step
  // feeds at most; the forward pass must have room for as many and one for each sequence.
  // capabilities.event_fd is set here.
  Engine(kernels::ThreadPool& pool, kernels::Forward& forward, reticle_capabilities capabilities,
         uint32_t step_tokens);
  // Waits for the current step; sends no completions.
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  const reticle_capabilities& capabilities() const { return capabilities_; }

  absl::Status Submit(const reticle_work& work, const reticle_sampling* sampling);
  size_t Poll(reticle_completion* completions, size_t stride, size_t capacity);
  bool Arm();
  absl::Status Cancel(uint64_t sequence);
  absl::Status LoadAdapter(uint64_t adapter, const std::string& path, float scale);
  absl::Status UnloadAdapter(uint64_t adapter);
  void Reset();
  Counters counters() const;

 private:
  // A work item on its way; what the host passed, copied.
  struct Item {
    uint64_t order = 0;  // of acceptance
    uint64_t tag = 0;
    bool prompt_logprobs = false;
    uint32_t top_logprobs = 0;
    uint32_t next_token = RETICLE_NO_TOKEN;
    uint32_t position = 0;
    uint32_t fed = 0;
    bool begun = false;
    uint32_t credits = 0;
    std::vector<uint32_t> tokens;
    std::vector<uint32_t> mask;
    std::optional<sampling::SequenceSampling> sampling;
  };

  struct Sequence {
    uint64_t id = 0;
    uint64_t tag = 0;
    SequenceView view;  // counts in everything accepted
    const kernels::Adapter* adapter = nullptr;
    std::vector<uint32_t> blocks;
    std::deque<Item> items;
    sampling::SequenceSampling sampling;
    std::vector<uint32_t> mask;
    uint32_t credits = 0;  // of the items begun
    uint32_t sampled = 0;  // the last token, when view.has_sampled
    uint64_t busy_ns = 0;
    bool in_step = false;
    int32_t end_status = RETICLE_OK;  // why it ends after the step: CANCELLED or ABORTED
  };

  // What one sequence has in the current step.
  struct Part {
    Sequence* sequence;
    bool is_decode;
    uint32_t first_token;  // in batch_
    uint32_t token_count;
    uint32_t first_row;  // of the logits
    uint32_t row_count;
    bool samples;  // from the last row
    bool item_done;
  };

  // A token found in a row of logits. `top` owns what result.top points to.
  struct Found {
    absl::Status status;
    sampling::SampledToken result;
    std::vector<reticle_token_logprob> top;
  };

  // What a row of logits is for: a prompt token's log-probability, a sample, or both.
  struct Row {
    Sequence* sequence = nullptr;
    uint32_t position = 0;  // of the token that follows
    bool scores = false;
    uint32_t token = 0;  // to score
    uint32_t top_count = 0;
    bool samples = false;
    Found score;
    Found sample;
  };

  void Loop();
  // Fills batch_, parts_ and rows_; false when there is nothing to compute.
  bool Plan() RETICLE_REQUIRES(mutex_);
  void PlanDecodes() RETICLE_REQUIRES(mutex_);
  void PlanPrefills() RETICLE_REQUIRES(mutex_);
  void AddTokens(Sequence& sequence, std::span<const uint32_t> tokens, uint32_t position,
                 Part& part) RETICLE_REQUIRES(mutex_);
  // Takes items that only add credits, and begins the next one that feeds tokens.
  static void BeginItems(Sequence& sequence);
  Row& AddRow(Sequence& sequence, uint32_t position);
  void SampleRows(int worker);
  void Commit(uint64_t step_ns) RETICLE_REQUIRES(mutex_);
  void CommitPart(const Part& part) RETICLE_REQUIRES(mutex_);
  void CommitSample(Sequence& sequence, const Row& row) RETICLE_REQUIRES(mutex_);
  void Push(Sequence& sequence, reticle_completion completion,
            std::span<const reticle_token_logprob> top = {}, std::string_view message = {})
      RETICLE_REQUIRES(mutex_);
  void End(Sequence& sequence, int32_t status, std::string_view message) RETICLE_REQUIRES(mutex_);

  kernels::ThreadPool& pool_;
  kernels::Forward& forward_;
  reticle_capabilities capabilities_;
  const uint32_t step_tokens_;
  kernels::AdapterTable adapters_;  // of the host's thread

  mutable Mutex mutex_;
  CondVar wake_;
  bool stopping_ RETICLE_GUARDED_BY(mutex_) = false;
  absl::flat_hash_map<uint64_t, std::unique_ptr<Sequence>> sequences_ RETICLE_GUARDED_BY(mutex_);
  std::vector<Sequence*> alive_ RETICLE_GUARDED_BY(mutex_);  // in order of their beginning
  CompletionQueue completions_ RETICLE_GUARDED_BY(mutex_){true};
  uint64_t pushed_ RETICLE_GUARDED_BY(mutex_) = 0;
  uint64_t polled_ RETICLE_GUARDED_BY(mutex_) = 0;
  // Ends on their way: index among the pushed completions, sequence.
  std::deque<std::pair<uint64_t, uint64_t>> ends_ RETICLE_GUARDED_BY(mutex_);
  uint64_t next_order_ RETICLE_GUARDED_BY(mutex_) = 0;
  Counters counters_ RETICLE_GUARDED_BY(mutex_);
  // Grows with every submit: lets the idle step thread spin without the lock.
  std::atomic<uint64_t> submissions_{0};

  // Of the current step: filled by Plan, read without the lock until Commit.
  std::vector<kernels::BatchToken> batch_;
  std::vector<Part> parts_;
  std::vector<Row> rows_;
  size_t row_count_ = 0;
  std::vector<uint32_t> block_tables_;
  std::vector<Sequence*> waiting_;

  std::vector<sampling::Sampler> samplers_;  // one a worker
  std::thread thread_;                       // last: uses everything above
};

}  // namespace reticle::backends::cpu

#endif  // RETICLE_BACKENDS_CPU_ENGINE_H_
