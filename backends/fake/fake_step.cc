// The steps of the fake device: what happens between an order and its completions.
#include <algorithm>

#include "backends/fake/fake_core.h"
#include "base/status.h"

namespace reticle::backends::fake {
namespace {

constexpr uint64_t kMostBehindNs = 1'000'000;

template <typename T>
void Add(std::atomic<T>& counter, T amount) {
  counter.store(counter.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
}

}  // namespace

void FakeDevice::Advance(size_t wanted) {
  // Only what is due now: where the host computes slower than the pace, the loop would not end.
  const uint64_t now = host_.now_ns(host_.context);
  while (queue_.size() < wanted && !IsHung() && !IsLost()) {
    if (!step_runs_) {
      if (active_.empty()) return;
      StartStep(now);
    }
    if (step_end_ns_ > now) return;
    FinishStep();
  }
}

void FakeDevice::StartStep(uint64_t now) {
  step_ = active_;
  uint64_t length = options_.step_ns;
  if (options_.prefill_token_ns > 0) {
    for (const FakeSequence* sequence : step_) {
      if (sequence->HasItems()) {
        length += options_.prefill_token_ns * sequence->items[sequence->item_head].token_count;
      }
    }
  }
  uint64_t adapter = current_adapter_;
  for (const FakeSequence* sequence : step_) {
    if (sequence->view.adapter != adapter) length += options_.adapter_swap_ns;
    adapter = sequence->view.adapter;
  }
  // A device that stays busy goes on by itself, whenever the host looks; a host that is slower than
  // the pace is not asked to make up for it.
  const uint64_t earliest = now - std::min(now, kMostBehindNs);
  step_start_ns_ = busy_ && options_.step_ns > 0 ? std::max(step_end_ns_, earliest) : now;
  step_end_ns_ = step_start_ns_ + length;
  step_runs_ = true;
}

void FakeDevice::FinishStep() {
  step_runs_ = false;
  ++step_number_;
  if (step_number_ == options_.hang_step) hung_.store(true);
  if (step_number_ == options_.lost_step) lost_.store(true);
  if (IsHung() || IsLost()) return;
  for (size_t i = 0; i < step_.size(); ++i) {
    if (step_[i] != nullptr) Run(*step_[i]);
  }
  step_.clear();
  std::erase_if(active_, [](FakeSequence* sequence) {
    sequence->is_active = sequence->HasWork();
    return !sequence->is_active;
  });
  busy_ = !active_.empty();
  Add<uint64_t>(counters_.steps, 1);
  Add<uint64_t>(counters_.busy_ns, step_end_ns_ - step_start_ns_);
  counters_.device_time_ns.store(step_end_ns_, std::memory_order_relaxed);
}

void FakeDevice::Run(FakeSequence& sequence) {
  if (!entries_.empty()) sequence.state = ReadState(sequence);
  if (sequence.view.adapter != current_adapter_) {
    current_adapter_ = sequence.view.adapter;
    Add<uint64_t>(counters_.adapter_swaps, 1);
  }
  while (sequence.HasItems()) {
    const QueuedItem item = sequence.items[sequence.item_head++];
    if (!sequence.HasItems()) {
      sequence.items.clear();
      sequence.item_head = 0;
    }
    sequence.tag = item.tag;
    sequence.run_credits += item.credits;
    if (item.token_count > 0) {
      RunItem(sequence, item);
      break;
    }
  }
  if (sequence.run_credits == 0) return;
  if (sequence.view.has_sampled && !FeedOwnToken(sequence)) return;
  SampleToken(sequence);
}

void FakeDevice::RunItem(FakeSequence& sequence, const QueuedItem& item) {
  for (uint32_t i = 0; i < item.token_count; ++i) {
    Feed(sequence, sequence.tokens[sequence.token_head++]);
    if (!item.prompt_logprobs) continue;
    const uint32_t next =
        i + 1 < item.token_count ? sequence.tokens[sequence.token_head] : item.next_token;
    if (next != RETICLE_NO_TOKEN) ScorePosition(sequence, next, item.prompt_top);
  }
  if (sequence.token_head == sequence.tokens.size()) {
    sequence.tokens.clear();
    sequence.token_head = 0;
  }
  reticle_completion completion{};
  completion.kind = RETICLE_COMPLETION_PREFILL;
  completion.position = sequence.fed - 1;
  completion.token_count = item.token_count;
  Complete(sequence, completion);
  Add<uint64_t>(counters_.prefill_tokens, item.token_count);
}

void FakeDevice::ScorePosition(FakeSequence& sequence, uint32_t token, uint32_t top_count) {
  FillLogits(options_.content, sequence.state, sequence.fed, UINT32_MAX, {}, logits_);
  const sampling::SampledToken scored = sampler_.Score(logits_, token, top_count);
  reticle_completion completion{};
  completion.kind = RETICLE_COMPLETION_PROMPT_LOGPROB;
  completion.token = token;
  completion.position = sequence.fed;
  completion.logprob = scored.logprob;
  completion.rank = scored.rank;
  Complete(sequence, completion, scored.top);
}

// What the blocks say, read through the table.
uint64_t FakeDevice::ReadState(const FakeSequence& sequence) const {
  uint64_t state = StartState(sequence.adapter_key);
  const uint32_t size = options_.block_tokens;
  for (uint32_t position = 0; position < sequence.fed; ++position) {
    const size_t block = sequence.blocks[position / size];
    state = NextState(state, entries_[block * size + position % size]);
  }
  return state;
}

void FakeDevice::Feed(FakeSequence& sequence, uint32_t token) {
  const uint32_t position = sequence.fed++;
  const uint64_t entry = EntryOf(sequence.state, token, position);
  if (!entries_.empty()) {
    const uint32_t size = options_.block_tokens;
    const size_t block = sequence.blocks[position / size];
    entries_[block * size + position % size] = entry;
  }
  sequence.state = NextState(sequence.state, entry);
  Add<uint64_t>(control_->tokens_fed_, 1);
}

// The token that the device sampled last comes to stand in its own KV; false when it has no room.
bool FakeDevice::FeedOwnToken(FakeSequence& sequence) {
  if (!options_.paged) {
    if (kv_tokens_ >= capabilities_.kv_token_capacity) {
      End(sequence, RETICLE_FINISH_ERROR, RETICLE_RESOURCE_EXHAUSTED,
          absl::StrFormat("kv_token_capacity of %u is used up", capabilities_.kv_token_capacity));
      return false;
    }
    ++kv_tokens_;
    ++sequence.kv_tokens;
  }
  sequence.view.has_sampled = false;
  ++sequence.view.next_position;
  sequence.sampling.Append({&sequence.last_token, 1}, sequence.fed);
  Feed(sequence, sequence.last_token);
  return true;
}

void FakeDevice::SampleToken(FakeSequence& sequence) {
  ++token_number_;
  int32_t injected = control_->fail_next_.exchange(RETICLE_OK);
  if (token_number_ == options_.error_token) injected = RETICLE_INTERNAL;
  if (injected != RETICLE_OK) {
    End(sequence, RETICLE_FINISH_ERROR, injected, "an injected error struck the sequence");
    return;
  }
  const sampling::SequenceSampling& params = sequence.sampling;
  sampling::SampledToken sampled;
  if (options_.content.fast) {
    sampled.token = FastToken(options_.content, sequence.state, sequence.fed, params.params(),
                              params.stop_ids());
    sampled.is_stop_id = params.IsStopId(sampled.token);
  } else {
    FillLogits(options_.content, sequence.state, sequence.fed, params.params().prompt_tokens,
               params.stop_ids(), logits_);
    const auto drawn = sampler_.Sample(logits_, params, sequence.fed,
                                       sequence.has_mask ? sequence.mask.data() : nullptr);
    if (!drawn.ok()) {
      End(sequence, RETICLE_FINISH_ERROR, static_cast<int32_t>(drawn.status().code()),
          std::string(drawn.status().message()));
      return;
    }
    sampled = *drawn;
  }
  sequence.has_mask = false;
  --sequence.run_credits;
  --sequence.view.credits;
  sequence.view.has_sampled = true;
  sequence.last_token = sampled.token;

  reticle_completion completion{};
  completion.kind = RETICLE_COMPLETION_TOKEN;
  if (sampled.is_stop_id) {
    completion.finish = RETICLE_FINISH_STOP_ID;
  } else if (sequence.fed + 1 >= capabilities_.context_limit) {
    completion.finish = RETICLE_FINISH_CONTEXT_LIMIT;
  }
  const bool ends = completion.finish != RETICLE_FINISH_NONE;
  completion.token = sampled.token;
  completion.position = sequence.fed;
  completion.credits_left = ends ? 0 : sequence.view.credits;
  completion.logprob = sampled.logprob;
  completion.rank = sampled.rank;
  Complete(sequence, completion, sampled.top);
  Add<uint64_t>(counters_.decode_tokens, 1);
  if (ends) Close(sequence);
}

}  // namespace reticle::backends::fake
