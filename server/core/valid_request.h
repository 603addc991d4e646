// The only form in which a request reaches generation: checked, tokenised, every default filled in.
#ifndef RETICLE_SERVER_CORE_VALID_REQUEST_H_
#define RETICLE_SERVER_CORE_VALID_REQUEST_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/ids.h"
#include "scheduler/request.h"
#include "server/core/gate.h"
#include "server/core/generate_params.h"
#include "server/core/model.h"
#include "server/core/stop_matcher.h"

namespace reticle::server {

class ServerContext;

// Move-only; made by Validate and Admit alone.
class ValidRequest {
 public:
  struct Prompt {
    std::shared_ptr<const std::vector<TokenId>> tokens;  // at least one, below the context limit
    std::string text;                                    // filled when `echo` is set
  };

  ValidRequest(ValidRequest&&) = default;
  ValidRequest& operator=(ValidRequest&&) = default;

  const ModelEntry& model() const { return *model_; }
  const std::shared_ptr<const ModelEntry>& model_ptr() const { return model_; }
  const std::vector<Prompt>& prompts() const { return prompts_; }
  // Choices of each prompt. Choice c belongs to prompt c / n().
  uint32_t n() const { return n_; }
  uint32_t choices() const { return n_ * static_cast<uint32_t>(prompts_.size()); }
  const scheduler::SamplingParams& sampling() const { return sampling_; }
  // Tokens to generate at most; 0 (with echo or prompt_logprobs only): the prompt alone is scored.
  uint32_t max_tokens() const { return max_tokens_; }
  const StopSet& stop() const { return *stop_; }
  bool include_stop() const { return include_stop_; }
  bool skip_special() const { return skip_special_; }
  bool echo() const { return echo_; }
  bool stream() const { return stream_; }
  // Tokens that are ready together may share one chunk.
  bool merge_events() const { return merge_events_; }
  // Alternatives per output token that the client asked for; nullopt: no log-probabilities.
  std::optional<uint32_t> logprobs() const { return sampling_.logprobs; }
  // Likewise for the prompt. Echo with logprobs sets it too.
  std::optional<uint32_t> prompt_logprobs() const { return sampling_.prompt_logprobs; }
  int32_t priority() const { return priority_; }
  // The service tier that the request is given: "default", "flex" or "priority".
  const std::string& service_tier() const { return service_tier_; }
  uint64_t tenant() const { return tenant_; }
  uint32_t appointments() const { return appointments_; }
  // Of the caller's account; "none" without accounts.
  const std::string& tier() const { return tier_; }
  // Null for servers without accounts.
  Reservation* reservation() const { return reservation_.get(); }
  int64_t arrival_ns() const { return arrival_ns_; }
  int64_t deadline_ns() const { return deadline_ns_; }  // 0: none
  const std::string& request_id() const { return request_id_; }

 private:
  friend class RequestValidator;
  friend absl::StatusOr<ValidRequest> Admit(GenerateParams params,
                                            std::shared_ptr<const ModelEntry> model,
                                            const std::shared_ptr<const Caller>& caller,
                                            ServerContext& context);
  ValidRequest() = default;

  std::shared_ptr<const ModelEntry> model_;
  std::vector<Prompt> prompts_;
  uint32_t n_ = 1;
  scheduler::SamplingParams sampling_;
  uint32_t max_tokens_ = 16;
  std::unique_ptr<const StopSet> stop_;
  bool include_stop_ = false;
  bool skip_special_ = true;
  bool echo_ = false;
  bool stream_ = false;
  bool merge_events_ = false;
  int32_t priority_ = 0;
  std::string service_tier_;
  std::string tier_ = "none";
  uint64_t tenant_ = 0;
  uint32_t appointments_ = 1;
  std::unique_ptr<Reservation> reservation_;
  int64_t arrival_ns_ = 0;
  int64_t deadline_ns_ = 0;
  std::string request_id_;
};

// Limits of the server itself, beside those of the model.
struct RequestLimits {
  uint32_t max_prompts = 256;   // prompts in one completion request
  uint32_t max_choices = 1024;  // prompts times n
  uint32_t max_stop_strings = 16;
  uint32_t max_stop_bytes = 1024;  // of one stop string
  uint32_t max_logit_bias = 4096;  // entries
  int64_t max_timeout_ms = 24 * 3600 * 1000;
};

// Checks `params` against `model` and `limits`, renders the conversation and tokenises. Defaults:
// temperature 1, top_p 1, n 1, max_tokens 16 for completions and the rest of the context for chat,
// and a seed drawn at random. Takes time linear in the prompt, so long ones belong off the I/O
// threads. Errors carry the field's name (error.h): INVALID_ARGUMENT naming field, value and limit;
// code "context_length_exceeded" with both numbers when the prompt leaves no room for a token.
absl::StatusOr<ValidRequest> Validate(GenerateParams params,
                                      std::shared_ptr<const ModelEntry> model,
                                      const RequestLimits& limits = {});

// Fits `params` to what `caller` may ask for, validates, and reserves the caller's quota for
// prompts and longest outputs. Without a gate, or for `caller` null, it is Validate. May wait for
// the network when the gate's reservations do. Errors as those of Validate and Gate.
absl::StatusOr<ValidRequest> Admit(GenerateParams params, std::shared_ptr<const ModelEntry> model,
                                   const std::shared_ptr<const Caller>& caller,
                                   ServerContext& context);

// The tokens of one prompt: text as it is, token ids checked against the vocabulary, conversations
// through the model's template. What users wrote is encoded as plain text: the names of control
// tokens in it stay text.
absl::StatusOr<std::vector<TokenId>> EncodePrompt(const PromptInput& prompt,
                                                  const ModelEntry& model,
                                                  std::optional<bool> add_special_tokens);

}  // namespace reticle::server

#endif  // RETICLE_SERVER_CORE_VALID_REQUEST_H_
