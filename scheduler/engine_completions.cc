#include <algorithm>

#include "base/check.h"
#include "base/status.h"
#include "scheduler/engine_impl.h"

namespace reticle::scheduler {
namespace {

std::unique_ptr<TokenLogprobs> CopyLogprobs(const reticle_completion& completion) {
  auto logprobs = std::make_unique<TokenLogprobs>();
  logprobs->logprob = completion.logprob;
  logprobs->rank = completion.rank;
  logprobs->top.reserve(completion.top_count);
  for (uint32_t i = 0; i < completion.top_count; ++i) {
    logprobs->top.emplace_back(completion.top[i].token, completion.top[i].logprob);
  }
  return logprobs;
}

absl::Status StatusOf(const reticle_completion& completion) {
  const bool known = completion.status > RETICLE_OK && completion.status <= RETICLE_DATA_LOSS;
  return absl::Status(
      known ? static_cast<absl::StatusCode>(completion.status) : absl::StatusCode::kUnknown,
      completion.message != nullptr ? completion.message : "the device gave none");
}

}  // namespace

bool Engine::Impl::PollDevice() {
  bool any = false;
  while (true) {
    const absl::StatusOr<size_t> count = device_->Poll(completions_);
    if (!count.ok()) {
      OnDeviceLost(count.status());
      return true;
    }
    if (*count == 0) return any;
    now_ns_ = clock_.NowNanos();
    any = true;
    for (size_t i = 0; i < *count; ++i) OnCompletion(completions_[i]);
    FeedWatchdog();
    if (*count < completions_.size()) return true;
  }
}

Sequence* Engine::Impl::FindOnDevice(const reticle_completion& completion) {
  const auto is_meant = [&completion](const Sequence* sequence) {
    return sequence != nullptr && sequence->on_device && sequence->device_id == completion.sequence;
  };
  if (completion.tag < slots_.size() && is_meant(slots_[completion.tag])) {
    return slots_[completion.tag];
  }
  // An end before the device has looked at the first item may come without its tag.
  const auto found = std::find_if(slots_.begin(), slots_.end(), is_meant);
  return found == slots_.end() ? nullptr : *found;
}

void Engine::Impl::OnCompletion(const reticle_completion& completion) {
  Sequence* const sequence = FindOnDevice(completion);
  if (sequence == nullptr) return;  // of before a reset that was given up
  const bool ended = completion.finish != RETICLE_FINISH_NONE;
  if (ended) sequence->on_device = false;
  if (retry_timer_ns_ != INT64_MAX) dirty_ = true;
  sequence->device_busy_ns += completion.busy_ns;
  sequence->energy_nj += completion.energy_nj;
  switch (completion.kind) {
    case RETICLE_COMPLETION_PREFILL:
      OnPrefill(sequence, completion);
      break;
    case RETICLE_COMPLETION_PROMPT_LOGPROB:
      OnPromptLogprob(sequence, completion);
      break;
    case RETICLE_COMPLETION_TOKEN:
      OnToken(sequence, completion);
      break;
    default:
      break;
  }
  if (ended && !sequence->removed) OnDeviceEnd(sequence, completion);
}

void Engine::Impl::OnPrefill(Sequence* sequence, const reticle_completion& completion) {
  // One token behind the prompt is a decoding step, not part of a prompt.
  const bool decoding =
      sequence->in_flight == 1 && completion.position >= sequence->prompt_tokens();
  if (!decoding) step_prefill_tokens_ += sequence->in_flight;
  sequence->in_flight = 0;
  sequence->reports_due = 0;
  dirty_ = true;
  PublishBlocks(sequence, completion.position + 1);
}

void Engine::Impl::OnPromptLogprob(Sequence* sequence, const reticle_completion& completion) {
  if (sequence->reports_due > 0) --sequence->reports_due;
  if (sequence->state == Sequence::State::kFinished) return;
  if (completion.position != sequence->prompt_reported || !sequence->reports_prompt()) return;
  if (sequence->stream().FreeSlots() == 0) return;
  TokenEvent event;
  event.kind = TokenEvent::Kind::kPromptToken;
  event.token = sequence->tokens[completion.position];
  event.device_ns = device_clock_.ToHost(completion.device_time_ns, now_ns_);
  event.ready_ns = now_ns_;
  event.logprobs = CopyLogprobs(completion);
  sequence->stream().Push(std::move(event));
  ++sequence->prompt_reported;
  Touch(sequence);
}

void Engine::Impl::OnToken(Sequence* sequence, const reticle_completion& completion) {
  ++step_decode_tokens_;
  sequence->in_flight = 0;
  sequence->reports_due = 0;
  if (sequence->state == Sequence::State::kFinished) return;
  if (sequence->credits == 0 || completion.position != sequence->known_tokens() ||
      completion.token >= capabilities_.vocab_size || sequence->stream().FreeSlots() == 0) {
    Finish(sequence, FinishReason::kError,
           InternalError("the device sent token %u for position %u; awaited was position %u, "
                         "credits held %u",
                         completion.token, completion.position, sequence->known_tokens(),
                         sequence->credits));
    return;
  }
  --sequence->credits;
  sequence->account->served += kOutputWeight;
  sequence->fruitless = 0;
  if (sequence->credits <= limits_.run_ahead / 2) dirty_ = true;
  PublishBlocks(sequence, completion.position);
  sequence->tokens.push_back(completion.token);

  TokenEvent event;
  event.is_stop_id = completion.finish == RETICLE_FINISH_STOP_ID;
  event.token = completion.token;
  event.device_ns = device_clock_.ToHost(completion.device_time_ns, now_ns_);
  event.ready_ns = now_ns_;
  if (sequence->request().sampling.logprobs.has_value()) event.logprobs = CopyLogprobs(completion);
  sequence->stream().Push(std::move(event));
  Touch(sequence);
  if (sequence->first_token_ns < 0) {
    sequence->first_token_ns = now_ns_;
    probe_.OnFirstToken(now_ns_ - sequence->request().arrival_ns);
  } else {
    ++sequence->gaps;
    sequence->gaps_ns += now_ns_ - sequence->last_token_ns;
  }
  sequence->last_token_ns = now_ns_;

  if (completion.finish == RETICLE_FINISH_STOP_ID) {
    Finish(sequence, FinishReason::kStop, {});
  } else if (sequence->output_tokens() >= sequence->request().max_tokens ||
             sequence->known_tokens() >= capabilities_.context_limit) {
    Finish(sequence, FinishReason::kLength, {});
  }
}

void Engine::Impl::OnDeviceEnd(Sequence* sequence, const reticle_completion& completion) {
  switch (sequence->state) {
    case Sequence::State::kFinished:
      LeaveRunning(sequence);
      Remove(sequence);
      return;
    case Sequence::State::kRequeue:
      Requeue(sequence);
      return;
    case Sequence::State::kRunning:
      break;
    case Sequence::State::kWaiting:
      RETICLE_CHECK(false);
  }
  const absl::Status status = completion.finish == RETICLE_FINISH_ERROR
                                  ? StatusOf(completion)
                                  : absl::AbortedError("the device ended the sequence by itself");
  switch (status.code()) {
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kResourceExhausted:
      Recover(sequence, status);
      return;
    case absl::StatusCode::kFailedPrecondition:  // the request bans every token
      Finish(sequence, FinishReason::kError, status);
      return;
    default:
      Finish(sequence, FinishReason::kError, DeviceFailure(status));
  }
}

void Engine::Impl::PublishBlocks(Sequence* sequence, uint32_t valid_tokens) {
  BlockPool* const pool = memory_.pool();
  if (pool == nullptr || !sequence->group->shares) return;
  valid_tokens = std::min(valid_tokens, sequence->known_tokens());
  pool->Publish(&sequence->lease.table(), sequence->tokens, valid_tokens);
  Group& group = *sequence->group;
  if (group.prompt_published) return;
  const uint32_t unit = memory_.unit_tokens();
  if (valid_tokens / unit >= (sequence->prompt_tokens() - 1) / unit) {
    group.prompt_published = true;
    dirty_ = true;
  }
}

}  // namespace reticle::scheduler
