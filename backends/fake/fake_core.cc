#include "backends/fake/fake_core.h"

#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <map>
#include <utility>

#include "absl/strings/str_format.h"
#include "base/mutex.h"
#include "base/status.h"

namespace reticle::backends::fake {
namespace {

constexpr uint64_t kGarbage = 0xDEADBEEFDEADBEEF;  // what a block holds before it is written

struct Registry {
  Mutex mutex;
  std::map<std::string, std::shared_ptr<FakeControl>, std::less<>> controls
      RETICLE_GUARDED_BY(mutex);
};

Registry& TheRegistry() {
  static Registry* const registry = new Registry;
  return *registry;
}

// A counter that one thread writes and others may read.
template <typename T>
void Add(std::atomic<T>& counter, T amount) {
  counter.store(counter.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
}

}  // namespace

std::shared_ptr<FakeControl> FindFakeDevice(std::string_view name) {
  Registry& registry = TheRegistry();
  MutexLock lock(registry.mutex);
  const auto found = registry.controls.find(name);
  return found == registry.controls.end() ? nullptr : found->second;
}

absl::StatusOr<std::unique_ptr<FakeDevice>> FakeDevice::Open(const reticle_host& host,
                                                             const reticle_device_config& config) {
  ASSIGN_OR_RETURN(const FakeOptions options, FakeOptions::FromConfig(config));
  if (options.fail_open) return UnavailableError("option fail_open: the fake device is absent");
  std::unique_ptr<FakeDevice> device(new FakeDevice(host, options));
  if (options.event_fd) {
    device->timer_fd_ = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (device->timer_fd_ < 0) return ResourceExhaustedError("no descriptor for event_fd");
    device->capabilities_.event_fd = device->timer_fd_;
  }
  if (!options.name.empty()) {
    Registry& registry = TheRegistry();
    MutexLock lock(registry.mutex);
    registry.controls[options.name] = device->control_;
  }
  return device;
}

FakeDevice::FakeDevice(const reticle_host& host, const FakeOptions& options)
    : host_(host),
      options_(options),
      capabilities_(options.Capabilities()),
      control_(std::make_shared<FakeControl>()),
      sampler_(options.content.fast ? 0 : options.content.vocab_size),
      logits_(options.content.fast ? 0 : options.content.vocab_size),
      entries_(options.paged && !options.content.fast
                   ? size_t{options.blocks} * options.block_tokens
                   : 0,
               kGarbage) {}

FakeDevice::~FakeDevice() {
  if (timer_fd_ >= 0) close(timer_fd_);
}

bool FakeDevice::IsLost() const {
  return lost_.load(std::memory_order_relaxed) ||
         control_->fault_.load(std::memory_order_relaxed) == FakeControl::kLose;
}

bool FakeDevice::IsHung() const {
  return hung_.load(std::memory_order_relaxed) ||
         control_->fault_.load(std::memory_order_relaxed) == FakeControl::kHang;
}

// ---- Taking orders ----

absl::Status FakeDevice::Submit(const reticle_work* work, size_t stride, size_t count,
                                size_t* accepted) {
  *accepted = 0;
  if (IsLost()) return UnavailableError("the device is lost; reset it");
  if (++submit_number_ == options_.fail_submit) {
    return InternalError("option fail_submit: submit %u fails", submit_number_);
  }
  Add<uint64_t>(control_->submits_, 1);
  for (; *accepted < count; ++*accepted) {
    RETURN_IF_ERROR(Accept(StridedAt(work, stride, *accepted), stride));
  }
  return absl::OkStatus();
}

absl::Status FakeDevice::CheckRoom(const reticle_work& work, const FakeSequence* sequence) {
  ++item_number_;
  if (options_.refuse_every != 0 && item_number_ % options_.refuse_every == 0) {
    return ResourceExhaustedError("option refuse_every: item %u is refused", item_number_);
  }
  if (control_->refuse_.load(std::memory_order_relaxed) > 0) {
    control_->refuse_.fetch_sub(1);
    return absl::Status(static_cast<absl::StatusCode>(control_->refuse_status_.load()),
                        absl::StrFormat("the test refuses item %u", item_number_));
  }
  const uint32_t alive = counters_.sequences.load(std::memory_order_relaxed);
  if (sequence == nullptr && alive >= options_.max_sequences) {
    return ResourceExhaustedError("%u sequences are alive; max_sequences is %u", alive,
                                  options_.max_sequences);
  }
  if (!options_.paged && kv_tokens_ + work.token_count > capabilities_.kv_token_capacity) {
    return ResourceExhaustedError("%u tokens are held and %u come; kv_token_capacity is %u",
                                  kv_tokens_, work.token_count, capabilities_.kv_token_capacity);
  }
  return absl::OkStatus();
}

absl::Status FakeDevice::Accept(const reticle_work* from, size_t stride) {
  if (from->struct_size < sizeof(size_t)) {
    return InvalidArgumentError("struct_size of the work item is %u; it must be at least %u",
                                from->struct_size, sizeof(size_t));
  }
  const WholeWork whole(from, stride);
  const reticle_work& work = whole.work();
  const auto found = sequences_.find(work.sequence);
  FakeSequence* sequence = found == sequences_.end() ? nullptr : found->second;
  RETURN_IF_ERROR(CheckWork(work, whole.sampling(),
                            sequence != nullptr ? sequence->view : SequenceView{}, capabilities_));
  if (whole.sampling() != nullptr) {
    RETURN_IF_ERROR(sampling::ValidateSampling(*whole.sampling(), capabilities_));
  }
  if (work.adapter != 0 && !adapters_.contains(work.adapter)) {
    return NotFoundError("adapter %u is not loaded", work.adapter);
  }
  RETURN_IF_ERROR(CheckRoom(work, sequence));
  if (sequence == nullptr) sequence = Begin(work);

  SequenceView& view = sequence->view;
  const uint32_t token_count = work.token_count;
  if (whole.sampling() != nullptr) {
    sequence->sampling.Set(*whole.sampling());
    view.has_sampling = true;
  } else if (token_count > 0 && view.has_sampling) {
    sequence->sampling.Append({work.tokens, token_count}, work.position);
  }
  if (token_count > 0) {
    sequence->tokens.insert(sequence->tokens.end(), work.tokens, work.tokens + token_count);
    view.next_position = work.position + token_count;
    view.has_sampled = false;
    if (!options_.paged) {
      sequence->kv_tokens += token_count;
      kv_tokens_ += token_count;
    }
  }
  if (work.kv_blocks != nullptr) {
    sequence->blocks.assign(work.kv_blocks, work.kv_blocks + work.kv_block_count);
    view.kv_block_count = work.kv_block_count;
  }
  if (work.token_mask != nullptr) {
    const size_t words = (capabilities_.vocab_size + 31) / 32;
    sequence->mask.assign(work.token_mask, work.token_mask + words);
    sequence->has_mask = true;
  }
  view.credits += work.decode_credits;
  sequence->items.push_back({work.tag, token_count, work.decode_credits,
                             (work.flags & RETICLE_WORK_PROMPT_LOGPROBS) != 0, work.prompt_logprobs,
                             work.next_token});
  Activate(*sequence);
  Add<uint64_t>(control_->items_, 1);
  return absl::OkStatus();
}

FakeSequence* FakeDevice::Begin(const reticle_work& work) {
  if (free_.empty()) {
    pool_.push_back(std::make_unique<FakeSequence>());
    free_.push_back(pool_.back().get());
  }
  FakeSequence* const sequence = free_.back();
  free_.pop_back();
  sequence->id = work.sequence;
  sequence->view = SequenceView{};
  sequence->view.state = SequenceView::State::kAlive;
  sequence->view.adapter = work.adapter;
  sequence->adapter_key = 0;
  if (work.adapter != 0) {
    Adapter& adapter = adapters_[work.adapter];
    ++adapter.users;
    sequence->adapter_key = adapter.key;
  }
  sequence->state = StartState(sequence->adapter_key);
  if (options_.content.fast && work.position > 0) {
    sequence->state = Mix(sequence->state, work.position);
  }
  sequence->fed = work.position;
  sequence->run_credits = 0;
  sequence->has_mask = false;
  sequence->kv_tokens = 0;
  sequences_.emplace(work.sequence, sequence);
  Add<uint32_t>(counters_.sequences, 1);
  control_->live_sequences_.store(counters_.sequences.load());
  return sequence;
}

void FakeDevice::Activate(FakeSequence& sequence) {
  if (!sequence.is_active) {
    if (active_.empty() && !step_runs_) busy_ = false;
    sequence.is_active = true;
    active_.push_back(&sequence);
  }
  if (armed_ && !step_runs_ && !IsHung()) {
    StartStep(host_.now_ns(host_.context));
    SignalIn(step_end_ns_ - step_start_ns_);
  }
}

absl::Status FakeDevice::Cancel(uint64_t id) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end()) {
    return NotFoundError("sequence %u never began, or its end was polled", id);
  }
  if (found->second->view.state == SequenceView::State::kAlive) {
    End(*found->second, RETICLE_FINISH_CANCELLED, RETICLE_OK, "");
  }
  return absl::OkStatus();
}

absl::Status FakeDevice::LoadAdapter(uint64_t adapter, const char* path, float scale) {
  if (adapter == 0) return InvalidArgumentError("adapter is 0; ids begin at 1");
  if (*path == '\0') return InvalidArgumentError("path of the adapter is empty");
  if (adapters_.contains(adapter)) return AlreadyExistsError("adapter %u is loaded", adapter);
  if (adapters_.size() >= capabilities_.max_adapters) {
    return ResourceExhaustedError("%u adapters are loaded; max_adapters is %u", adapters_.size(),
                                  capabilities_.max_adapters);
  }
  uint64_t key = std::bit_cast<uint32_t>(scale);
  for (const char c : std::string_view(path)) key = Mix(key, static_cast<unsigned char>(c));
  adapters_[adapter] = {key, 0};
  return absl::OkStatus();
}

absl::Status FakeDevice::UnloadAdapter(uint64_t adapter) {
  const auto found = adapters_.find(adapter);
  if (found == adapters_.end()) return NotFoundError("adapter %u is not loaded", adapter);
  if (found->second.users > 0) {
    return FailedPreconditionError("adapter %u is used by %u live sequences", adapter,
                                   found->second.users);
  }
  adapters_.erase(found);
  return absl::OkStatus();
}

// ---- Completions ----

absl::Status FakeDevice::Poll(reticle_completion* completions, size_t stride, size_t capacity,
                              size_t* count) {
  *count = 0;
  if (IsLost()) return UnavailableError("the device is lost; reset it");
  if (queue_.size() < capacity && (step_runs_ || !active_.empty())) {
    const bool was_armed = std::exchange(armed_, false);
    Advance(capacity);
    if (IsLost()) return UnavailableError("the device is lost; reset it");
    armed_ = was_armed && queue_.empty();
  }
  *count = queue_.Poll(completions, stride, capacity);
  for (size_t i = 0; i < *count; ++i) {
    const reticle_completion& completion = queue_.delivered(i);
    if (completion.finish == RETICLE_FINISH_NONE) continue;
    const auto found = sequences_.find(completion.sequence);
    free_.push_back(found->second);
    sequences_.erase(found);
  }
  return absl::OkStatus();
}

bool FakeDevice::Arm() {
  if (timer_fd_ < 0 || !queue_.empty() || IsLost()) return true;
  if (IsHung() || (!step_runs_ && active_.empty())) {
    armed_ = true;
    return false;
  }
  const uint64_t now = host_.now_ns(host_.context);
  if (!step_runs_) StartStep(now);
  if (step_end_ns_ <= now) return true;
  armed_ = true;
  SignalIn(step_end_ns_ - now);
  return false;
}

void FakeDevice::SignalIn(uint64_t delay_ns) {
  const uint64_t delay = std::max<uint64_t>(delay_ns, 1);
  itimerspec when{};
  when.it_value.tv_sec = static_cast<time_t>(delay / 1'000'000'000);
  when.it_value.tv_nsec = static_cast<int64_t>(delay % 1'000'000'000);
  timerfd_settime(timer_fd_, 0, &when, nullptr);
}

void FakeDevice::Complete(FakeSequence& sequence, reticle_completion& completion,
                          std::span<const reticle_token_logprob> top, std::string_view message) {
  completion.sequence = sequence.id;
  completion.tag = sequence.tag;
  completion.device_time_ns = step_end_ns_;
  completion.busy_ns = step_end_ns_ - step_start_ns_;
  queue_.Push(completion, top, message);
  if (std::exchange(armed_, false)) SignalIn(0);
}

void FakeDevice::End(FakeSequence& sequence, uint32_t finish, int32_t status,
                     std::string_view message) {
  reticle_completion completion{};
  completion.kind = RETICLE_COMPLETION_END;
  completion.finish = finish;
  completion.status = status;
  Complete(sequence, completion, {}, message);
  Close(sequence);
}

void FakeDevice::Close(FakeSequence& sequence) {
  sequence.view.state = SequenceView::State::kEnded;
  sequence.view.credits = 0;
  sequence.run_credits = 0;
  sequence.items.clear();
  sequence.item_head = 0;
  sequence.tokens.clear();
  sequence.token_head = 0;
  sequence.blocks.clear();
  kv_tokens_ -= sequence.kv_tokens;
  if (sequence.view.adapter != 0) --adapters_[sequence.view.adapter].users;
  if (sequence.is_active) {
    sequence.is_active = false;
    std::erase(active_, &sequence);
    std::replace(step_.begin(), step_.end(), &sequence, static_cast<FakeSequence*>(nullptr));
  }
  counters_.sequences.store(counters_.sequences.load() - 1);
  control_->live_sequences_.store(counters_.sequences.load());
}

absl::Status FakeDevice::Reset() {
  if (control_->fail_resets_.load() > 0) {
    control_->fail_resets_.fetch_sub(1);
    return UnavailableError("the test lets this reset fail");
  }
  control_->fault_.store(FakeControl::kNone);
  hung_.store(false);
  lost_.store(false);
  step_runs_ = false;
  step_.clear();
  for (const auto& [id, sequence] : sequences_) {
    if (sequence->view.state == SequenceView::State::kAlive) {
      End(*sequence, RETICLE_FINISH_ERROR, RETICLE_ABORTED, "the device was reset");
    }
  }
  Add<uint64_t>(counters_.resets, 1);
  return absl::OkStatus();
}

// ---- Watching ----

reticle_stats FakeDevice::Stats() const {
  reticle_stats stats{};
  stats.struct_size = sizeof(stats);
  stats.device_time_ns = counters_.device_time_ns.load(std::memory_order_relaxed);
  stats.busy_ns = counters_.busy_ns.load(std::memory_order_relaxed);
  stats.prefill_tokens = counters_.prefill_tokens.load(std::memory_order_relaxed);
  stats.decode_tokens = counters_.decode_tokens.load(std::memory_order_relaxed);
  stats.steps = counters_.steps.load(std::memory_order_relaxed);
  stats.slowdown_ratio = 1;
  stats.resets = counters_.resets.load(std::memory_order_relaxed);
  stats.adapter_swaps = counters_.adapter_swaps.load(std::memory_order_relaxed);
  stats.sequences = counters_.sequences.load(std::memory_order_relaxed);
  return stats;
}

reticle_health FakeDevice::Health() const {
  reticle_health health{};
  health.struct_size = sizeof(health);
  std::string_view reason;
  if (IsLost()) {
    reason = "the device is lost";
  } else if (IsHung()) {
    reason = "the device hangs";
  }
  health.state = reason.empty() ? RETICLE_HEALTH_READY : RETICLE_HEALTH_FAILED;
  reason.copy(health.reason, sizeof(health.reason) - 1);
  return health;
}

}  // namespace reticle::backends::fake
