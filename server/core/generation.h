// One running request: its sequences on the engine, turned into text for whichever front asked.
//
//   auto generation = Generation::Start(std::move(valid), context, "http", wake);   // or an error
//   for (;;) {
//     switch ((*generation)->Pull(sink, 64)) {         // sink.OnChunk(...) for each piece
//       case Generation::Progress::kDone: ... (*generation)->status(), usage() ...; return;
//       case Generation::Progress::kMore: continue;    // or later, when the connection can write
//       case Generation::Progress::kIdle:
//         if ((*generation)->Arm()) return;            // `wake` will be called once
//     }
//   }
//
// Back-pressure: nothing is taken from the engine's rings but by Pull, and the engine stops
// granting credits when a ring is full. Destroying it cancels what still runs.
#ifndef RETICLE_SERVER_CORE_GENERATION_H_
#define RETICLE_SERVER_CORE_GENERATION_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/ids.h"
#include "scheduler/token_stream.h"
#include "server/core/server_context.h"
#include "server/core/valid_request.h"

namespace reticle::server {

struct RequestSummary;

// A token that a chunk accounts for.
struct TokenOut {
  TokenId token = 0;
  // Where its text begins in the choice's text (echoed prompt included), in code points.
  uint64_t text_offset = 0;
  // Null unless log-probabilities were asked for, and for the first token of a prompt.
  const scheduler::TokenLogprobs* logprobs = nullptr;
};

// A piece of one choice. Views are valid during OnChunk only.
struct Chunk {
  uint32_t choice = 0;
  bool is_prompt = false;  // the echoed prompt; comes first, once for each choice
  // Whole code points. One generated token gives at most one chunk with text; with merge_events the
  // tokens that were ready share one.
  std::string_view text;
  // The tokens whose text is in here, and those without any text since the last chunk. Tokens of a
  // stop string that was cut off are not reported, but count in usage.
  std::span<const TokenOut> tokens;
  // Set on the choice's last chunk, which has no text.
  std::optional<Outcome> finish;  // kStop or kLength
  // What stopped it: the stop string, or a stop id that the client named. For kStop by the
  // model's own end token both are absent.
  std::string_view stop_string;
  std::optional<TokenId> stop_token;
};

class ChunkSink {
 public:
  virtual ~ChunkSink() = default;
  virtual void OnChunk(const Chunk& chunk) = 0;
  // The prompt's log-probabilities, when prompt_logprobs were asked for: once for each prompt,
  // before the chunks of its choices.
  virtual void OnPromptLogprobs(uint32_t prompt, std::span<const TokenOut> tokens) {}
};

// Summed over prompts and choices. Exact once Pull returned kDone; before, what was pulled so far.
struct Usage {
  uint64_t prompt_tokens = 0;  // each prompt once
  uint64_t cached_tokens = 0;
  uint64_t completion_tokens = 0;
  // The longest of any choice, ns: waiting for admission, prefill, decode.
  int64_t queue_ns = 0;
  int64_t prompt_ns = 0;
  int64_t completion_ns = 0;
  uint64_t device_busy_ns = 0;
  uint64_t energy_nj = 0;
  // How often a choice was recomputed because its device was lost.
  uint32_t recoveries = 0;
  // What a million tokens cost on the devices that served it, USD; nothing when nobody knows.
  std::optional<double> usd_per_million_tokens;
};

// Used by one thread at a time.
class Generation {
 public:
  enum class Progress {
    kIdle,  // nothing is there; Arm before sleeping
    kMore,  // the limit was reached; call again
    kDone,  // every choice has ended, or the request failed: status() says
  };

  // Submits the request. `wake` is called from an engine thread: it must be quick, must not block
  // and must not call back into the generation; never after destruction. Errors: UNAVAILABLE
  // (loading, draining), RESOURCE_EXHAUSTED (queue full), what the engine refuses.
  static absl::StatusOr<std::unique_ptr<Generation>> Start(ValidRequest request,
                                                           ServerContext& context,
                                                           std::string_view front,
                                                           std::function<void()> wake);
  ~Generation();
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  // Hands what is ready to `sink`: at most about `max_tokens` tokens, so that one stream does not
  // starve others.
  Progress Pull(ChunkSink& sink, size_t max_tokens);
  // Asks for one `wake`. False, asking for nothing, when something is there already.
  bool Arm();
  // The bytes of all that was pulled are the socket's, since `now_ns` on the server's clock.
  void OnHandedOver(int64_t now_ns);
  // Ends everything within one step of the engine; the outcome is kAbort.
  void Cancel();

  // After kDone: OK, DEADLINE_EXCEEDED, CANCELLED or what the engine said.
  const absl::Status& status() const;
  const Usage& usage() const;
  // Completion tokens of one choice so far.
  uint32_t choice_tokens(uint32_t choice) const;
  const ValidRequest& request() const;
  // Fills in what a generation knows; one that is not done counts as given up. A prompt is added
  // only with `prompt`.
  void Describe(bool prompt, RequestSummary& summary) const;

 private:
  Generation();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_CORE_GENERATION_H_
