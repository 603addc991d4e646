// Orders, completions, faults and sensors of the firmware.
#include <algorithm>
#include <bit>
#include <cmath>
#include <string>

#include "backends/hardwired/card/firmware.h"
#include "backends/sampling/sequence_sampling.h"
#include "base/status.h"

namespace reticle::backends::hardwired {
namespace {

using Phase = CardStream::Phase;

constexpr int kOrdersAtOnce = 256;
// A host's time stamp counts as far back as this: it makes up for a card that woke late.
constexpr int64_t kMaxStampAgeNs = 50'000'000;
constexpr int64_t kShowNs = 1'000'000;
constexpr double kFullPace = 1024;

}  // namespace

// ---- Orders ----

bool Firmware::ReadOrders(int64_t now_ns) {
  bool any = false;
  const uint32_t vocab_size = options_.capabilities.vocab_size;
  for (int i = 0; i < kOrdersAtOnce && orders_.Read(vocab_size, &order_); ++i) {
    any = true;
    switch (order_.kind) {
      case OrderKind::kWork:
        TakeWork(order_, now_ns);
        break;
      case OrderKind::kCancel:
        if (const auto found = streams_.find(order_.sequence); found != streams_.end()) {
          CardStream& stream = *found->second;
          End(stream, RETICLE_FINISH_CANCELLED, RETICLE_OK, "",
              std::max(DeviceNow(now_ns), stream.last));
        }
        break;
      case OrderKind::kLoadAdapter:
      case OrderKind::kUnloadAdapter:
        TakeAdapterOrder(order_);
        break;
    }
  }
  return any;
}

void Firmware::TakeWork(const Order& order, int64_t now_ns) {
  const reticle_work& work = order.work;
  const int64_t sent_ns = std::clamp(order.sent_ns, now_ns - kMaxStampAgeNs, now_ns);
  const DeviceTime arrival = DeviceNow(sent_ns) + timing_.link_latency();
  const auto found = streams_.find(work.sequence);
  CardStream* stream = found == streams_.end() ? nullptr : found->second;
  // The sequence has ended, and the host did not know yet.
  if (stream == nullptr && (work.token_count == 0 || work.position > 0)) return;
  absl::Status status =
      CheckWork(work, work.sampling, stream != nullptr ? stream->view : SequenceView{},
                options_.capabilities);
  if (status.ok() && work.sampling != nullptr) {
    status = sampling::ValidateSampling(*work.sampling, options_.capabilities);
  }
  if (status.ok() && kv_tokens_ + work.token_count > options_.capabilities.kv_token_capacity) {
    status = ResourceExhaustedError("%u tokens are held and %u come; kv_token_capacity is %u",
                                    kv_tokens_, work.token_count,
                                    options_.capabilities.kv_token_capacity);
  }
  if (status.ok() && stream == nullptr && free_slots_.empty()) {
    status = ResourceExhaustedError("all %u slots are taken", options_.capabilities.max_sequences);
  }
  if (!status.ok()) {
    if (stream == nullptr) {
      Refuse(work.sequence, work.tag, status, arrival);
    } else {
      End(*stream, RETICLE_FINISH_ERROR, static_cast<int32_t>(status.code()),
          std::string(status.message()), std::max(arrival, stream->last));
    }
    return;
  }
  if (stream == nullptr) stream = Begin(work);
  Queue(*stream, work, arrival);
}

CardStream* Firmware::Begin(const reticle_work& work) {
  if (free_.empty()) {
    pool_.push_back(std::make_unique<CardStream>());
    free_.push_back(pool_.back().get());
  }
  CardStream* const stream = free_.back();
  free_.pop_back();
  stream->id = work.sequence;
  stream->order = next_order_++;
  stream->slot = free_slots_.back();
  free_slots_.pop_back();
  stream->phase = Phase::kIdle;
  stream->view = SequenceView{};
  stream->view.state = SequenceView::State::kAlive;
  stream->view.adapter = work.adapter;
  stream->tag = work.tag;
  stream->credits = 0;
  stream->fed = 0;
  stream->kv_tokens = 0;
  stream->has_mask = false;
  stream->sampled_on_host = false;
  stream->last = DeviceTime();
  streams_.emplace(stream->id, stream);
  return stream;
}

bool Firmware::SampledOnHost(const reticle_sampling& sampling) const {
  if (options_.device_top_k == 0) return false;
  const bool wide =
      sampling.temperature > 0 && (sampling.top_k == 0 || sampling.top_k > options_.device_top_k);
  return wide || sampling.logprobs > 0 || sampling.logit_bias_count > 0 ||
         sampling.min_tokens > 0 || sampling::HasPenalties(sampling) ||
         (sampling.temperature > 0 && (sampling.top_p < 1 || sampling.min_p > 0));
}

void Firmware::Queue(CardStream& stream, const reticle_work& work, DeviceTime arrival) {
  SequenceView& view = stream.view;
  if (work.sampling != nullptr) {
    stream.sampling.Set(*work.sampling);
    stream.sampled_on_host = SampledOnHost(*work.sampling);
    view.has_sampling = true;
  } else if (work.token_count > 0 && view.has_sampling) {
    stream.sampling.Append({work.tokens, work.token_count}, work.position);
  }
  if (work.token_count > 0) {
    stream.tokens.insert(stream.tokens.end(), work.tokens, work.tokens + work.token_count);
    view.next_position = work.position + work.token_count;
    view.has_sampled = false;
    stream.kv_tokens += work.token_count;
    kv_tokens_ += work.token_count;
  }
  if (work.token_mask != nullptr) {
    const size_t words = (size_t{options_.capabilities.vocab_size} + 31) / 32;
    stream.mask.assign(work.token_mask, work.token_mask + words);
    stream.has_mask = true;
  }
  view.credits += work.decode_credits;
  if (stream.phase == Phase::kDecode) {
    stream.credits += work.decode_credits;
    stream.tag = work.tag;
    return;
  }
  StreamItem item;
  item.tag = work.tag;
  item.arrival = arrival;
  item.token_count = work.token_count;
  item.credits = work.decode_credits;
  item.prompt_logprobs = (work.flags & RETICLE_WORK_PROMPT_LOGPROBS) != 0;
  item.prompt_top = work.prompt_logprobs;
  item.next_token = work.next_token;
  stream.items.push_back(item);
  if (stream.phase == Phase::kIdle) GoOn(stream, std::max(arrival, stream.last));
}

void Firmware::TakeAdapterOrder(const Order& order) {
  const absl::Status status =
      order.kind == OrderKind::kLoadAdapter
          ? content_.LoadAdapter(order.adapter, std::string(order.path), order.scale)
          : content_.UnloadAdapter(order.adapter);
  if (order.kind == OrderKind::kUnloadAdapter && order.adapter == current_adapter_) {
    current_adapter_ = 0;
  }
  CompletionCell cell{};
  cell.kind = kAdapterResult;
  cell.tag = order.adapter;
  cell.status = static_cast<int32_t>(status.code());
  completions_.Push(cell, {}, std::string(status.message()));
}

// ---- Completions ----

CompletionCell Firmware::CellFor(CardStream& stream, uint8_t kind, DeviceTime at) {
  CompletionCell cell{};
  cell.kind = kind;
  cell.sequence = stream.id;
  cell.tag = stream.tag;
  cell.fed = stream.fed;
  cell.device_time_ns = static_cast<uint64_t>(at.nanos());
  if (stream.phase == Phase::kIdle) return cell;
  if (at > stream.busy_from) {
    // By whole nanoseconds of the clock, so that they add up.
    cell.busy_ns = static_cast<uint64_t>(at.nanos() - stream.busy_from.nanos());
    stream.busy_from = at;
  }
  const double energy_nj = std::floor(meter_.per_stream_nj() - stream.energy_mark);
  if (energy_nj > 0) {
    cell.energy_nj = static_cast<uint64_t>(energy_nj);
    stream.energy_mark += energy_nj;
  }
  return cell;
}

void Firmware::End(CardStream& stream, uint32_t finish, int32_t status, std::string_view message,
                   DeviceTime at) {
  meter_.Advance(at);
  CompletionCell cell = CellFor(stream, RETICLE_COMPLETION_END, at);
  cell.finish = static_cast<uint8_t>(finish);
  cell.status = status;
  completions_.Push(cell, {}, message);
  Unschedule(stream);
  stream.last = at;
  Release(stream);
}

void Firmware::Refuse(uint64_t sequence, uint64_t tag, const absl::Status& status, DeviceTime at) {
  CompletionCell cell{};
  cell.kind = RETICLE_COMPLETION_END;
  cell.finish = RETICLE_FINISH_ERROR;
  cell.sequence = sequence;
  cell.tag = tag;
  cell.device_time_ns = static_cast<uint64_t>(at.nanos());
  cell.status = static_cast<int32_t>(status.code());
  completions_.Push(cell, {}, std::string(status.message()));
}

void Firmware::Release(CardStream& stream) {
  SetPhase(stream, Phase::kIdle, std::max(stream.last, stream.busy_from));
  kv_tokens_ -= stream.kv_tokens;
  stream.items.clear();
  stream.item_head = 0;
  stream.tokens.clear();
  stream.token_head = 0;
  free_slots_.push_back(stream.slot);
  streams_.erase(stream.id);
  free_.push_back(&stream);
}

// ---- Faults ----

void Firmware::TakeFaults(int64_t now_ns) {
  const uint64_t rung = registers_.fault_doorbell.load(std::memory_order_acquire);
  while (faults_seen_ != rung) {
    if (rung - faults_seen_ > kFaultSlots) faults_seen_ = rung - kFaultSlots;
    const FaultSlot& slot = registers_.faults[faults_seen_ % kFaultSlots];
    FaultSpec fault;
    const uint32_t kind = slot.kind.load(std::memory_order_relaxed);
    fault.kind = kind < kFaultKinds ? static_cast<FaultKind>(kind) : FaultKind::kNone;
    fault.value = std::bit_cast<double>(slot.value_bits.load(std::memory_order_relaxed));
    fault.duration_ns = slot.duration_ns.load(std::memory_order_relaxed);
    ++faults_seen_;
    Apply(fault, now_ns);
  }
  if (now_ns < fault_end_ns_) return;
  Apply({FaultKind::kClear, 0, 0}, now_ns);
}

void Firmware::Apply(const FaultSpec& fault, int64_t now_ns) {
  const auto lasts = [&] {
    fault_end_ns_ = INT64_MAX;
    if (fault.duration_ns > 0 && fault.duration_ns < static_cast<uint64_t>(INT64_MAX - now_ns)) {
      fault_end_ns_ = now_ns + static_cast<int64_t>(fault.duration_ns);
    }
  };
  switch (fault.kind) {
    case FaultKind::kNone:
      break;
    case FaultKind::kHang:
      hung_ = true;
      registers_.next_event_ns.store(INT64_MAX, std::memory_order_release);
      break;
    case FaultKind::kCrash:
      gone_ = true;
      registers_.state.store(static_cast<uint32_t>(CardState::kGone), std::memory_order_release);
      if (options_.notify_host) options_.notify_host();
      break;
    case FaultKind::kSlow:
      slow_ = std::clamp(fault.value, 1.0, 1000.0);
      lasts();
      SetPace();
      break;
    case FaultKind::kThermal:
      thermal_ = std::clamp(fault.value, 0.01, 1.0);
      lasts();
      SetPace();
      break;
    case FaultKind::kLink:
      lasts();
      completions_.set_link_faults(
          fault.value >= 1 ? static_cast<uint64_t>(std::min(fault.value, 1e9)) : UINT64_MAX);
      break;
    case FaultKind::kCorrected:
      registers_.corrected_errors.fetch_add(
          static_cast<uint64_t>(std::clamp(fault.value, 0.0, 1e9)), std::memory_order_relaxed);
      registers_.last_corrected_ns.store(static_cast<uint64_t>(Uptime(now_ns)),
                                         std::memory_order_relaxed);
      break;
    case FaultKind::kUncorrected:
      registers_.uncorrected_errors.fetch_add(1, std::memory_order_relaxed);
      Fail(CardFailure::kMemory);
      break;
    case FaultKind::kImage:
      image_is_corrupt_ = true;
      break;
    case FaultKind::kClear:
      slow_ = 1;
      thermal_ = 1;
      fault_end_ns_ = INT64_MAX;
      completions_.set_link_faults(0);
      SetPace();
      break;
  }
}

void Firmware::SetPace() {
  pace_ = static_cast<uint64_t>(kFullPace * slow_ / thermal_);
  meter_.set_hot(thermal_ < 1);
  registers_.throttled.store(static_cast<uint32_t>(kFullPace / (slow_ / thermal_)),
                             std::memory_order_relaxed);
}

void Firmware::Scrub(int64_t now_ns) {
  // Reading the image takes a while, so a busy card leaves it for later.
  const bool clean = streams_.empty() ? content_.CheckSeal().ok() : true;
  if (image_is_corrupt_ || !clean) Fail(CardFailure::kImage);
  next_scrub_ns_ = now_ns + options_.scrub_ns;
}

void Firmware::Fail(CardFailure failure) {
  if (failed_) return;
  failed_ = true;
  registers_.failure.store(static_cast<uint32_t>(failure), std::memory_order_relaxed);
  registers_.state.store(static_cast<uint32_t>(CardState::kFailed), std::memory_order_release);
  if (options_.notify_host) options_.notify_host();
}

// ---- Sensors ----

void Firmware::ShowStatus(int64_t now_ns) {
  if (heap_.empty()) meter_.Advance(DeviceNow(now_ns));
  const auto show = [](auto& to, auto value) {
    to.store(static_cast<typename std::decay_t<decltype(to)>::value_type>(value),
             std::memory_order_relaxed);
  };
  CardRegisters& r = registers_;
  show(r.sequences, streams_.size());
  show(r.busy_ns, meter_.busy_ns());
  show(r.prefill_tokens, prefill_tokens_total_);
  show(r.decode_tokens, decode_tokens_total_);
  show(r.steps, steps_);
  show(r.energy_uj, meter_.total_nj() / 1000);
  show(r.power_mw, meter_.watts() * 1000);
  show(r.temperature_mc, meter_.celsius() * 1000);
  show(r.utilization_ppm, meter_.utilization() * 1e6);
  show(r.stretched_ns, stretch_ns_);
  show(r.adapter_swaps, adapter_swaps_);
  const auto shown = static_cast<int64_t>(r.device_time_ns.load(std::memory_order_relaxed));
  show(r.device_time_ns, std::max(Uptime(now_ns), shown));
  next_show_ns_ = now_ns + kShowNs;
}

}  // namespace reticle::backends::hardwired
