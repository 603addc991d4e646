// Time and events of the firmware; firmware_orders.cc has orders, completions and faults.
#include "backends/hardwired/card/firmware.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"

namespace reticle::backends::hardwired {
namespace {

using Phase = CardStream::Phase;

constexpr uint64_t kFullPace = 1024;
// Computing between two looks at the rings: prompt tokens at most, and about so long.
constexpr int64_t kMaxBitTokens = 64;
constexpr uint32_t kFirstBitTokens = 8;
constexpr int64_t kBitNs = 50'000'000;
// Lateness by computing that is caught up with; what goes beyond holds the device's clock back.
constexpr int64_t kSlackNs = 2'000'000;

struct Later {
  bool operator()(const CardStream* a, const CardStream* b) const {
    return a->due != b->due ? a->due > b->due : a->order > b->order;
  }
};

}  // namespace

Firmware::Firmware(Options options, const Profile& profile, const TimingModel& timing,
                   Content& content, std::shared_ptr<CardMemory> memory)
    : options_(std::move(options)),
      timing_(timing),
      content_(content),
      memory_(std::move(memory)),
      registers_(memory_->registers()),
      orders_(memory_),
      completions_(memory_),
      meter_(profile, timing_) {
  for (uint32_t slot = options_.capabilities.max_sequences; slot > 0; --slot) {
    free_slots_.push_back(slot - 1);
  }
  if (options_.now_ns) bit_tokens_ = kFirstBitTokens;
  registers_.capabilities = options_.capabilities;
  registers_.throttled.store(kFullPace, std::memory_order_relaxed);
  registers_.state.store(static_cast<uint32_t>(CardState::kRunning), std::memory_order_release);
}

bool Firmware::Step(int64_t now_ns) {
  if (gone_) return false;
  if (!started_) {
    started_ = true;
    start_ns_ = now_ns;
    meter_.Start(DeviceNow(now_ns));
  }
  TakeFaults(now_ns);
  if (hung_ || gone_) return false;
  registers_.heartbeat.store(registers_.heartbeat.load(std::memory_order_relaxed) + 1,
                             std::memory_order_relaxed);
  if (failed_) return false;
  bool any = ReadOrders(now_ns);
  any |= RunEvents(now_ns);
  if (options_.scrub_ns > 0 && now_ns >= next_scrub_ns_) Scrub(now_ns);
  completions_.Flush();
  if (orders_.broken() || completions_.broken()) Fail(CardFailure::kLink);
  any |= completions_.TakeNews();
  if ((any && heap_.empty()) || now_ns >= next_show_ns_) ShowStatus(now_ns);
  if (any) {
    registers_.next_event_ns.store(next_event_ns(), std::memory_order_release);
    if (options_.notify_host) {
      // What was written is visible before `armed` is looked at; the host does it the other way.
      std::atomic_thread_fence(std::memory_order_seq_cst);
      if (registers_.armed.load(std::memory_order_relaxed) != 0 &&
          registers_.armed.exchange(0, std::memory_order_acq_rel) != 0) {
        options_.notify_host();
      }
    }
  }
  return any;
}

int64_t Firmware::next_event_ns() const {
  if (gone_ || hung_ || failed_ || heap_.empty()) return INT64_MAX;
  if (options_.computes_ahead && NextToCompute(DeviceTime()) != nullptr) return INT64_MIN;
  return (heap_.front()->due + timing_.link_latency()).nanos() + stretch_ns_;
}

// ---- Time ----

DeviceTime Firmware::DeviceNow(int64_t now_ns) const {
  return DeviceTime::FromNanos(now_ns - stretch_ns_);
}

DeviceLoad Firmware::Load() const {
  return {decoding_, prefilling_, prefilling_ > 0 ? prefill_tokens_ : 0};
}

DeviceTime Firmware::Paced(DeviceTime time) const {
  return pace_ == kFullPace ? time : time * pace_ / kFullPace;
}

// Pipelined devices have one adapter current; batched ones run them side by side.
DeviceTime Firmware::SwapTime(const CardStream& stream) {
  const uint64_t adapter = stream.view.adapter;
  if (adapter == 0 || adapter == current_adapter_ || timing_.batching() == Batching::kBatched) {
    return DeviceTime();
  }
  current_adapter_ = adapter;
  ++adapter_swaps_;
  return timing_.adapter_swap();
}

void Firmware::SetPhase(CardStream& stream, Phase phase, DeviceTime at) {
  if (stream.phase == phase) return;
  const bool was_idle = stream.phase == Phase::kIdle;
  decoding_ += (phase == Phase::kDecode ? 1 : 0) - (stream.phase == Phase::kDecode ? 1 : 0);
  prefilling_ += (phase == Phase::kPrefill ? 1 : 0) - (stream.phase == Phase::kPrefill ? 1 : 0);
  stream.phase = phase;
  meter_.SetStreams(at, decoding_ + prefilling_);
  if (was_idle) {
    stream.busy_from = at;
    stream.energy_mark = meter_.per_stream_nj();
  }
}

void Firmware::Schedule(CardStream& stream, Phase phase, DeviceTime due) {
  stream.due = due;
  stream.computed = false;
  stream.error = 0;
  stream.has_token = false;
  stream.item_fed = 0;
  stream.scored_count = 0;
  heap_.push_back(&stream);
  std::push_heap(heap_.begin(), heap_.end(), Later());
}

void Firmware::Unschedule(CardStream& stream) {
  const auto found = std::find(heap_.begin(), heap_.end(), &stream);
  if (found == heap_.end()) return;
  if (found == heap_.begin()) {
    std::pop_heap(heap_.begin(), heap_.end(), Later());
    heap_.pop_back();
    return;
  }
  heap_.erase(found);
  std::make_heap(heap_.begin(), heap_.end(), Later());
}

void Firmware::StartItem(CardStream& stream, DeviceTime at) {
  const StreamItem& item = stream.items[stream.item_head];
  at = std::max(at, item.arrival);
  SetPhase(stream, Phase::kPrefill, at);
  DeviceTime time = Paced(timing_.PrefillTime(Load(), stream.fed, item.token_count));
  if (item.credits > 0 && stream.sampled_on_host) time += timing_.host_sampling();
  time += SwapTime(stream);
  if (timing_.prefills_in_turn() && (stream.fed == 0 || item.token_count > 1)) {
    prefill_tokens_ = item.token_count;
    at = std::max(at, prefill_free_);
    prefill_free_ = at + time;
  }
  Schedule(stream, Phase::kPrefill, at + time);
}

void Firmware::StartDecode(CardStream& stream, DeviceTime at) {
  SetPhase(stream, Phase::kDecode, at);
  DeviceTime time = Paced(timing_.DecodeInterval(Load(), stream.fed));
  if (stream.sampled_on_host) time += timing_.host_sampling();
  time += SwapTime(stream);
  Schedule(stream, Phase::kDecode, at + time);
}

void Firmware::GoOn(CardStream& stream, DeviceTime at) {
  stream.last = at;
  while (stream.HasItems() && stream.items[stream.item_head].token_count == 0) {
    const StreamItem& item = stream.items[stream.item_head++];
    stream.credits += item.credits;
    stream.tag = item.tag;
    at = std::max(at, item.arrival);
  }
  if (!stream.HasItems()) {
    stream.items.clear();
    stream.item_head = 0;
  }
  if (stream.credits > 0) {
    StartDecode(stream, at);
  } else if (stream.HasItems()) {
    StartItem(stream, at);
  } else {
    SetPhase(stream, Phase::kIdle, at);
  }
}

// ---- Events ----

bool Firmware::Visible(const CardStream& stream, DeviceTime now) const {
  return (stream.due + timing_.link_latency()).nanos() <= now.nanos();
}

CardStream* Firmware::NextToCompute(DeviceTime now) const {
  if (!options_.computes_ahead) {
    CardStream* const first = heap_.front();
    return !first->computed && first->due.nanos() <= now.nanos() ? first : nullptr;
  }
  CardStream* best = nullptr;
  for (CardStream* stream : heap_) {
    if (!stream->computed && (best == nullptr || Later()(best, stream))) best = stream;
  }
  return best;
}

bool Firmware::RunEvents(int64_t now_ns) {
  bool any = false;
  while (!heap_.empty()) {
    const DeviceTime now = DeviceNow(now_ns);
    CardStream* const first = heap_.front();
    if (first->computed && Visible(*first, now)) {
      if (options_.stretches) Stretch(now_ns, first->due);
      // Without limits of its own the device has a token when the host has computed it.
      const bool unlimited = timing_.batching() == Batching::kUnlimited;
      Publish(*first, unlimited ? std::max(first->due, now) : first->due);
      any = true;
      continue;
    }
    CardStream* const next = NextToCompute(now);
    if (next == nullptr) break;
    any = true;
    if (!options_.stretches) {
      Compute(*next);
      if (options_.computes_ahead) break;
      continue;
    }
    Compute(*next);
    const int64_t after_ns = options_.now_ns();
    compute_debt_ns_ += std::max<int64_t>(after_ns - now_ns, 0);
    now_ns = std::max(now_ns, after_ns);
    if (options_.computes_ahead) break;
  }
  if (heap_.empty()) compute_debt_ns_ = 0;
  return any;
}

// Before an event that is shown at `now_ns`: holds the clock back by what computing made it late.
void Firmware::Stretch(int64_t now_ns, DeviceTime due) {
  const int64_t late_ns = now_ns - stretch_ns_ - (due + timing_.link_latency()).nanos();
  if (late_ns <= kSlackNs) {
    if (late_ns <= kSlackNs / 2) compute_debt_ns_ = 0;
    return;
  }
  const int64_t more_ns = std::min(late_ns - kSlackNs, compute_debt_ns_);
  stretch_ns_ += more_ns;
  compute_debt_ns_ -= more_ns;
}

void Firmware::Compute(CardStream& stream) {
  if (stream.phase == Phase::kPrefill) {
    ComputeItem(stream);
  } else {
    ComputeToken(stream);
  }
}

void Firmware::ComputeItem(CardStream& stream) {
  const StreamItem& item = stream.items[stream.item_head];
  const bool scores = item.prompt_logprobs;
  const uint32_t left = item.token_count - stream.item_fed;
  const uint32_t count = scores ? 1 : std::min(left, bit_tokens_);
  const std::span<const uint32_t> tokens(&stream.tokens[stream.token_head], count);
  const bool ends_item = count == left;
  const int64_t before_ns = options_.now_ns ? options_.now_ns() : 0;
  content_.Feed(stream.slot, stream.fed, tokens, stream.view.adapter,
                scores || (ends_item && item.credits > 0));
  if (options_.now_ns) {
    const int64_t each_ns = (options_.now_ns() - before_ns) / count;
    bit_tokens_ = static_cast<uint32_t>(
        std::clamp<int64_t>(kBitNs / std::max<int64_t>(each_ns, 1), 1, kMaxBitTokens));
  }
  stream.fed += count;
  stream.token_head += count;
  stream.item_fed += count;
  if (scores) {
    const uint32_t next = ends_item ? item.next_token : stream.tokens[stream.token_head];
    if (next != RETICLE_NO_TOKEN) {
      const sampling::SampledToken scored = content_.Score(next, item.prompt_top);
      if (stream.scored_count == stream.scored.size()) stream.scored.emplace_back();
      ScoredToken& kept = stream.scored[stream.scored_count++];
      kept.token = next;
      kept.position = stream.fed;
      kept.logprob = scored.logprob;
      kept.rank = scored.rank;
      kept.top.assign(scored.top.begin(), scored.top.end());
    }
  }
  if (!ends_item) return;
  if (stream.token_head == stream.tokens.size()) {
    stream.tokens.clear();
    stream.token_head = 0;
  }
  if (item.credits > 0) SampleInto(stream);
  stream.computed = true;
}

void Firmware::ComputeToken(CardStream& stream) {
  stream.computed = true;
  if (FeedOwnToken(stream)) SampleInto(stream);
}

bool Firmware::FeedOwnToken(CardStream& stream) {
  const uint64_t capacity = options_.capabilities.kv_token_capacity;
  if (kv_tokens_ >= capacity) {
    stream.error = RETICLE_RESOURCE_EXHAUSTED;
    stream.message = absl::StrFormat("kv_token_capacity of %u is used up", capacity);
    return false;
  }
  ++kv_tokens_;
  ++stream.kv_tokens;
  const std::span<const uint32_t> token(&stream.last_token, 1);
  stream.sampling.Append(token, stream.fed);
  content_.Feed(stream.slot, stream.fed, token, stream.view.adapter, true);
  ++stream.fed;
  return true;
}

void Firmware::SampleInto(CardStream& stream) {
  const auto sampled =
      content_.Sample(stream.sampling, stream.fed, stream.has_mask ? stream.mask.data() : nullptr);
  stream.has_mask = false;
  if (!sampled.ok()) {
    stream.error = static_cast<int32_t>(sampled.status().code());
    stream.message = std::string(sampled.status().message());
    return;
  }
  stream.has_token = true;
  stream.token = sampled->token;
  stream.is_stop_id = sampled->is_stop_id;
  stream.logprob = sampled->logprob;
  stream.rank = sampled->rank;
  stream.top.assign(sampled->top.begin(), sampled->top.end());
}

void Firmware::Publish(CardStream& stream, DeviceTime at) {
  std::pop_heap(heap_.begin(), heap_.end(), Later());
  heap_.pop_back();
  ++steps_;
  meter_.Advance(at);
  if (stream.phase == Phase::kPrefill) {
    const StreamItem item = stream.items[stream.item_head++];
    stream.tag = item.tag;
    for (size_t i = 0; i < stream.scored_count; ++i) {
      const ScoredToken& scored = stream.scored[i];
      CompletionCell cell = CellFor(stream, RETICLE_COMPLETION_PROMPT_LOGPROB, at);
      cell.token = scored.token;
      cell.position = scored.position;
      cell.logprob = scored.logprob;
      cell.rank = scored.rank;
      completions_.Push(cell, scored.top);
    }
    CompletionCell cell = CellFor(stream, RETICLE_COMPLETION_PREFILL, at);
    cell.position = stream.fed - 1;
    cell.token_count = item.token_count;
    completions_.Push(cell);
    prefill_tokens_total_ += item.token_count;
    stream.credits += item.credits;
  }
  if (stream.error != 0) {
    End(stream, RETICLE_FINISH_ERROR, stream.error, stream.message, at);
    return;
  }
  if (stream.has_token) {
    PublishToken(stream, at);
  } else {
    GoOn(stream, at);
  }
}

void Firmware::PublishToken(CardStream& stream, DeviceTime at) {
  --stream.credits;
  --stream.view.credits;
  stream.view.has_sampled = true;
  stream.view.next_position = stream.fed;
  stream.last_token = stream.token;
  CompletionCell cell = CellFor(stream, RETICLE_COMPLETION_TOKEN, at);
  if (stream.is_stop_id) {
    cell.finish = RETICLE_FINISH_STOP_ID;
  } else if (stream.fed + 1 >= options_.capabilities.context_limit) {
    cell.finish = RETICLE_FINISH_CONTEXT_LIMIT;
  }
  const bool ends = cell.finish != RETICLE_FINISH_NONE;
  cell.token = stream.token;
  cell.position = stream.fed;
  cell.credits_left = ends ? 0 : stream.view.credits;
  cell.logprob = stream.logprob;
  cell.rank = stream.rank;
  completions_.Push(cell, stream.top);
  ++decode_tokens_total_;
  if (ends) {
    Release(stream);
  } else {
    GoOn(stream, at);
  }
}

}  // namespace reticle::backends::hardwired
