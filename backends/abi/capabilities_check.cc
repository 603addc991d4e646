#include "backends/abi/capabilities_check.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "base/status.h"

namespace reticle::backends {
namespace {

template <size_t kSize>
absl::Status CheckText(const char* field, const char (&text)[kSize]) {
  if (std::memchr(text, '\0', kSize) == nullptr) {
    return InternalError("%s has no end within its %u bytes", field, kSize);
  }
  return absl::OkStatus();
}

absl::Status CheckHash(const char (&text)[65]) {
  const std::string_view hash(text);
  const bool hex = std::all_of(hash.begin(), hash.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
  });
  if (!hash.empty() && (hash.size() != 64 || !hex)) {
    return InternalError("model_hash is '%s'; it must be empty or 64 lower-case hex digits", hash);
  }
  return absl::OkStatus();
}

absl::Status CheckKv(const reticle_capabilities& caps) {
  if (caps.kv_token_capacity == 0) return InternalError("kv_token_capacity is 0; at least 1");
  if (caps.kv_mode == RETICLE_KV_DEVICE_SLOTS) return absl::OkStatus();
  if (caps.kv_mode != RETICLE_KV_HOST_PAGED) {
    return InternalError("kv_mode is %u; it must be %u or %u", caps.kv_mode, RETICLE_KV_HOST_PAGED,
                         RETICLE_KV_DEVICE_SLOTS);
  }
  const uint64_t in_blocks = uint64_t{caps.kv_block_tokens} * caps.kv_block_count;
  if (in_blocks == 0 || caps.kv_token_capacity > in_blocks) {
    return InternalError("kv_token_capacity is %u; kv_block_count %u of kv_block_tokens %u hold %u",
                         caps.kv_token_capacity, caps.kv_block_count, caps.kv_block_tokens,
                         in_blocks);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckCapabilities(const reticle_capabilities& caps) {
  RETURN_IF_ERROR(CheckText("device_name", caps.device_name));
  RETURN_IF_ERROR(CheckText("device_vendor", caps.device_vendor));
  RETURN_IF_ERROR(CheckText("model_name", caps.model_name));
  RETURN_IF_ERROR(CheckText("model_hash", caps.model_hash));
  RETURN_IF_ERROR(CheckHash(caps.model_hash));
  struct Positive {
    const char* field;
    uint32_t value;
  };
  for (const Positive& item : {Positive{"vocab_size", caps.vocab_size},
                               {"context_limit", caps.context_limit},
                               {"max_sequences", caps.max_sequences},
                               {"max_prefill_chunk", caps.max_prefill_chunk},
                               {"max_step_tokens", caps.max_step_tokens},
                               {"max_decode_credits", caps.max_decode_credits}}) {
    if (item.value == 0) return InternalError("%s is 0; it must be at least 1", item.field);
  }
  if (caps.device_name[0] == '\0') return InternalError("device_name is empty");
  if (caps.vocab_size == RETICLE_NO_TOKEN) {
    return InternalError("vocab_size is %u; it must be below it", caps.vocab_size);
  }
  RETURN_IF_ERROR(CheckKv(caps));
  if (caps.max_top_k > caps.vocab_size) {
    return InternalError("max_top_k is %u; the vocabulary has %u", caps.max_top_k, caps.vocab_size);
  }
  const uint32_t most = caps.max_top_k > 0 ? caps.max_top_k : caps.vocab_size;
  if (caps.default_top_k > most) {
    return InternalError("default_top_k is %u; the device takes at most %u", caps.default_top_k,
                         most);
  }
  const uint64_t with_logprobs = RETICLE_FEATURE_LOGPROBS | RETICLE_FEATURE_PROMPT_LOGPROBS;
  if ((caps.features & with_logprobs) != 0 && caps.max_logprobs == 0) {
    return InternalError("max_logprobs is 0 although features offer log-probabilities");
  }
  if ((caps.features & RETICLE_FEATURE_ADAPTERS) != 0 && caps.max_adapters == 0) {
    return InternalError("max_adapters is 0 although features offer adapters");
  }
  if (caps.event_fd < -1) {
    return InternalError("event_fd is %d; it must be a descriptor or -1", caps.event_fd);
  }
  return absl::OkStatus();
}

}  // namespace reticle::backends
