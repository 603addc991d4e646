#include "backends/abi/work_check.h"

#include <algorithm>

#include "base/status.h"

namespace reticle::backends {
namespace {

absl::Status CheckTokens(const reticle_work& work, const SequenceView& sequence,
                         const reticle_capabilities& capabilities) {
  if (sequence.credits > 0) {
    return InvalidArgumentError(
        "token_count is %u while the sequence holds %u credits; it must be 0", work.token_count,
        sequence.credits);
  }
  if (work.tokens == nullptr) {
    return InvalidArgumentError("tokens is NULL with a token_count of %u", work.token_count);
  }
  if (work.token_count > capabilities.max_prefill_chunk) {
    return InvalidArgumentError("token_count is %u; it must be at most max_prefill_chunk, %u",
                                work.token_count, capabilities.max_prefill_chunk);
  }
  const bool may_begin_late = sequence.state == SequenceView::State::kUnknown &&
                              capabilities.kv_mode == RETICLE_KV_HOST_PAGED;
  if (!may_begin_late && work.position != sequence.next_position) {
    return InvalidArgumentError("position is %u; it must be %u, where the sequence stands",
                                work.position, sequence.next_position);
  }
  const uint64_t end = uint64_t{work.position} + work.token_count;
  const uint64_t needed = end + (work.decode_credits > 0 ? 1 : 0);
  if (needed > capabilities.context_limit) {
    return InvalidArgumentError("position %u + token_count %u%s passes the context limit of %u",
                                work.position, work.token_count,
                                work.decode_credits > 0 ? " + 1 sampled token" : "",
                                capabilities.context_limit);
  }
  for (uint32_t i = 0; i < work.token_count; ++i) {
    if (work.tokens[i] >= capabilities.vocab_size) {
      return InvalidArgumentError("tokens[%u] is %u; it must be below the vocabulary's %u", i,
                                  work.tokens[i], capabilities.vocab_size);
    }
  }
  return absl::OkStatus();
}

absl::Status CheckTopUp(const reticle_work& work, const SequenceView& sequence) {
  if (work.decode_credits == 0) {
    return InvalidArgumentError("token_count and decode_credits are both 0; one must not be");
  }
  if (sequence.credits == 0 && !sequence.has_sampled) {
    return InvalidArgumentError(
        "token_count is 0 but the sequence has sampled no token to go on from; it must be at "
        "least 1");
  }
  return absl::OkStatus();
}

absl::Status CheckPromptLogprobs(const reticle_work& work,
                                 const reticle_capabilities& capabilities) {
  if ((work.flags & ~RETICLE_WORK_PROMPT_LOGPROBS) != 0) {
    return InvalidArgumentError("flags is 0x%x; bits beyond 0x%x are not known", work.flags,
                                RETICLE_WORK_PROMPT_LOGPROBS);
  }
  if ((work.flags & RETICLE_WORK_PROMPT_LOGPROBS) == 0) return absl::OkStatus();
  if ((capabilities.features & RETICLE_FEATURE_PROMPT_LOGPROBS) == 0) {
    return UnimplementedError("this device does not offer prompt log-probabilities");
  }
  if (work.token_count == 0) {
    return InvalidArgumentError("RETICLE_WORK_PROMPT_LOGPROBS needs a token_count of at least 1");
  }
  if (work.prompt_logprobs >= capabilities.max_logprobs) {
    return InvalidArgumentError("prompt_logprobs is %u; it must be below max_logprobs, %u",
                                work.prompt_logprobs, capabilities.max_logprobs);
  }
  if (work.next_token != RETICLE_NO_TOKEN && work.next_token >= capabilities.vocab_size) {
    return InvalidArgumentError("next_token is %u; it must be below the vocabulary's %u",
                                work.next_token, capabilities.vocab_size);
  }
  return absl::OkStatus();
}

absl::Status CheckSamplingPlace(const reticle_work& work, const reticle_sampling* sampling,
                                const SequenceView& sequence) {
  if (sampling == nullptr) {
    if (work.decode_credits > 0 && !sequence.has_sampling) {
      return InvalidArgumentError(
          "sampling is NULL; the first item that grants credits (%u) needs parameters",
          work.decode_credits);
    }
    return absl::OkStatus();
  }
  if (work.token_count == 0) {
    return InvalidArgumentError("sampling comes with a token_count of 0; it needs tokens");
  }
  const uint64_t end = uint64_t{work.position} + work.token_count;
  if (sampling->history != nullptr && sampling->history_count != end) {
    return InvalidArgumentError("history_count is %u; it must be position + token_count, %u",
                                sampling->history_count, end);
  }
  return absl::OkStatus();
}

absl::Status CheckMask(const reticle_work& work, const SequenceView& sequence,
                       const reticle_capabilities& capabilities) {
  if (work.token_mask == nullptr) return absl::OkStatus();
  if ((capabilities.features & RETICLE_FEATURE_TOKEN_MASK) == 0) {
    return UnimplementedError("this device does not offer token_mask");
  }
  if (work.decode_credits != 1 || sequence.credits != 0) {
    return InvalidArgumentError(
        "token_mask with decode_credits %u for a sequence that holds %u; it needs 1 and 0",
        work.decode_credits, sequence.credits);
  }
  const uint32_t vocab_size = capabilities.vocab_size;
  for (uint32_t word = 0; word < vocab_size / 32; ++word) {
    if (work.token_mask[word] != 0) return absl::OkStatus();
  }
  const uint32_t rest = vocab_size % 32;
  if (rest != 0 && (work.token_mask[vocab_size / 32] & ((1u << rest) - 1)) != 0) {
    return absl::OkStatus();
  }
  return InvalidArgumentError("token_mask allows none of the vocabulary's %u tokens", vocab_size);
}

absl::Status CheckBlocks(const reticle_work& work, const SequenceView& sequence,
                         const reticle_capabilities& capabilities) {
  if (work.kv_blocks == nullptr && work.kv_block_count != 0) {
    return InvalidArgumentError("kv_blocks is NULL with a kv_block_count of %u",
                                work.kv_block_count);
  }
  if (capabilities.kv_mode != RETICLE_KV_HOST_PAGED) {
    if (work.kv_blocks == nullptr) return absl::OkStatus();
    return InvalidArgumentError(
        "kv_block_count is %u; this device keeps its KV by itself, so "
        "kv_blocks must be NULL",
        work.kv_block_count);
  }
  for (uint32_t i = 0; i < work.kv_block_count; ++i) {
    if (work.kv_blocks[i] >= capabilities.kv_block_count) {
      return InvalidArgumentError("kv_blocks[%u] is %u; it must be below %u", i, work.kv_blocks[i],
                                  capabilities.kv_block_count);
    }
  }
  const uint32_t blocks = work.kv_blocks != nullptr ? work.kv_block_count : sequence.kv_block_count;
  const uint64_t fed = FedWhenSpent(work, sequence, capabilities.context_limit);
  if (fed > uint64_t{blocks} * capabilities.kv_block_tokens) {
    return InvalidArgumentError("kv_block_count is %u, which holds %u positions; the work needs %u",
                                blocks, uint64_t{blocks} * capabilities.kv_block_tokens, fed);
  }
  return absl::OkStatus();
}

}  // namespace

uint64_t FedWhenSpent(const reticle_work& work, const SequenceView& sequence,
                      uint32_t context_limit) {
  if (work.token_count > 0) {
    const uint64_t end = uint64_t{work.position} + work.token_count;
    if (work.decode_credits == 0) return end;
    return std::min<uint64_t>(end + work.decode_credits - 1, context_limit - 1);
  }
  const uint64_t credits = uint64_t{sequence.credits} + work.decode_credits;
  return std::min<uint64_t>(sequence.next_position + credits - (sequence.has_sampled ? 0 : 1),
                            context_limit - 1);
}

absl::Status CheckWork(const reticle_work& work, const reticle_sampling* sampling,
                       const SequenceView& sequence, const reticle_capabilities& capabilities) {
  if (sequence.state == SequenceView::State::kEnded) {
    return NotFoundError("sequence %u has ended; its end waits to be polled", work.sequence);
  }
  if (sequence.state == SequenceView::State::kUnknown && work.token_count == 0) {
    return NotFoundError("sequence %u is not alive, and token_count 0 begins none", work.sequence);
  }
  RETURN_IF_ERROR(work.token_count > 0 ? CheckTokens(work, sequence, capabilities)
                                       : CheckTopUp(work, sequence));
  if (uint64_t{sequence.credits} + work.decode_credits > capabilities.max_decode_credits) {
    return InvalidArgumentError(
        "decode_credits is %u for a sequence that holds %u; together at most %u",
        work.decode_credits, sequence.credits, capabilities.max_decode_credits);
  }
  if (work.adapter != 0 && (capabilities.features & RETICLE_FEATURE_ADAPTERS) == 0) {
    return UnimplementedError("adapter is %u; this device does not offer adapters", work.adapter);
  }
  if (sequence.state == SequenceView::State::kAlive && work.adapter != sequence.adapter) {
    return InvalidArgumentError("adapter is %u; the sequence began with %u", work.adapter,
                                sequence.adapter);
  }
  RETURN_IF_ERROR(CheckPromptLogprobs(work, capabilities));
  RETURN_IF_ERROR(CheckSamplingPlace(work, sampling, sequence));
  RETURN_IF_ERROR(CheckMask(work, sequence, capabilities));
  return CheckBlocks(work, sequence, capabilities);
}

}  // namespace reticle::backends
