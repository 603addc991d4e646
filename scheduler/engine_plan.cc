#include <algorithm>

#include "base/check.h"
#include "base/status.h"
#include "scheduler/engine_impl.h"

namespace reticle::scheduler {
namespace {

constexpr int64_t kRetryNs = 1'000'000;
// Output tokens for which a sequence has room from the start: what is not touched costs no memory,
// and what grows later has to be copied between two tokens.
constexpr uint32_t kReservedOutput = 65536;
// Waiting sequences that are looked at although no place is free.
constexpr size_t kNewcomers = 8;

}  // namespace

bool Engine::Impl::PlanAndSubmit() {
  if (!dirty_ || lost()) return false;
  if (lockstep_ && std::any_of(running_.begin(), running_.end(), [](const Sequence* sequence) {
        return sequence->state == Sequence::State::kRunning && !sequence->idle();
      })) {
    return false;
  }
  dirty_ = false;
  retry_timer_ns_ = INT64_MAX;
  TakeSnapshot();
  MakePlan(snapshot_, &plan_);
  if (plan_.empty()) return false;
  Apply();
  SubmitWork();
  if (!owed_) FeedWatchdog();
  return true;
}

void Engine::Impl::TakeTurn() {
  demands_.clear();
  const auto demand_of = [this](const Sequence* sequence) -> AdapterDemand& {
    const uint64_t adapter = sequence->request().adapter;
    for (AdapterDemand& demand : demands_) {
      if (demand.adapter == adapter) return demand;
    }
    return demands_.emplace_back(AdapterDemand{.adapter = adapter});
  };
  for (const Sequence* sequence : running_) {
    AdapterDemand& demand = demand_of(sequence);
    demand.busy = demand.busy || sequence->owed();
    if (sequence->state != Sequence::State::kRunning) continue;
    demand.wants = demand.wants || !sequence->idle() || sequence->stream().FreeSlots() > 0;
  }
  for (const Sequence* sequence : waiting_.All()) {
    AdapterDemand& demand = demand_of(sequence);
    demand.wants = demand.wants || sequence->stream().FreeSlots() > 0;
  }
  turn_ = PlanAdapter(turn_.turn, demands_, now_ns_, adapter_turn_ns_);
  current_adapter_.store(turn_.turn.adapter, std::memory_order_relaxed);
  stall_timer_ns_ = std::min(stall_timer_ns_, turn_.ends_ns);
}

void Engine::Impl::TakeSnapshot() {
  stall_timer_ns_ = INT64_MAX;
  if (swaps_adapters_) TakeTurn();
  snapshot_.free_units = memory_.free();
  snapshot_.running.clear();
  owed_ = false;
  for (Sequence* sequence : running_) {
    owed_ = owed_ || sequence->owed();
    snapshot_.running.push_back(SnapshotRunning(*sequence));
  }
  snapshot_.waiting.clear();
  candidates_.clear();
  // Tenants below their share may get the places of others.
  const size_t free_slots = limits_.max_running - running_.size();
  const size_t wanted = free_slots > kNewcomers ? free_slots : free_slots + kNewcomers;
  FairQueue::Cursor cursor(waiting_);
  while (candidates_.size() < wanted) {
    Sequence* const sequence = cursor.Next();
    if (sequence == nullptr) break;
    if (HeldBySibling(*sequence) || !HasTurn(*sequence)) continue;
    // The first token of a prompt is reported at once, without a log-probability.
    const uint32_t at_once = sequence->reports_prompt() && sequence->prompt_reported == 0 ? 1 : 0;
    if (!sequence->stream().AwaitRoom(at_once)) continue;
    snapshot_.waiting.push_back(SnapshotWaiting(*sequence));
    snapshot_.waiting.back().event_room =
        static_cast<uint32_t>(sequence->stream().FreeSlots()) - at_once;
    candidates_.push_back(sequence);
  }
  MarkShares();
}

void Engine::Impl::MarkShares() {
  // Only priorities at which somebody waits matter.
  for (size_t first = 0; first < candidates_.size();) {
    const int32_t priority = candidates_[first]->request().priority;
    size_t end = first;
    while (end < candidates_.size() && candidates_[end]->request().priority == priority) ++end;
    if (waiting_.Contended(priority)) {
      const uint32_t share = waiting_.Share(priority, limits_.max_running);
      double least = 0;
      bool below = false;
      for (size_t i = first; i < end; ++i) {
        const FairAccount& account = *candidates_[i]->account;
        if (account.running >= share) continue;
        snapshot_.waiting[i].below_share = true;
        least = below ? std::min(least, account.served) : account.served;
        below = true;
      }
      for (Sequence* sequence : running_) {
        FairAccount& account = *sequence->account;
        account.surplus = account.running > share ? account.running - share : 0;
      }
      for (size_t i = running_.size(); below && i > 0; --i) {
        FairAccount& account = *running_[i - 1]->account;
        if (running_[i - 1]->request().priority != priority || account.surplus == 0) continue;
        if (account.served < least) continue;
        --account.surplus;
        snapshot_.running[i - 1].surplus = true;
      }
    }
    first = end;
  }
}

RunningSnapshot Engine::Impl::SnapshotRunning(Sequence& sequence) {
  RunningSnapshot made;
  made.priority = sequence.request().priority;
  made.in_flight = sequence.in_flight;
  made.credits = sequence.credits;
  made.positions = sequence.positions;
  made.units = sequence.lease.units();
  made.leaving = sequence.state != Sequence::State::kRunning;
  if (made.leaving) return made;
  if (!HasTurn(sequence)) {
    // Its place is anybody's who has the turn.
    made.stalled = sequence.idle() && !turn_.finishing;
    return made;
  }
  if (sequence.idle()) made.pending = sequence.known_tokens() - sequence.positions;
  made.output_room = OutputRoom(sequence);
  made.event_per_token = sequence.reports_prompt();
  TokenStream& stream = sequence.stream();
  const uint32_t promised = sequence.promised_events();
  if (sequence.idle() && !stream.AwaitRoom(promised)) {
    if (sequence.full_since_ns < 0) sequence.full_since_ns = now_ns_;
    const int64_t stalls_ns = sequence.full_since_ns + options_.stall_ns;
    made.stalled = now_ns_ >= stalls_ns;
    if (!made.stalled) stall_timer_ns_ = std::min(stall_timer_ns_, stalls_ns);
    return made;
  }
  sequence.full_since_ns = -1;
  made.event_room = static_cast<uint32_t>(stream.FreeSlots()) - promised;
  return made;
}

WaitingSnapshot Engine::Impl::SnapshotWaiting(Sequence& sequence) {
  WaitingSnapshot made;
  made.priority = sequence.request().priority;
  made.tokens = sequence.known_tokens();
  if (BlockPool* const pool = memory_.pool()) {
    const BlockPool::Match match = pool->Find(UsableNames(sequence));
    made.cached = match.blocks * memory_.unit_tokens();
    made.cached_free_units = match.unreferenced;
  }
  made.output_room = OutputRoom(sequence);
  made.event_per_token = sequence.reports_prompt();
  return made;
}

uint32_t Engine::Impl::OutputRoom(const Sequence& sequence) const {
  const uint32_t left = std::min(sequence.request().max_tokens - sequence.output_tokens(),
                                 capabilities_.context_limit - sequence.known_tokens());
  return left - std::min(left, sequence.credits);
}

bool Engine::Impl::HeldBySibling(const Sequence& sequence) const {
  const Group& group = *sequence.group;
  if (group.prompt_published) return false;
  const auto first = std::find_if(group.choices.begin(), group.choices.end(),
                                  [](const Sequence* choice) { return choice != nullptr; });
  return *first != &sequence;
}

std::span<const Hash128> Engine::Impl::UsableNames(Sequence& sequence) {
  const Group& group = *sequence.group;
  if (!group.shares) return {};
  // At least one token is fed, so that there is something to sample from; and whatever gives a
  // log-probability that is still to be reported.
  uint32_t tokens = sequence.known_tokens() - 1;
  if (sequence.reports_prompt()) {
    tokens = std::min(tokens, std::max(sequence.prompt_reported, 1u) - 1);
  }
  const uint32_t blocks = tokens / memory_.unit_tokens();
  if (sequence.names.size() < blocks) {
    const std::vector<TokenId>& known =
        sequence.tokens.empty() ? *sequence.request().prompt : sequence.tokens;
    memory_.pool()->NamePrefix(group.root, known, blocks, &sequence.names);
  }
  return std::span<const Hash128>(sequence.names).first(blocks);
}

void Engine::Impl::Apply() {
  work_.clear();
  work_sequences_.clear();
  samplings_.clear();
  std::vector<Sequence*> preempted;
  preempted.reserve(plan_.preempt.size());
  for (uint32_t index : plan_.preempt) preempted.push_back(running_[index]);
  for (const PlannedWork& work : plan_.work) AddWork(running_[work.index], work);
  for (const PlannedWork& work : plan_.admit) {
    if (!Admit(candidates_[work.index], work)) break;
  }
  for (Sequence* sequence : preempted) Preempt(sequence);
}

bool Engine::Impl::Admit(Sequence* sequence, PlannedWork work) {
  const WaitingSnapshot& seen = snapshot_.waiting[work.index];
  const uint32_t unit = memory_.unit_tokens();
  KvLease lease = memory_.NewLease(sequence->group->root);
  uint32_t cached_units = 0;
  if (BlockPool* const pool = memory_.pool()) {
    cached_units = pool->Acquire(UsableNames(*sequence), &lease.table());
  }
  // An admission ahead of this one may have evicted what the snapshot saw.
  const uint32_t units = std::max(seen.cached / unit + work.new_units, cached_units);
  if (!memory_.Extend(&lease, units - cached_units)) {
    dirty_ = true;
    return false;
  }
  LeaveWaiting(sequence);
  EnterRunning(sequence);
  sequence->lease = std::move(lease);
  sequence->positions = cached_units * unit;
  if (sequence->tokens.empty()) {
    const std::vector<TokenId>& prompt = *sequence->request().prompt;
    sequence->tokens.reserve(prompt.size() +
                             std::min(sequence->request().max_tokens, kReservedOutput));
    sequence->tokens.assign(prompt.begin(), prompt.end());
  }
  if (sequence->admitted_ns < 0) {
    const bool shed_first = sequence->request().priority >= options_.shed_priority;
    const uint32_t others = shed_first_count_.load(std::memory_order_relaxed);
    const uint32_t behind =
        shed_first ? others : waiting_count_.load(std::memory_order_relaxed) - others;
    if (behind > 0) {
      paces_[shed_first ? 1 : 0].OnAdmitted(sequence->request().arrival_ns, now_ns_);
    }
    sequence->account->served +=
        kInputWeight *
        (sequence->prompt_tokens() - std::min(sequence->positions, sequence->prompt_tokens()));
    sequence->admitted_ns = now_ns_;
    sequence->cached_tokens = sequence->positions;
    probe_.OnAdmitted(sequence->request(), sequence->prompt_tokens(), sequence->cached_tokens,
                      std::max<int64_t>(now_ns_ - sequence->request().arrival_ns, 0));
  }
  if (sequence->reports_prompt() && sequence->prompt_reported == 0) {
    TokenEvent event;
    event.kind = TokenEvent::Kind::kPromptToken;
    event.token = sequence->tokens[0];
    event.device_ns = now_ns_;
    event.ready_ns = now_ns_;
    sequence->stream().Push(std::move(event));
    sequence->prompt_reported = 1;
    Touch(sequence);
  }
  const uint32_t pending = sequence->known_tokens() - sequence->positions;
  work.tokens = std::min(work.tokens, pending);
  if (work.tokens < pending) work.credits = 0;
  work.new_units = 0;
  AddWork(sequence, work);
  return true;
}

void Engine::Impl::AddWork(Sequence* sequence, const PlannedWork& work) {
  if (!memory_.Extend(&sequence->lease, work.new_units)) {
    dirty_ = true;
    return;
  }
  if (!sequence->on_device) sequence->device_id = next_device_id_++;
  reticle_work item{};
  item.struct_size = sizeof(item);
  item.sequence = sequence->device_id;
  item.tag = sequence->slot;
  item.adapter = sequence->request().adapter;
  item.decode_credits = work.credits;
  item.token_count = work.tokens;
  item.next_token = RETICLE_NO_TOKEN;
  if (work.tokens > 0) {
    item.position = sequence->positions;
    item.tokens = sequence->tokens.data() + item.position;
    const uint32_t after = item.position + item.token_count;
    if (sequence->reports_prompt()) {
      item.flags |= RETICLE_WORK_PROMPT_LOGPROBS;
      item.prompt_logprobs = *sequence->request().sampling.prompt_logprobs;
      if (after < sequence->prompt_tokens()) item.next_token = sequence->tokens[after];
    }
    if (work.credits > 0 && !sequence->sampling_sent) {
      FillSampling(*sequence, after, &samplings_.emplace_back());
      item.sampling = &samplings_.back();
    }
  }
  const std::span<const uint32_t> blocks = sequence->lease.table().block_ids();
  if (blocks.size() != sequence->units_sent) {
    item.kv_blocks = blocks.data();
    item.kv_block_count = static_cast<uint32_t>(blocks.size());
  }
  work_.push_back(item);
  work_sequences_.push_back(sequence);
}

void Engine::Impl::FillSampling(const Sequence& sequence, uint32_t history_count,
                                reticle_sampling* sampling) {
  const SamplingParams& params = sequence.request().sampling;
  *sampling = {};
  sampling->struct_size = sizeof(*sampling);
  sampling->temperature = params.temperature;
  sampling->top_k =
      params.top_k == 0 && params.temperature > 0 ? capabilities_.max_top_k : params.top_k;
  sampling->top_p = params.top_p;
  sampling->min_p = params.min_p;
  sampling->repetition_penalty = params.repetition_penalty;
  sampling->frequency_penalty = params.frequency_penalty;
  sampling->presence_penalty = params.presence_penalty;
  sampling->seed = ChoiceSeed(params.seed, sequence.choice);
  sampling->prompt_tokens = sequence.prompt_tokens();
  sampling->min_tokens = params.min_tokens;
  sampling->stop_ids = params.stop_ids.data();
  sampling->stop_id_count = static_cast<uint32_t>(params.stop_ids.size());
  sampling->logit_bias = sequence.group->logit_bias.data();
  sampling->logit_bias_count = static_cast<uint32_t>(sequence.group->logit_bias.size());
  sampling->logprobs = params.logprobs.has_value() ? *params.logprobs + 1 : 0;
  const bool penalised = params.repetition_penalty != 1 || params.frequency_penalty != 0 ||
                         params.presence_penalty != 0;
  if (penalised) {
    sampling->history = sequence.tokens.data();
    sampling->history_count = history_count;
  }
}

void Engine::Impl::SubmitWork() {
  size_t next = 0;
  while (next < work_.size()) {
    absl::Status refusal;
    const size_t accepted = device_->Submit(std::span(work_).subspan(next), &refusal);
    for (size_t i = 0; i < accepted; ++i) OnAccepted(next + i);
    next += accepted;
    if (next == work_.size()) return;
    if (!OnRefused(next, refusal)) return;
    ++next;
  }
}

void Engine::Impl::OnAccepted(size_t index) {
  const reticle_work& item = work_[index];
  Sequence& sequence = *work_sequences_[index];
  sequence.on_device = true;
  sequence.in_flight += item.token_count;
  sequence.credits += item.decode_credits;
  if (item.token_count > 0) {
    sequence.positions += item.token_count + std::max(item.decode_credits, 1u) - 1;
  } else {
    sequence.positions += item.decode_credits;
  }
  if ((item.flags & RETICLE_WORK_PROMPT_LOGPROBS) != 0) {
    sequence.reports_due = item.token_count - 1 + (item.next_token != RETICLE_NO_TOKEN ? 1 : 0);
  }
  if (item.sampling != nullptr) sequence.sampling_sent = true;
  if (item.kv_blocks != nullptr) sequence.units_sent = item.kv_block_count;
}

absl::Status Engine::Impl::DeviceFailure(const absl::Status& status) {
  if (absl::IsInternal(status) || absl::IsDataLoss(status)) return status;
  return InternalError("the device failed with %s", status.ToString());
}

bool Engine::Impl::OnRefused(size_t index, const absl::Status& refusal) {
  Sequence* const sequence = work_sequences_[index];
  switch (refusal.code()) {
    case absl::StatusCode::kResourceExhausted:
      retry_timer_ns_ = now_ns_ + kRetryNs;
      return false;
    case absl::StatusCode::kUnavailable:
      OnDeviceLost(refusal);
      return false;
    case absl::StatusCode::kNotFound:
      if (sequence->on_device) return true;  // its end is on its way
      break;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kUnimplemented:  // what this device cannot do for the request
      Finish(sequence, FinishReason::kError, refusal);
      return true;
    default:
      break;
  }
  Finish(sequence, FinishReason::kError, DeviceFailure(refusal));
  return true;
}

}  // namespace reticle::scheduler
