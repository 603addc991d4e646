// The scheduler's engine over the CPU device, and clients that keep every bit of their answers.
#ifndef RETICLE_TESTS_DETERMINISM_RIG_H_
#define RETICLE_TESTS_DETERMINISM_RIG_H_

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "gtest/gtest.h"
#include "scheduler/engine.h"
#include "scheduler/engine_thread.h"
#include "scheduler/request.h"

namespace reticle::determinism {

// What may change without changing an answer; model_path and kv_type are what may not.
struct RigOptions {
  std::string model_path;
  uint32_t kv_type = 0;  // RETICLE_KV_TYPE_*
  uint32_t threads = 1;
  uint64_t kv_bytes = uint64_t{64} << 20;
  uint32_t kv_block_tokens = 0;
  bool prefix_cache = false;
  bool own_thread = false;  // an EngineThread steps the engine, not the caller
  uint32_t step_tokens = 0;
  uint32_t max_running = 0;
  uint32_t run_ahead = 0;
};

// One event of a stream; floats as their bits.
struct TracedToken {
  bool of_prompt = false;
  bool is_stop_id = false;
  bool has_logprob = false;
  TokenId token = 0;
  uint32_t logprob = 0;
  uint32_t rank = 0;
  std::vector<std::pair<TokenId, uint32_t>> top;

  bool operator==(const TracedToken&) const = default;
};

// What the client sees of one choice.
struct Trace {
  std::vector<TracedToken> tokens;
  scheduler::FinishReason reason = scheduler::FinishReason::kError;

  size_t OutputTokens() const;
  std::vector<TokenId> Output() const;
};

// Names the first difference.
testing::AssertionResult Same(const Trace& expected, const Trace& got);

struct Answer {
  Trace trace;
  scheduler::SequenceEnd end;
  bool ended = false;
};

// Used by one thread. Aborts when the model cannot be opened or a request is refused.
class Rig {
 public:
  explicit Rig(const RigOptions& options);
  ~Rig();

  // Returns the client's number. `capacity` is that of each choice's stream.
  size_t Submit(scheduler::Request request, uint32_t choices = 1, size_t capacity = 64);
  void Cancel(size_t client, uint32_t choice = 0);
  // Moves the engine on, or waits until it has moved, and reads all streams.
  void Step();
  bool Ended(size_t client) const;
  void RunUntilAllEnded();
  const Answer& answer(size_t client, uint32_t choice = 0) const;
  // Submits it, runs it, and returns the answer of its first choice.
  const Answer& Run(scheduler::Request request);
  const reticle_capabilities& capabilities() const { return engine_->capabilities(); }

 private:
  // Wakes the test when streams that it armed have news.
  class Bell : public scheduler::StreamListener {
   public:
    void OnStreamReady() override;
    void Wait();

   private:
    std::mutex mutex_;
    std::condition_variable condition_;
    bool rung_ = false;
  };

  struct Choice {
    std::shared_ptr<scheduler::TokenStream> stream;
    Answer answer;
  };

  bool ReadAll();
  bool ArmAll();
  void Sleep();

  const bool own_thread_;
  Bell bell_;
  std::unique_ptr<scheduler::Engine> engine_;
  std::unique_ptr<scheduler::EngineThread> thread_;
  std::vector<std::vector<Choice>> clients_;
  std::vector<size_t> live_;  // clients with a choice that has not ended
};

}  // namespace reticle::determinism

#endif  // RETICLE_TESTS_DETERMINISM_RIG_H_
