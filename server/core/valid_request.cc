#include "server/core/valid_request.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <set>
#include <span>
#include <utility>

#include "base/status.h"
#include "server/core/error.h"
#include "server/core/server_context.h"

namespace reticle::server {
namespace {

absl::Status Fail(const char* param, absl::Status status) {
  return WithParam(std::move(status), param);
}

absl::Status Unsupported(const char* param, const ModelEntry& model) {
  return WithCode(
      WithParam(InvalidArgumentError("%s is not supported by the device of model \"%s\"", param,
                                     model.id),
                param),
      "unsupported_parameter");
}

absl::Status CheckRange(const char* param, double value, double low, double high) {
  if (std::isfinite(value) && value >= low && value <= high) return absl::OkStatus();
  return Fail(param, InvalidArgumentError("%s is %g; it must be between %g and %g", param, value,
                                          low, high));
}

absl::Status CheckRange(const char* param, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  if (high == std::numeric_limits<int64_t>::max()) {
    return Fail(param, InvalidArgumentError("%s is %d; it must be at least %d", param, value, low));
  }
  return Fail(param, InvalidArgumentError("%s is %d; it must be between %d and %d", param, value,
                                          low, high));
}

uint64_t RandomSeed() {
  thread_local std::mt19937_64 generator = [] {
    std::random_device device;
    std::seed_seq sequence{device(), device(), device(), device()};
    return std::mt19937_64(sequence);
  }();
  return generator();
}

std::string TextOf(const tokenizer::Tokenizer& tokenizer, std::span<const TokenId> tokens) {
  std::string text;
  tokenizer::StreamingDetokenizer detokenizer(tokenizer, /*skip_special=*/true,
                                              /*at_text_start=*/true);
  for (TokenId token : tokens) detokenizer.Append(token, text);
  detokenizer.Finish(text);
  return text;
}

}  // namespace

class RequestValidator {
 public:
  RequestValidator(GenerateParams params, std::shared_ptr<const ModelEntry> model,
                   const RequestLimits& limits)
      : params_(std::move(params)), model_(*model), limits_(limits) {
    request_.model_ = std::move(model);
  }

  absl::StatusOr<ValidRequest> Run() {
    RETURN_IF_ERROR(CheckReports());
    RETURN_IF_ERROR(CheckSampling());
    RETURN_IF_ERROR(CheckLogitBias());
    RETURN_IF_ERROR(CheckStops());
    RETURN_IF_ERROR(CheckTimes());
    RETURN_IF_ERROR(EncodePrompts());
    RETURN_IF_ERROR(CheckLengths());
    request_.request_id_ = std::move(params_.request_id);
    return std::move(request_);
  }

 private:
  absl::Status CheckReports() {
    const int64_t n = params_.n.value_or(1);
    RETURN_IF_ERROR(CheckRange("n", n, 1, model_.limits.max_choices));
    request_.n_ = static_cast<uint32_t>(n);
    request_.echo_ = params_.echo;
    request_.stream_ = params_.stream;
    request_.merge_events_ = params_.merge_events;
    request_.skip_special_ = params_.skip_special_tokens;
    request_.include_stop_ = params_.include_stop_str_in_output;
    if (params_.logprobs.has_value()) {
      if (!model_.limits.logprobs) return Unsupported("logprobs", model_);
      RETURN_IF_ERROR(CheckRange("logprobs", *params_.logprobs, 0, model_.limits.max_logprobs));
      request_.sampling_.logprobs = static_cast<uint32_t>(*params_.logprobs);
    }
    std::optional<int64_t> prompt_logprobs = params_.prompt_logprobs;
    if (prompt_logprobs.has_value() && params_.stream) {
      return Fail("prompt_logprobs",
                  InvalidArgumentError("prompt_logprobs cannot be combined with stream"));
    }
    if (!prompt_logprobs.has_value() && params_.echo && !params_.echo_conversation) {
      prompt_logprobs = params_.logprobs;
    }
    if (prompt_logprobs.has_value()) {
      if (!model_.limits.prompt_logprobs) return Unsupported("prompt_logprobs", model_);
      RETURN_IF_ERROR(
          CheckRange("prompt_logprobs", *prompt_logprobs, 0, model_.limits.max_logprobs));
      request_.sampling_.prompt_logprobs = static_cast<uint32_t>(*prompt_logprobs);
    }
    return absl::OkStatus();
  }

  absl::Status CheckSampling() {
    const ModelLimits& offers = model_.limits;
    scheduler::SamplingParams& sampling = request_.sampling_;
    const double temperature = params_.temperature.value_or(offers.temperature ? 1.0 : 0.0);
    RETURN_IF_ERROR(CheckRange("temperature", temperature, 0.0, 2.0));
    if (temperature > 0 && !offers.temperature) return Unsupported("temperature", model_);
    sampling.temperature = static_cast<float>(temperature);

    const double top_p = params_.top_p.value_or(1.0);
    if (!(top_p > 0.0 && top_p <= 1.0)) {
      return Fail("top_p",
                  InvalidArgumentError("top_p is %g; it must be above 0 and at most 1", top_p));
    }
    if (top_p < 1.0 && !offers.top_p) return Unsupported("top_p", model_);
    sampling.top_p = static_cast<float>(top_p);

    // A device that ranks a limited number of tokens cannot draw from all of them.
    const bool ranks_some = offers.max_top_k > 0 && temperature > 0;
    const uint32_t unnamed = offers.default_top_k == 0 ? offers.max_top_k : offers.default_top_k;
    const int64_t top_k = params_.top_k.value_or(temperature > 0 ? unnamed : 0);
    const int64_t top_k_limit = ranks_some ? offers.max_top_k : 0x7fffffff;
    if (ranks_some && top_k > offers.max_top_k) {
      return Fail("top_k",
                  InvalidArgumentError("top_k is %d; the device of model \"%s\" draws from at most "
                                       "the %d likeliest tokens",
                                       top_k, model_.id, offers.max_top_k));
    }
    RETURN_IF_ERROR(CheckRange("top_k", top_k, ranks_some ? 1 : -1, top_k_limit));
    sampling.top_k = static_cast<uint32_t>(std::max<int64_t>(top_k, 0));

    const double min_p = params_.min_p.value_or(0.0);
    RETURN_IF_ERROR(CheckRange("min_p", min_p, 0.0, 1.0));
    if (min_p > 0 && !offers.min_p) return Unsupported("min_p", model_);
    sampling.min_p = static_cast<float>(min_p);

    const double frequency = params_.frequency_penalty.value_or(0.0);
    RETURN_IF_ERROR(CheckRange("frequency_penalty", frequency, -2.0, 2.0));
    if (frequency != 0 && !offers.penalties) return Unsupported("frequency_penalty", model_);
    sampling.frequency_penalty = static_cast<float>(frequency);

    const double presence = params_.presence_penalty.value_or(0.0);
    RETURN_IF_ERROR(CheckRange("presence_penalty", presence, -2.0, 2.0));
    if (presence != 0 && !offers.penalties) return Unsupported("presence_penalty", model_);
    sampling.presence_penalty = static_cast<float>(presence);

    const double repetition = params_.repetition_penalty.value_or(1.0);
    RETURN_IF_ERROR(CheckRange("repetition_penalty", repetition, 0.01, 100.0));
    if (repetition != 1 && !offers.penalties) return Unsupported("repetition_penalty", model_);
    sampling.repetition_penalty = static_cast<float>(repetition);

    sampling.seed = params_.seed.has_value() ? static_cast<uint64_t>(*params_.seed) : RandomSeed();
    return absl::OkStatus();
  }

  absl::Status CheckLogitBias() {
    if (params_.logit_bias.empty()) return absl::OkStatus();
    if (!model_.limits.logit_bias) return Unsupported("logit_bias", model_);
    if (params_.logit_bias.size() > limits_.max_logit_bias) {
      return Fail("logit_bias",
                  InvalidArgumentError("logit_bias has %d entries; the limit is %d",
                                       params_.logit_bias.size(), limits_.max_logit_bias));
    }
    std::set<int64_t> seen;
    for (const auto& [token, bias] : params_.logit_bias) {
      RETURN_IF_ERROR(CheckToken("logit_bias", token));
      if (!(bias >= -100.0 && bias <= 100.0)) {
        return Fail(
            "logit_bias",
            InvalidArgumentError("logit_bias of token %d is %g; it must be between -100 and 100",
                                 token, bias));
      }
      if (!seen.insert(token).second) {
        return Fail("logit_bias", InvalidArgumentError("logit_bias names token %d twice", token));
      }
      request_.sampling_.logit_bias.emplace_back(static_cast<TokenId>(token),
                                                 static_cast<float>(bias));
    }
    return absl::OkStatus();
  }

  absl::Status CheckStops() {
    if (params_.stop.size() > limits_.max_stop_strings) {
      return Fail("stop", InvalidArgumentError("stop has %d strings; the limit is %d",
                                               params_.stop.size(), limits_.max_stop_strings));
    }
    for (const std::string& stop : params_.stop) {
      if (stop.empty()) {
        return Fail("stop", InvalidArgumentError("stop holds an empty string"));
      }
      if (stop.size() > limits_.max_stop_bytes) {
        return Fail("stop", InvalidArgumentError("stop holds a string of %d bytes; the limit is %d",
                                                 stop.size(), limits_.max_stop_bytes));
      }
    }
    request_.stop_ = std::make_unique<const StopSet>(std::move(params_.stop));

    std::vector<TokenId>& ids = request_.sampling_.stop_ids;
    if (!params_.ignore_eos) {
      // A device with a smaller vocabulary cannot produce, nor take, an end token beyond it.
      for (TokenId end : model_.tokenizer->end_of_generation()) {
        if (end < model_.limits.vocab_size) ids.push_back(end);
      }
    }
    for (int64_t token : params_.stop_token_ids) {
      RETURN_IF_ERROR(CheckToken("stop_token_ids", token));
      const auto id = static_cast<TokenId>(token);
      if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
      if (ids.size() > model_.limits.max_stop_ids) {
        return Fail("stop_token_ids",
                    InvalidArgumentError("stop_token_ids and the model's own end tokens are more "
                                         "than %d; the device takes no more",
                                         model_.limits.max_stop_ids));
      }
    }
    return absl::OkStatus();
  }

  absl::Status CheckTimes() {
    const int64_t priority = params_.priority.value_or(0);
    RETURN_IF_ERROR(CheckRange("priority", priority, std::numeric_limits<int32_t>::min(),
                               std::numeric_limits<int32_t>::max()));
    request_.priority_ = static_cast<int32_t>(priority);
    std::string& tier = params_.service_tier;
    if (tier.empty() || tier == "auto") tier = "default";
    if (tier != "default" && tier != "flex" && tier != "priority") {
      return Fail("service_tier",
                  InvalidArgumentError("service_tier is \"%s\"; it must be auto, default, flex or "
                                       "priority",
                                       tier.substr(0, 64)));
    }
    request_.service_tier_ = tier;
    request_.tenant_ = params_.tenant;
    request_.appointments_ = params_.appointments;
    request_.arrival_ns_ = params_.arrival_ns;
    if (params_.timeout_ms.has_value()) {
      RETURN_IF_ERROR(CheckRange("timeout", *params_.timeout_ms, 1, limits_.max_timeout_ms));
      request_.deadline_ns_ = params_.arrival_ns + *params_.timeout_ms * 1'000'000;
    }
    return absl::OkStatus();
  }

  absl::Status EncodePrompts() {
    if (params_.prompts.empty()) {
      return Fail("prompt", InvalidArgumentError("prompt is missing"));
    }
    if (params_.prompts.size() > limits_.max_prompts) {
      return Fail("prompt", InvalidArgumentError("prompt holds %d prompts; the limit is %d",
                                                 params_.prompts.size(), limits_.max_prompts));
    }
    if (params_.prompts.size() * request_.n_ > limits_.max_choices) {
      return Fail("n",
                  InvalidArgumentError("%d prompts with n = %d are %d choices; the limit is %d",
                                       params_.prompts.size(), request_.n_,
                                       params_.prompts.size() * request_.n_, limits_.max_choices));
    }
    for (PromptInput& input : params_.prompts) {
      if (std::holds_alternative<ChatPrompt>(input)) {
        chat_ = true;
        if (params_.prompts.size() > 1 || params_.echo != params_.echo_conversation) {
          return Fail("messages",
                      InvalidArgumentError("a conversation stands alone and is not echoed"));
        }
      }
      ASSIGN_OR_RETURN(std::vector<TokenId> tokens,
                       EncodePrompt(input, model_, params_.add_special_tokens));
      RETURN_IF_ERROR(Truncate(tokens));
      if (tokens.empty()) {
        return Fail(chat_ ? "messages" : "prompt",
                    InvalidArgumentError("prompt is empty; at least one token is needed"));
      }
      ValidRequest::Prompt prompt;
      if (params_.echo) {
        auto* text = std::get_if<std::string>(&input);
        prompt.text = text != nullptr && !params_.truncate_prompt_tokens.has_value()
                          ? std::move(*text)
                          : TextOf(*model_.tokenizer, tokens);
      }
      prompt.tokens = std::make_shared<const std::vector<TokenId>>(std::move(tokens));
      request_.prompts_.push_back(std::move(prompt));
    }
    return absl::OkStatus();
  }

  absl::Status Truncate(std::vector<TokenId>& tokens) {
    if (!params_.truncate_prompt_tokens.has_value()) return absl::OkStatus();
    int64_t keep = *params_.truncate_prompt_tokens;
    const int64_t context = model_.limits.max_model_len;
    if (keep == -1) {
      const int64_t wanted = std::clamp<int64_t>(params_.max_tokens.value_or(1), 1, context - 1);
      keep = context - wanted;
    }
    RETURN_IF_ERROR(CheckRange("truncate_prompt_tokens", keep, 1, context));
    if (static_cast<int64_t>(tokens.size()) > keep) {
      tokens.erase(tokens.begin(), tokens.end() - keep);
    }
    return absl::OkStatus();
  }

  absl::Status CheckLengths() {
    const bool scores_prompt = request_.echo_ || request_.sampling_.prompt_logprobs.has_value();
    int64_t context = model_.limits.max_model_len;
    if (params_.context_bound > 0) context = std::min(context, params_.context_bound);
    int64_t longest = 0;
    for (const ValidRequest::Prompt& prompt : request_.prompts_) {
      longest = std::max<int64_t>(longest, static_cast<int64_t>(prompt.tokens->size()));
    }
    if (longest >= context) {
      return WithCode(
          Fail(chat_ ? "messages" : "prompt",
               InvalidArgumentError("This %s maximum context length is %d tokens, but the prompt "
                                    "has %d; at least one more is needed for the reply",
                                    context < model_.limits.max_model_len ? "account's" : "model's",
                                    context, longest)),
          "context_length_exceeded");
    }
    const int64_t room = context - longest;
    const int64_t bound =
        params_.output_bound > 0 ? params_.output_bound : std::numeric_limits<int64_t>::max();
    const int64_t max_tokens =
        params_.max_tokens.value_or(std::min<int64_t>(chat_ ? room : 16, bound));
    RETURN_IF_ERROR(CheckRange("max_tokens", max_tokens, scores_prompt && !chat_ ? 0 : 1, bound));
    request_.max_tokens_ =
        static_cast<uint32_t>(std::min(max_tokens, params_.context_bound > 0 ? room : context));

    const int64_t min_tokens = params_.min_tokens.value_or(0);
    RETURN_IF_ERROR(
        CheckRange("min_tokens", min_tokens, 0, static_cast<int64_t>(request_.max_tokens_)));
    if (min_tokens > 0 && !model_.limits.min_tokens) return Unsupported("min_tokens", model_);
    request_.sampling_.min_tokens = static_cast<uint32_t>(min_tokens);
    return absl::OkStatus();
  }

  absl::Status CheckToken(const char* param, int64_t token) {
    if (token >= 0 && token < static_cast<int64_t>(model_.limits.vocab_size)) {
      return absl::OkStatus();
    }
    return Fail(param,
                InvalidArgumentError("%s names token %d; this model's vocabulary has %d tokens",
                                     param, token, model_.limits.vocab_size));
  }

  GenerateParams params_;
  const ModelEntry& model_;
  const RequestLimits& limits_;
  ValidRequest request_;
  bool chat_ = false;
};

absl::StatusOr<ValidRequest> Admit(GenerateParams params, std::shared_ptr<const ModelEntry> model,
                                   const std::shared_ptr<const Caller>& caller,
                                   ServerContext& context) {
  const RequestLimits& limits = context.options().limits;
  Gate* const gate = context.options().gate;
  const bool known = gate != nullptr && caller != nullptr;
  if (absl::Status fits = known ? gate->Fit(*caller, *model, params) : absl::OkStatus();
      !fits.ok()) {
    context.NoteRefusal(caller.get(), fits);
    return fits;
  }
  absl::StatusOr<ValidRequest> request = Validate(std::move(params), std::move(model), limits);
  if (!known) {
    if (!request.ok()) context.NoteRefusal(nullptr, request.status());
    return request;
  }
  if (!request.ok()) {
    // Looking at a request costs too, the more so the longer its prompt.
    ASSIGN_OR_RETURN(const std::unique_ptr<Reservation> look, gate->Reserve(caller, 0));
    look->Settle({});
    context.NoteRefusal(caller.get(), request.status());
    return request;
  }
  request->tier_ = caller->tier;
  uint64_t tokens = 0;
  for (const ValidRequest::Prompt& prompt : request->prompts()) {
    const auto size = static_cast<uint32_t>(prompt.tokens->size());
    const uint32_t room = request->model().limits.max_model_len - size;
    tokens += size + uint64_t{std::min(request->max_tokens(), room)} * request->n();
  }
  ASSIGN_OR_RETURN(request->reservation_, gate->Reserve(caller, tokens));
  return request;
}

absl::StatusOr<ValidRequest> Validate(GenerateParams params,
                                      std::shared_ptr<const ModelEntry> model,
                                      const RequestLimits& limits) {
  return RequestValidator(std::move(params), std::move(model), limits).Run();
}

}  // namespace reticle::server
