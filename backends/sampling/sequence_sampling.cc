#include "backends/sampling/sequence_sampling.h"

#include <algorithm>
#include <cmath>

#include "base/status.h"

namespace reticle::backends::sampling {
namespace {

absl::Status CheckRanges(const reticle_sampling& params) {
  if (!std::isfinite(params.temperature) || params.temperature < 0) {
    return InvalidArgumentError("temperature is %g; it must be finite and at least 0",
                                params.temperature);
  }
  if (!(params.top_p > 0 && params.top_p <= 1)) {
    return InvalidArgumentError("top_p is %g; it must be above 0 and at most 1", params.top_p);
  }
  if (!(params.min_p >= 0 && params.min_p <= 1)) {
    return InvalidArgumentError("min_p is %g; it must be at least 0 and at most 1", params.min_p);
  }
  if (!std::isfinite(params.repetition_penalty) || params.repetition_penalty <= 0) {
    return InvalidArgumentError("repetition_penalty is %g; it must be finite and above 0",
                                params.repetition_penalty);
  }
  if (!std::isfinite(params.frequency_penalty)) {
    return InvalidArgumentError("frequency_penalty is %g; it must be finite",
                                params.frequency_penalty);
  }
  if (!std::isfinite(params.presence_penalty)) {
    return InvalidArgumentError("presence_penalty is %g; it must be finite",
                                params.presence_penalty);
  }
  return absl::OkStatus();
}

absl::Status CheckIds(const char* field, const uint32_t* ids, uint32_t count, uint32_t vocab_size) {
  if (count > 0 && ids == nullptr) {
    return InvalidArgumentError("%s is NULL with a count of %u", field, count);
  }
  for (uint32_t i = 0; i < count; ++i) {
    if (ids[i] >= vocab_size) {
      return InvalidArgumentError("%s[%u] is %u; it must be below the vocabulary's %u", field, i,
                                  ids[i], vocab_size);
    }
  }
  return absl::OkStatus();
}

absl::Status CheckLogitBias(const reticle_sampling& params, uint32_t vocab_size) {
  const uint32_t count = params.logit_bias_count;
  if (count > 0 && params.logit_bias == nullptr) {
    return InvalidArgumentError("logit_bias is NULL with a count of %u", count);
  }
  if (count > vocab_size) {
    return InvalidArgumentError("logit_bias_count is %u; it must be at most the vocabulary's %u",
                                count, vocab_size);
  }
  std::vector<uint32_t> tokens;
  tokens.reserve(count);
  for (uint32_t i = 0; i < count; ++i) {
    const reticle_logit_bias& entry = params.logit_bias[i];
    if (entry.token >= vocab_size) {
      return InvalidArgumentError(
          "logit_bias[%u].token is %u; it must be below the vocabulary's %u", i, entry.token,
          vocab_size);
    }
    if (!std::isfinite(entry.bias)) {
      return InvalidArgumentError("logit_bias[%u].bias is %g; it must be finite", i, entry.bias);
    }
    tokens.push_back(entry.token);
  }
  std::sort(tokens.begin(), tokens.end());
  const auto twice = std::adjacent_find(tokens.begin(), tokens.end());
  if (twice != tokens.end()) {
    return InvalidArgumentError("logit_bias names token %u twice; once is the limit", *twice);
  }
  return absl::OkStatus();
}

absl::Status CheckFeatures(const reticle_sampling& params,
                           const reticle_capabilities& capabilities) {
  struct Need {
    bool needed;
    uint64_t feature;
    const char* what;
  };
  const bool random = params.temperature > 0;
  const Need needs[] = {
      {random, RETICLE_FEATURE_TEMPERATURE, "temperature above 0"},
      {random && params.top_p < 1, RETICLE_FEATURE_TOP_P, "top_p below 1"},
      {random && params.min_p > 0, RETICLE_FEATURE_MIN_P, "min_p above 0"},
      {HasPenalties(params), RETICLE_FEATURE_PENALTIES,
       "repetition_penalty, frequency_penalty or presence_penalty"},
      {params.logit_bias_count > 0, RETICLE_FEATURE_LOGIT_BIAS, "logit_bias"},
      {params.min_tokens > 0, RETICLE_FEATURE_MIN_TOKENS, "min_tokens above 0"},
      {params.logprobs > 0, RETICLE_FEATURE_LOGPROBS, "logprobs above 0"},
  };
  for (const Need& need : needs) {
    if (need.needed && (capabilities.features & need.feature) == 0) {
      return UnimplementedError("this device does not offer %s", need.what);
    }
  }
  return absl::OkStatus();
}

}  // namespace

bool HasPenalties(const reticle_sampling& params) {
  return params.repetition_penalty != 1 || params.frequency_penalty != 0 ||
         params.presence_penalty != 0;
}

absl::Status ValidateSampling(const reticle_sampling& params,
                              const reticle_capabilities& capabilities) {
  const uint32_t vocab_size = capabilities.vocab_size;
  RETURN_IF_ERROR(CheckRanges(params));
  RETURN_IF_ERROR(CheckFeatures(params, capabilities));
  if (params.temperature > 0 && capabilities.max_top_k != 0 &&
      (params.top_k == 0 || params.top_k > capabilities.max_top_k)) {
    return InvalidArgumentError("top_k is %u; this device needs it in 1 .. %u", params.top_k,
                                capabilities.max_top_k);
  }
  if (params.stop_id_count > capabilities.max_stop_ids) {
    return InvalidArgumentError("stop_id_count is %u; it must be at most %u", params.stop_id_count,
                                capabilities.max_stop_ids);
  }
  RETURN_IF_ERROR(CheckIds("stop_ids", params.stop_ids, params.stop_id_count, vocab_size));
  RETURN_IF_ERROR(CheckLogitBias(params, vocab_size));
  if (params.logprobs > capabilities.max_logprobs) {
    return InvalidArgumentError("logprobs is %u; it must be at most %u", params.logprobs,
                                capabilities.max_logprobs);
  }
  if (HasPenalties(params)) {
    if (params.history == nullptr) {
      return InvalidArgumentError("history is NULL; a penalty needs the tokens so far");
    }
    RETURN_IF_ERROR(CheckIds("history", params.history, params.history_count, vocab_size));
  }
  return absl::OkStatus();
}

void SequenceSampling::Set(const reticle_sampling& params) {
  params_ = params;
  is_set_ = true;
  has_penalties_ = HasPenalties(params);
  stop_ids_.assign(params.stop_ids, params.stop_ids + params.stop_id_count);
  logit_bias_.assign(params.logit_bias, params.logit_bias + params.logit_bias_count);
  params_.stop_ids = nullptr;
  params_.logit_bias = nullptr;
  params_.history = nullptr;
  counts_.clear();
  index_.clear();
  if (has_penalties_) Append({params.history, params.history_count}, 0);
}

void SequenceSampling::Append(std::span<const uint32_t> tokens, uint32_t position) {
  if (!has_penalties_) return;
  for (const uint32_t token : tokens) {
    const auto [entry, is_new] = index_.try_emplace(token, static_cast<uint32_t>(counts_.size()));
    if (is_new) counts_.push_back({token, 0});
    if (position >= params_.prompt_tokens) ++counts_[entry->second].in_output;
    ++position;
  }
}

bool SequenceSampling::IsStopId(uint32_t token) const {
  return std::find(stop_ids_.begin(), stop_ids_.end(), token) != stop_ids_.end();
}

}  // namespace reticle::backends::sampling
