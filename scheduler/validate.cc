#include "scheduler/validate.h"

#include <algorithm>
#include <cmath>

#include "base/status.h"

namespace reticle::scheduler {
namespace {

absl::Status CheckFinite(const char* field, float value) {
  if (std::isfinite(value)) return absl::OkStatus();
  return InvalidArgumentError("%s is %f; it must be finite", field, value);
}

absl::Status CheckFeature(const char* field, bool used, uint64_t feature,
                          const reticle_capabilities& caps) {
  if (!used || (caps.features & feature) != 0) return absl::OkStatus();
  return InvalidArgumentError("%s is not offered by device '%s'", field, caps.device_name);
}

absl::Status CheckToken(const char* field, TokenId token, const reticle_capabilities& caps) {
  if (token < caps.vocab_size) return absl::OkStatus();
  return InvalidArgumentError("%s holds token %u; the vocabulary has %u", field, token,
                              caps.vocab_size);
}

absl::Status CheckDistribution(const SamplingParams& sampling, const reticle_capabilities& caps) {
  RETURN_IF_ERROR(CheckFinite("temperature", sampling.temperature));
  if (sampling.temperature < 0) {
    return InvalidArgumentError("temperature is %g; it must be at least 0", sampling.temperature);
  }
  RETURN_IF_ERROR(CheckFeature("a temperature above 0", sampling.temperature > 0,
                               RETICLE_FEATURE_TEMPERATURE, caps));
  if (caps.max_top_k > 0 && sampling.top_k > caps.max_top_k) {
    return InvalidArgumentError("top_k is %u; device '%s' takes at most %u", sampling.top_k,
                                caps.device_name, caps.max_top_k);
  }
  if (!(sampling.top_p > 0 && sampling.top_p <= 1)) {
    return InvalidArgumentError("top_p is %g; it must be above 0 and at most 1", sampling.top_p);
  }
  RETURN_IF_ERROR(CheckFeature("top_p", sampling.top_p < 1, RETICLE_FEATURE_TOP_P, caps));
  if (!(sampling.min_p >= 0 && sampling.min_p <= 1)) {
    return InvalidArgumentError("min_p is %g; it must be from 0 to 1", sampling.min_p);
  }
  return CheckFeature("min_p", sampling.min_p > 0, RETICLE_FEATURE_MIN_P, caps);
}

absl::Status CheckPenalties(const SamplingParams& sampling, const reticle_capabilities& caps) {
  RETURN_IF_ERROR(CheckFinite("repetition_penalty", sampling.repetition_penalty));
  RETURN_IF_ERROR(CheckFinite("frequency_penalty", sampling.frequency_penalty));
  RETURN_IF_ERROR(CheckFinite("presence_penalty", sampling.presence_penalty));
  if (sampling.repetition_penalty <= 0) {
    return InvalidArgumentError("repetition_penalty is %g; it must be above 0",
                                sampling.repetition_penalty);
  }
  RETURN_IF_ERROR(CheckFeature("repetition_penalty", sampling.repetition_penalty != 1,
                               RETICLE_FEATURE_PENALTIES, caps));
  RETURN_IF_ERROR(CheckFeature("frequency_penalty", sampling.frequency_penalty != 0,
                               RETICLE_FEATURE_PENALTIES, caps));
  return CheckFeature("presence_penalty", sampling.presence_penalty != 0, RETICLE_FEATURE_PENALTIES,
                      caps);
}

absl::Status CheckStopIds(const SamplingParams& sampling, uint32_t max_tokens,
                          const reticle_capabilities& caps) {
  if (sampling.stop_ids.size() > caps.max_stop_ids) {
    return InvalidArgumentError("stop_ids holds %u tokens; device '%s' takes at most %u",
                                sampling.stop_ids.size(), caps.device_name, caps.max_stop_ids);
  }
  for (TokenId token : sampling.stop_ids) RETURN_IF_ERROR(CheckToken("stop_ids", token, caps));
  if (sampling.min_tokens > max_tokens) {
    return InvalidArgumentError("min_tokens is %u; it must be at most max_tokens, which is %u",
                                sampling.min_tokens, max_tokens);
  }
  return CheckFeature("min_tokens", sampling.min_tokens > 0, RETICLE_FEATURE_MIN_TOKENS, caps);
}

absl::Status CheckLogitBias(const SamplingParams& sampling, const reticle_capabilities& caps) {
  if (sampling.logit_bias.empty()) return absl::OkStatus();
  RETURN_IF_ERROR(CheckFeature("logit_bias", true, RETICLE_FEATURE_LOGIT_BIAS, caps));
  std::vector<TokenId> tokens;
  tokens.reserve(sampling.logit_bias.size());
  for (const auto& [token, bias] : sampling.logit_bias) {
    RETURN_IF_ERROR(CheckToken("logit_bias", token, caps));
    RETURN_IF_ERROR(CheckFinite("logit_bias", bias));
    tokens.push_back(token);
  }
  std::sort(tokens.begin(), tokens.end());
  const auto twice = std::adjacent_find(tokens.begin(), tokens.end());
  if (twice == tokens.end()) return absl::OkStatus();
  return InvalidArgumentError("logit_bias holds token %u twice; at most one entry a token", *twice);
}

absl::Status CheckLogprobs(const char* field, const std::optional<uint32_t>& logprobs,
                           uint64_t feature, const reticle_capabilities& caps) {
  if (!logprobs.has_value()) return absl::OkStatus();
  RETURN_IF_ERROR(CheckFeature(field, true, feature, caps));
  if (*logprobs < caps.max_logprobs) return absl::OkStatus();
  return InvalidArgumentError("%s is %u; device '%s' lists at most %u", field, *logprobs,
                              caps.device_name, caps.max_logprobs - 1);
}

absl::Status CheckPrompt(const Request& request, const reticle_capabilities& caps) {
  if (request.prompt == nullptr || request.prompt->empty()) {
    return InvalidArgumentError("prompt holds 0 tokens; it must hold at least 1");
  }
  if (request.prompt->size() >= caps.context_limit) {
    return InvalidArgumentError(
        "prompt holds %u tokens; the context holds %u, of which at least "
        "1 is for the output",
        request.prompt->size(), caps.context_limit);
  }
  const TokenId largest = *std::max_element(request.prompt->begin(), request.prompt->end());
  return CheckToken("prompt", largest, caps);
}

}  // namespace

absl::Status ValidateOutputs(const Request& request) {
  if (request.outputs.empty()) {
    return InvalidArgumentError("outputs holds 0 streams; it must hold at least 1");
  }
  for (const std::shared_ptr<TokenStream>& stream : request.outputs) {
    if (stream == nullptr) return InvalidArgumentError("outputs holds a null stream");
  }
  if (request.sampling.prompt_logprobs.has_value() && request.outputs[0]->capacity() < 2) {
    return InvalidArgumentError("outputs[0] has a capacity of %u; prompt_logprobs needs 2",
                                request.outputs[0]->capacity());
  }
  return absl::OkStatus();
}

absl::Status ValidateRequest(const Request& request, const reticle_capabilities& caps) {
  RETURN_IF_ERROR(CheckPrompt(request, caps));
  if (request.max_tokens == 0) {
    return InvalidArgumentError("max_tokens is 0; it must be at least 1");
  }
  const SamplingParams& sampling = request.sampling;
  RETURN_IF_ERROR(CheckDistribution(sampling, caps));
  RETURN_IF_ERROR(CheckPenalties(sampling, caps));
  RETURN_IF_ERROR(CheckStopIds(sampling, request.max_tokens, caps));
  RETURN_IF_ERROR(CheckLogitBias(sampling, caps));
  RETURN_IF_ERROR(CheckLogprobs("logprobs", sampling.logprobs, RETICLE_FEATURE_LOGPROBS, caps));
  RETURN_IF_ERROR(CheckLogprobs("prompt_logprobs", sampling.prompt_logprobs,
                                RETICLE_FEATURE_PROMPT_LOGPROBS, caps));
  return absl::OkStatus();
}

}  // namespace reticle::scheduler
