// What the scheduler is asked to do: tokens in, tokens out. No text, no sockets.
#ifndef RETICLE_SCHEDULER_REQUEST_H_
#define RETICLE_SCHEDULER_REQUEST_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "scheduler/token_stream.h"

namespace reticle::scheduler {

// How tokens are chosen; fields and their order of effect as in reticle_sampling
// (backends/abi/reticle_device.h).
struct SamplingParams {
  float temperature = 1.0f;  // 0: greedy
  uint32_t top_k = 0;        // 0: no limit
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
  float frequency_penalty = 0.0f;
  float presence_penalty = 0.0f;
  uint64_t seed = 0;
  uint32_t min_tokens = 0;
  // Sampling one of these ends the sequence. The end-of-generation tokens of the model are in it
  // unless the client asked to ignore them.
  std::vector<TokenId> stop_ids;
  std::vector<std::pair<TokenId, float>> logit_bias;
  // Number of likeliest alternatives to report per token; 0 gives the chosen token's
  // log-probability only.
  std::optional<uint32_t> logprobs;
  // Likewise for the tokens of the prompt. Such a request does not read the prefix cache.
  std::optional<uint32_t> prompt_logprobs;
};

// A validated request: one prompt, `outputs.size()` choices that share its KV blocks.
struct Request {
  std::shared_ptr<const std::vector<TokenId>> prompt;  // at least one token
  SamplingParams sampling;  // choice i draws with ChoiceSeed(sampling.seed, i)
  uint32_t max_tokens =
      16;  // at least 1; prompt + max_tokens may pass the context limit, which then ends it
  int32_t priority = 0;     // lower runs first; FIFO among equals
  uint64_t tenant = 0;      // whose turns it takes among requests of equal priority
  int64_t arrival_ns = 0;   // on the engine's clock; queue time and TTFT count from here
  int64_t deadline_ns = 0;  // on the engine's clock; 0: none. A sequence that has not ended by then
                            // ends with kDeadline
  uint64_t adapter = 0;
  bool use_prefix_cache = true;
  // Of a client's request that comes as several of these: the first one asks for room for all, its
  // own sequences and so many more; the others are `admitted` with it, whatever the queue holds.
  uint32_t more_sequences = 0;
  bool admitted = false;
  // A refusal by a full queue tells a time to come back, which is kept (appointments.h): to so many
  // of the tenant's requests at a time, for the connection that they came by.
  bool book = true;
  uint32_t appointments = 1;
  std::weak_ptr<const void> connection;
  // One stream for each choice; prompt log-probabilities go to the first.
  std::vector<std::shared_ptr<TokenStream>> outputs;
};

// The seed of choice `index`: `seed` itself for choice 0, a mix of both for the others.
uint64_t ChoiceSeed(uint64_t seed, uint32_t index);

}  // namespace reticle::scheduler

#endif  // RETICLE_SCHEDULER_REQUEST_H_
