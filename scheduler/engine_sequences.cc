#include <algorithm>

#include "base/check.h"
#include "base/status.h"
#include "scheduler/engine_impl.h"

namespace reticle::scheduler {
std::shared_ptr<Group> Engine::Impl::NewGroup(Request request) {
  auto group = std::make_shared<Group>();
  group->request = std::move(request);
  const Request& made = group->request;
  const uint32_t count = static_cast<uint32_t>(made.outputs.size());
  group->logit_bias.reserve(made.sampling.logit_bias.size());
  for (const auto& [token, bias] : made.sampling.logit_bias) {
    group->logit_bias.push_back({token, bias});
  }
  group->choices.resize(count);
  if (BlockPool* const pool = memory_.pool()) {
    const bool cache = options_.prefix_cache && made.use_prefix_cache;
    group->shares = cache || count > 1;
    group->root = pool->Root(made.adapter, cache ? 0 : next_id_);
  }
  const uint32_t full_blocks =
      static_cast<uint32_t>(made.prompt->size() - 1) / memory_.unit_tokens();
  group->prompt_published = !group->shares || full_blocks == 0;
  return group;
}

void Engine::Impl::AddSequence(const std::shared_ptr<Group>& group, SequenceProgress progress) {
  auto sequence = std::make_unique<Sequence>();
  static_cast<SequenceProgress&>(*sequence) = std::move(progress);
  sequence->id = SequenceId(next_id_);
  sequence->group = group;
  group->choices[sequence->choice] = sequence.get();
  const int64_t deadline_ns = group->request.deadline_ns;
  if (deadline_ns != 0) deadlines_.emplace(deadline_ns, next_id_);
  sequence->account = waiting_.Account(group->request.priority, group->request.tenant);
  waiting_.Add(sequence.get());
  sequences_.emplace(next_id_, std::move(sequence));
  ++next_id_;
  dirty_ = true;
}

void Engine::Impl::AddSequences(Submission submission) {
  const std::shared_ptr<Group> group = NewGroup(std::move(submission.request));
  const uint32_t count = static_cast<uint32_t>(group->choices.size());
  for (uint32_t choice = 0; choice < count; ++choice) {
    SequenceProgress progress;
    progress.choice = choice;
    progress.order = submission.order;
    AddSequence(group, std::move(progress));
  }
  // Whoever was cancelled before its stream knew this engine has notified nobody.
  for (uint32_t choice = 0; choice < count; ++choice) {
    Sequence* const sequence = group->choices[choice];
    if (sequence->stream().cancelled()) Finish(sequence, FinishReason::kCancelled, {});
  }
}

void Engine::Impl::EnterWaiting(Sequence* sequence) {
  sequence->state = Sequence::State::kWaiting;
  waiting_.Add(sequence);
  CountWaiting(sequence->request(), 1);
  dirty_ = true;
}

void Engine::Impl::LeaveWaiting(Sequence* sequence) {
  waiting_.Remove(sequence);
  CountWaiting(sequence->request(), -1);
}

void Engine::Impl::CountWaiting(const Request& request, int32_t change) {
  waiting_count_.fetch_add(static_cast<uint32_t>(change), std::memory_order_relaxed);
  if (request.priority < options_.shed_priority) return;
  shed_first_count_.fetch_add(static_cast<uint32_t>(change), std::memory_order_relaxed);
}

void Engine::Impl::EnterRunning(Sequence* sequence) {
  sequence->state = Sequence::State::kRunning;
  waiting_.OnRunning(sequence);
  running_.insert(std::lower_bound(running_.begin(), running_.end(), sequence, ServedBefore()),
                  sequence);
  sequence->slot = free_slots_.back();
  free_slots_.pop_back();
  slots_[sequence->slot] = sequence;
}

void Engine::Impl::LeaveRunning(Sequence* sequence) {
  const auto found = std::lower_bound(running_.begin(), running_.end(), sequence, ServedBefore());
  RETICLE_CHECK(found != running_.end() && *found == sequence);
  running_.erase(found);
  waiting_.OnNotRunning(sequence);
  slots_[sequence->slot] = nullptr;
  free_slots_.push_back(sequence->slot);
  sequence->lease.Release();
  sequence->on_device = false;
  sequence->positions = 0;
  sequence->in_flight = 0;
  sequence->credits = 0;
  sequence->units_sent = 0;
  sequence->sampling_sent = false;
  sequence->reports_due = 0;
  sequence->full_since_ns = -1;
  dirty_ = true;
}

void Engine::Impl::Preempt(Sequence* sequence) {
  ++sequence->preemptions;
  probe_.OnPreemption();
  if (!sequence->on_device) {
    Requeue(sequence);
    return;
  }
  sequence->state = Sequence::State::kRequeue;
  device_->Cancel(sequence->device_id).IgnoreError();
}

void Engine::Impl::Requeue(Sequence* sequence) {
  LeaveRunning(sequence);
  EnterWaiting(sequence);
}

void Engine::Impl::Recover(Sequence* sequence, const absl::Status& status) {
  ++sequence->recoveries;
  if (++sequence->fruitless > options_.max_recoveries) {
    Finish(
        sequence, FinishReason::kError,
        UnavailableError("given up after %u recoveries without a token, at most %u are tried: %s",
                         sequence->fruitless - 1, options_.max_recoveries, status.message()));
    return;
  }
  if (!sequence->on_device) {
    Requeue(sequence);
  } else {
    sequence->state = Sequence::State::kRequeue;
  }
}

void Engine::Impl::Finish(Sequence* sequence, FinishReason reason, absl::Status status) {
  RETICLE_CHECK(sequence->state != Sequence::State::kFinished);
  const Request& request = sequence->request();
  SequenceEnd end;
  end.reason = reason;
  end.status = std::move(status);
  end.prompt_tokens = sequence->prompt_tokens();
  end.cached_tokens = sequence->cached_tokens;
  end.output_tokens = sequence->output_tokens();
  const auto elapsed = [](int64_t from, int64_t to) { return std::max<int64_t>(to - from, 0); };
  const bool admitted = sequence->admitted_ns >= 0;
  const bool answered = sequence->first_token_ns >= 0;
  end.queue_ns = elapsed(request.arrival_ns, admitted ? sequence->admitted_ns : now_ns_);
  if (admitted) {
    end.prefill_ns = elapsed(sequence->admitted_ns, answered ? sequence->first_token_ns : now_ns_);
  }
  if (answered) end.decode_ns = elapsed(sequence->first_token_ns, sequence->last_token_ns);
  end.device_busy_ns = sequence->device_busy_ns;
  end.energy_nj = sequence->energy_nj;
  end.preemptions = sequence->preemptions;
  end.recoveries = sequence->recoveries;
  probe_.OnFinished(request, end);
  sequence->stream().Finish(std::move(end));
  Touch(sequence);

  Group& group = *sequence->group;
  group.choices[sequence->choice] = nullptr;
  if (request.deadline_ns != 0) deadlines_.erase({request.deadline_ns, sequence->id.value()});
  dirty_ = true;

  switch (sequence->state) {
    case Sequence::State::kWaiting:
      LeaveWaiting(sequence);
      Remove(sequence);
      break;
    case Sequence::State::kRunning:
    case Sequence::State::kRequeue:
      if (!sequence->on_device) {
        LeaveRunning(sequence);
        Remove(sequence);
      } else if (sequence->state == Sequence::State::kRunning) {
        device_->Cancel(sequence->device_id).IgnoreError();
      }
      break;
    case Sequence::State::kFinished:
      break;
  }
  sequence->state = Sequence::State::kFinished;
}

void Engine::Impl::Remove(Sequence* sequence) {
  sequence->removed = true;
  const auto found = sequences_.find(sequence->id.value());
  gone_.push_back(std::move(found->second));
  sequences_.erase(found);
}

void Engine::Impl::Touch(Sequence* sequence) {
  if (sequence->touched) return;
  sequence->touched = true;
  touched_.push_back(sequence);
}

void Engine::Impl::FinishCancelled() {
  std::vector<Sequence*> cancelled;
  for (const auto& [id, sequence] : sequences_) {
    if (sequence->state != Sequence::State::kFinished && sequence->stream().cancelled()) {
      cancelled.push_back(sequence.get());
    }
  }
  std::sort(cancelled.begin(), cancelled.end(), ServedBefore());
  for (Sequence* sequence : cancelled) Finish(sequence, FinishReason::kCancelled, {});
}

void Engine::Impl::FinishAll(const absl::Status& status) {
  std::vector<Sequence*> all;
  for (const auto& [id, sequence] : sequences_) {
    if (sequence->state != Sequence::State::kFinished) all.push_back(sequence.get());
  }
  std::sort(all.begin(), all.end(), ServedBefore());
  for (Sequence* sequence : all) Finish(sequence, FinishReason::kError, status);
}

}  // namespace reticle::scheduler
