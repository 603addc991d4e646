// The way of one sequence's tokens from the engine thread to the thread that owns the connection: a
// bounded single-producer, single-consumer ring with a coalesced wake-up and a cancel flag going
// the other way.
//
// The engine never waits for a slow consumer: when the ring is full it stops granting decode
// credits to that sequence until there is room again.
#ifndef RETICLE_SCHEDULER_TOKEN_STREAM_H_
#define RETICLE_SCHEDULER_TOKEN_STREAM_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "base/ids.h"

namespace reticle::scheduler {

// Log-probabilities (natural logarithm, of the model before sampling parameters) of one token and
// its alternatives.
struct TokenLogprobs {
  float logprob = 0;
  uint32_t rank = 0;  // 1: the likeliest
  std::vector<std::pair<TokenId, float>> top;
};

struct TokenEvent {
  enum class Kind : uint8_t {
    kToken,        // a generated token
    kPromptToken,  // a prompt token with its log-probability (prompt_logprobs); null for the first
                   // token of the prompt
  };
  Kind kind = Kind::kToken;
  // The token is the stop id that ends the sequence; it is not part of the text unless the client
  // wants it.
  bool is_stop_id = false;
  TokenId token = 0;
  int64_t device_ns = 0;  // when the device had it, on the engine's clock; at most ready_ns
  int64_t ready_ns = 0;   // when the engine had it from the device, likewise
  std::unique_ptr<TokenLogprobs> logprobs;  // only when asked for
};

enum class FinishReason : uint8_t {
  kStop,       // a stop id was sampled
  kLength,     // max_tokens or the context limit
  kCancelled,  // by the consumer
  kDeadline,   // the deadline passed
  kError,      // status says why
};

// The end of a sequence and what it cost.
struct SequenceEnd {
  FinishReason reason = FinishReason::kStop;
  absl::Status status;  // not OK for kError and kDeadline
  uint32_t prompt_tokens = 0;
  uint32_t cached_tokens = 0;  // prompt tokens whose KV came from the prefix cache
  uint32_t output_tokens = 0;  // generated, the stop id included
  // Host clock, ns, from arrival: waiting for admission, prefill (to the first token), decode
  // (first to last token).
  int64_t queue_ns = 0;
  int64_t prefill_ns = 0;
  int64_t decode_ns = 0;
  uint64_t device_busy_ns = 0;
  uint64_t energy_nj = 0;
  uint32_t preemptions = 0;
  uint32_t recoveries = 0;  // how often it was recomputed after the loss of a device
};

class EngineSignal;

// Told when a stream that asked for it has something to read. Called on the engine thread, so it
// must be quick, must not block and must not call into the engine. It may use the consumer's side
// of the stream.
class StreamListener {
 public:
  virtual ~StreamListener() = default;
  virtual void OnStreamReady() = 0;
};

// Producer: the engine thread. Consumer: one thread at a time. Cancel: any thread. Lock-free, but
// for waking an engine that sleeps; nothing is allocated per event unless it has logprobs.
class TokenStream {
 public:
  // Holds up to `capacity` (at least 1; rounded up to a power of two) events. `listener` must stay
  // alive until Detach() has returned or the stream is gone; may be null for consumers that only
  // poll.
  TokenStream(size_t capacity, StreamListener* listener);
  ~TokenStream();
  TokenStream(const TokenStream&) = delete;
  TokenStream& operator=(const TokenStream&) = delete;

  // ---- consumer
  // Moves up to out.size() events to `out`; returns how many.
  size_t Pop(std::span<TokenEvent> out);
  // The end, once the producer has ended the stream and every event was popped; else null.
  const SequenceEnd* end() const;
  // Asks for one OnStreamReady() when an event or the end is there. Returns false, and asks for
  // nothing, when something is there already.
  bool Arm();
  // After this returns, OnStreamReady is not running and will not be called. Waits for a call that
  // is under way, unless it is made from within that call.
  void Detach();
  // Asks the engine to end the sequence within one step. Events may still arrive before the end.
  void Cancel();

  // ---- producer
  // Whom Cancel and Pop shall notify from now on. False when the stream serves a sequence already.
  bool Attach(std::shared_ptr<EngineSignal> signal);
  bool attached() const { return signal_.load(std::memory_order_acquire) != nullptr; }
  // The sequence goes on at another engine: the last call of this producer, everything pushed being
  // flushed. The next producer begins behind it (the caller sees to that), and looks at cancelled()
  // then, as a Cancel just before has told the old engine.
  void MoveTo(std::shared_ptr<EngineSignal> signal);
  size_t capacity() const { return mask_ + 1; }
  size_t FreeSlots() const;
  // As FreeSlots() > reserved; when not, the next Pop notifies the signal of room.
  bool AwaitRoom(size_t reserved);
  // Requires FreeSlots() > 0. The wake-up is sent by Flush.
  void Push(TokenEvent event);
  // Nothing may be pushed after it.
  void Finish(SequenceEnd end);
  // Wakes the consumer if it is armed and something was pushed: once for all tokens of a step.
  void Flush();
  bool cancelled() const { return cancelled_.load(std::memory_order_seq_cst); }

 private:
  static constexpr uint32_t kArmed = 1u << 0;
  static constexpr uint32_t kCalling = 1u << 1;
  static constexpr uint32_t kDetached = 1u << 2;

  bool SomethingThere() const;

  const size_t mask_;
  StreamListener* const listener_;
  const std::unique_ptr<TokenEvent[]> ring_;

  // Both sides.
  alignas(64) std::atomic<uint32_t> wake_{0};  // kArmed, kCalling, kDetached
  std::atomic<bool> wants_room_{false};
  std::atomic<bool> cancelled_{false};
  std::atomic<bool> finished_{false};
  std::atomic<const void*> caller_{nullptr};  // stands for the thread within OnStreamReady
  std::atomic<EngineSignal*> signal_{nullptr};
  // Every signal that signal_ has named, since a consumer may still be calling an earlier one.
  std::vector<std::shared_ptr<EngineSignal>> signal_owners_;  // the producer's
  SequenceEnd end_;                                           // written once, before finished_

  // The consumer's.
  alignas(64) std::atomic<size_t> head_{0};  // events popped
  size_t seen_tail_ = 0;

  // The producer's.
  alignas(64) std::atomic<size_t> tail_{0};  // events pushed
  bool unflushed_ = false;
};

}  // namespace reticle::scheduler

#endif  // RETICLE_SCHEDULER_TOKEN_STREAM_H_
