#include "scheduler/engine.h"

#include <algorithm>

#include "base/check.h"
#include "base/retry_after.h"
#include "base/status.h"
#include "scheduler/engine_impl.h"
#include "scheduler/validate.h"

namespace reticle::scheduler {
namespace {

constexpr uint32_t kDefaultRunAhead = 64;
constexpr size_t kPolledAtOnce = 256;
constexpr size_t kMaxRejectionsKept = 1024;
// How long to leave a device without an event descriptor unwatched.
constexpr int64_t kPollNs = 100'000;
constexpr int64_t kSwapsPerTurn = 20;
constexpr int64_t kShortestTurnNs = 20'000'000;

// Of all engines, so that a sequence keeps its place when it moves.
uint64_t NextArrival() {
  static std::atomic<uint64_t> arrivals{1};
  return arrivals.fetch_add(1, std::memory_order_relaxed);
}

EngineProbe& SilentProbe() {
  static EngineProbe* const probe = new EngineProbe;
  return *probe;
}

}  // namespace

Engine::Impl::Impl(Engine& engine, std::unique_ptr<backends::Device> device,
                   const EngineOptions& options, Clock& clock, EngineProbe* probe)
    : engine_(engine),
      options_(options),
      clock_(clock),
      probe_(probe != nullptr ? *probe : SilentProbe()),
      device_(std::move(device)),
      capabilities_(device_->capabilities()),
      signal_(std::make_shared<EngineSignal>()),
      memory_(capabilities_) {
  const uint64_t positions = uint64_t{memory_.total()} * memory_.unit_tokens();
  capabilities_.context_limit =
      static_cast<uint32_t>(std::min<uint64_t>(capabilities_.context_limit, positions));
  limits_.max_running = options.max_running == 0
                            ? capabilities_.max_sequences
                            : std::min(options.max_running, capabilities_.max_sequences);
  limits_.step_tokens = options.step_token_budget == 0
                            ? std::max(capabilities_.max_step_tokens, limits_.max_running)
                            : options.step_token_budget;
  limits_.max_chunk = capabilities_.max_prefill_chunk;
  limits_.run_ahead = std::min(capabilities_.max_decode_credits,
                               options.run_ahead == 0 ? kDefaultRunAhead : options.run_ahead);
  limits_.unit_tokens = memory_.unit_tokens();
  limits_.reserve_units = memory_.total() / 100;
  limits_.yield_priority = options.shed_priority;
  limits_.kept_slots = (limits_.max_running + 14) / 16;  // none of a single one
  lockstep_ = capabilities_.max_decode_credits == 1;
  swaps_adapters_ = device_->Has(RETICLE_FEATURE_ADAPTERS) && capabilities_.adapter_swap_ns > 0;
  const int64_t swap_ns = static_cast<int64_t>(capabilities_.adapter_swap_ns);
  adapter_turn_ns_ = options.adapter_turn_ns != 0
                         ? options.adapter_turn_ns
                         : std::max(kSwapsPerTurn * swap_ns, kShortestTurnNs);

  snapshot_.limits = limits_;
  slots_.resize(limits_.max_running);
  for (uint32_t slot = limits_.max_running; slot > 0; --slot) free_slots_.push_back(slot - 1);
  running_.reserve(limits_.max_running);
  work_.reserve(limits_.max_running);
  work_sequences_.reserve(limits_.max_running);
  samplings_.reserve(limits_.max_running);  // work_ points into it
  completions_.resize(kPolledAtOnce);
  if (options_.idle_health_ns > 0) health_timer_ns_ = clock_.NowNanos() + options_.idle_health_ns;
}

Engine::Impl::~Impl() {
  signal_->SetWake(nullptr);
  if (reset_thread_.joinable()) reset_thread_.join();
  now_ns_ = clock_.NowNanos();
  std::vector<Submission> submitted;
  std::vector<Displaced> adopted;
  {
    MutexLock lock(mutex_);
    submitted.swap(submitted_);
    adopted.swap(adopted_);
  }
  for (Submission& submission : submitted) AddSequences(std::move(submission));
  for (Displaced& displaced : adopted) AddDisplaced(std::move(displaced));
  FinishAll(UnavailableError("the engine is shut down"));
  EndStep();
}

absl::Status Engine::Impl::Validate(const Request& request) const {
  RETURN_IF_ERROR(ValidateRequest(request, capabilities_));
  if (request.adapter == 0) return absl::OkStatus();
  MutexLock lock(mutex_);
  if (adapters_.contains(request.adapter)) return absl::OkStatus();
  return NotFoundError("adapter %u is not loaded", request.adapter);
}

absl::Status Engine::Impl::Submit(Request request) {
  const bool book = request.book;
  absl::Status status = Validate(request);
  if (status.ok()) status = ValidateOutputs(request);
  if (status.ok()) status = Enqueue(std::move(request));
  uint32_t news = EngineSignal::kSubmitted;
  if (!status.ok()) {
    // Else another engine is asked.
    if (!book && !absl::IsInvalidArgument(status)) return status;
    MutexLock lock(mutex_);
    if (rejections_.size() < kMaxRejectionsKept) rejections_.push_back(status);
    news = EngineSignal::kControl;
  }
  signal_->Notify(news);
  return status;
}

absl::Status Engine::Impl::Enqueue(Request request) {
  const uint32_t count = static_cast<uint32_t>(request.outputs.size());
  MutexLock lock(mutex_);
  if (draining_.load(std::memory_order_relaxed)) {
    return UnavailableError("the engine is draining");
  }
  if (lost()) {
    return UnavailableError("device '%s' is %s", capabilities_.device_name,
                            DeviceStateName(state_.load()));
  }
  const uint32_t asked = count + request.more_sequences;
  const bool shed_first = request.priority >= options_.shed_priority;
  uint32_t waiting = waiting_count_.load(std::memory_order_relaxed);
  if (!shed_first) waiting -= shed_first_count_.load(std::memory_order_relaxed);
  const uint32_t limit = shed_first ? std::max(options_.max_waiting / 2, 1u) : options_.max_waiting;
  if (asked > limit) {
    return InvalidArgumentError("the request asks for %u sequences; at most %u may wait", asked,
                                limit);
  }
  AppointmentBook& book = appointments_[shed_first ? 1 : 0];
  if (waiting + asked <= limit) {
    book.OnRoom();
  } else if (!request.admitted) {
    const int64_t now_ns = clock_.NowNanos();
    const Asker asker{request.tenant, request.appointments, request.connection};
    // A tenant has so many at most; strangers have no bound but this.
    const bool lends = request.tenant != 0 || waiting + asked <= limit + limit / 8 + 1;
    if (!book.Redeem(asker, lends, now_ns)) {
      std::optional<int64_t> wait_ns;
      if (request.book) {
        wait_ns = book.Book(asker, waiting + asked - limit, paces_[shed_first ? 1 : 0], now_ns);
      }
      absl::Status refusal = ResourceExhaustedError(
          "%u sequences wait already, %u more would pass the limit of %u", waiting, asked, limit);
      return wait_ns.has_value() ? WithRetryAfter(std::move(refusal), *wait_ns) : refusal;
    }
  }
  for (size_t i = 0; i < request.outputs.size(); ++i) {
    const auto here = request.outputs.begin() + static_cast<ptrdiff_t>(i);
    if (!(*here)->attached() && std::find(request.outputs.begin(), here, *here) == here) continue;
    return InvalidArgumentError("outputs[%u] serves another sequence already", i);
  }
  for (const std::shared_ptr<TokenStream>& stream : request.outputs) {
    RETICLE_CHECK(stream->Attach(signal_));
  }
  CountWaiting(request, static_cast<int32_t>(count));
  alive_.fetch_add(count, std::memory_order_relaxed);
  submitted_.push_back({std::move(request), NextArrival()});
  return absl::OkStatus();
}

void Engine::Impl::Post(std::function<void()> control) {
  {
    MutexLock lock(mutex_);
    controls_.push_back(std::move(control));
  }
  signal_->Notify(EngineSignal::kControl);
}

bool Engine::Impl::Step() {
  now_ns_ = clock_.NowNanos();
  bool any = TakeSignals();
  any |= RunTimers();
  if (reachable_) any |= PollDevice();
  any |= PlanAndSubmit();
  if (any) EndStep();
  return any;
}

bool Engine::Impl::TakeSignals() {
  const uint32_t news = signal_->Take();
  if (news == 0) return false;
  if ((news & (EngineSignal::kSubmitted | EngineSignal::kControl)) != 0) {
    std::vector<Submission> submitted;
    std::vector<absl::Status> rejections;
    std::vector<std::function<void()>> controls;
    std::vector<Displaced> adopted;
    {
      MutexLock lock(mutex_);
      submitted.swap(submitted_);
      rejections.swap(rejections_);
      controls.swap(controls_);
      adopted.swap(adopted_);
    }
    for (const absl::Status& rejection : rejections) probe_.OnRejected(rejection);
    for (Displaced& displaced : adopted) AddDisplaced(std::move(displaced));
    for (Submission& submission : submitted) AddSequences(std::move(submission));
    // What came while the device was being lost.
    if (lost() && waiting_.size() > 0) {
      Rehouse();
      AwaitDevice();
    }
    for (const std::function<void()>& control : controls) control();
  }
  if ((news & EngineSignal::kCancelled) != 0) FinishCancelled();
  dirty_ = true;
  return true;
}

bool Engine::Impl::RunTimers() {
  bool any = false;
  while (!deadlines_.empty() && deadlines_.begin()->first <= now_ns_) {
    Sequence* const sequence = sequences_.at(deadlines_.begin()->second).get();
    const bool queued = sequence->admitted_ns < 0;
    Finish(sequence, FinishReason::kDeadline,
           DeadlineExceededError("the deadline passed %s after %d ms and %u tokens",
                                 queued ? "in the queue" : "while running",
                                 (now_ns_ - sequence->request().arrival_ns) / 1'000'000,
                                 sequence->output_tokens()));
    any = true;
  }
  if (std::min(stall_timer_ns_, retry_timer_ns_) <= now_ns_) {
    stall_timer_ns_ = retry_timer_ns_ = INT64_MAX;
    dirty_ = true;
  }
  if (watchdog_timer_ns_ <= now_ns_) {
    CheckWatchdog();
    any = true;
  }
  if (health_timer_ns_ <= now_ns_) any |= CheckHealth();
  if (reset_timer_ns_ <= now_ns_) {
    StartReset();
    any = true;
  }
  if (failover_timer_ns_ <= now_ns_) {
    failover_timer_ns_ = INT64_MAX;
    FinishAll(UnavailableError("%s; none came back within %d ms", loss_.message(),
                               options_.failover_ns / 1'000'000));
    any = true;
  }
  return any;
}

void Engine::Impl::FeedWatchdog() {
  const bool watches = options_.watchdog_ns > 0 && !running_.empty() && !lost();
  watchdog_timer_ns_ = watches ? now_ns_ + options_.watchdog_ns : INT64_MAX;
  if (options_.health_ns > 0 && !running_.empty()) {
    health_timer_ns_ = std::min(health_timer_ns_, now_ns_ + options_.health_ns);
  }
}

void Engine::Impl::CheckWatchdog() {
  watchdog_timer_ns_ = INT64_MAX;
  const bool owes = std::any_of(running_.begin(), running_.end(),
                                [](const Sequence* sequence) { return sequence->owed(); });
  // What it has just finished is no sign of a hang, even when this thread was away for long.
  if (!owes || PollDevice() || lost()) return;
  OnDeviceLost(
      DeadlineExceededError("no completion came for %d ms, at most %d are waited for",
                            options_.watchdog_ns / 1'000'000, options_.watchdog_ns / 1'000'000),
      /*hung=*/true);
}

void Engine::Impl::Settle(Sequence* sequence) {
  sequence->touched = false;
  sequence->stream().Flush();
  if (sequence->gaps == 0) return;
  probe_.OnInterTokenGaps(sequence->gaps_ns, sequence->gaps);
  sequence->gaps = 0;
  sequence->gaps_ns = 0;
}

void Engine::Impl::EndStep() {
  for (Sequence* sequence : touched_) Settle(sequence);
  touched_.clear();
  const size_t gone = gone_.size();
  gone_.clear();
  gauge_running_.store(static_cast<uint32_t>(running_.size()), std::memory_order_relaxed);
  gauge_used_.store(memory_.used(), std::memory_order_relaxed);
  alive_.fetch_sub(static_cast<uint32_t>(gone), std::memory_order_release);
  EngineGauges gauges;
  gauges.running = static_cast<uint32_t>(running_.size());
  gauges.waiting = waiting_count_.load(std::memory_order_relaxed);
  gauges.kv_blocks_total = memory_.total();
  gauges.kv_blocks_used = memory_.used();
  probe_.OnStep(step_prefill_tokens_, step_decode_tokens_, gauges);
  step_prefill_tokens_ = 0;
  step_decode_tokens_ = 0;
}

bool Engine::Impl::PrepareSleep() {
  if (signal_->Pending()) return false;
  if (reachable_ && capabilities_.event_fd >= 0 && !running_.empty() && device_->Arm())
    return false;
  return signal_->FallAsleep();
}

int64_t Engine::Impl::NextTimer() const {
  int64_t next = std::min({stall_timer_ns_, retry_timer_ns_, watchdog_timer_ns_, reset_timer_ns_,
                           failover_timer_ns_, health_timer_ns_});
  if (!deadlines_.empty()) next = std::min(next, deadlines_.begin()->first);
  if (capabilities_.event_fd < 0 && !running_.empty()) {
    next = std::min(next, clock_.NowNanos() + kPollNs);
  }
  return next;
}

void Engine::Impl::CheckInvariants() const {
  memory_.CheckInvariants();
  RETICLE_CHECK(std::is_sorted(running_.begin(), running_.end(), ServedBefore()));
  RETICLE_CHECK(running_.size() <= limits_.max_running);
  RETICLE_CHECK(running_.size() + free_slots_.size() == slots_.size());
  RETICLE_CHECK(running_.size() + waiting_.size() == sequences_.size());
  RETICLE_CHECK(touched_.empty() && gone_.empty());
  for (const Sequence* sequence : waiting_.All()) {
    RETICLE_CHECK(sequence->state == Sequence::State::kWaiting);
    RETICLE_CHECK(!sequence->on_device && sequence->lease.units() == 0 && sequence->idle());
  }
  uint64_t units = 0;
  for (const Sequence* sequence : running_) {
    RETICLE_CHECK(sequence->state != Sequence::State::kWaiting);
    RETICLE_CHECK(slots_[sequence->slot] == sequence);
    units += sequence->lease.units();
    const uint64_t covered = uint64_t{sequence->lease.units()} * memory_.unit_tokens();
    RETICLE_CHECK(sequence->positions <= covered);
    if (sequence->state != Sequence::State::kRunning) continue;
    RETICLE_CHECK(sequence->output_tokens() + sequence->credits <= sequence->request().max_tokens);
    RETICLE_CHECK(sequence->known_tokens() + sequence->credits <= capabilities_.context_limit);
    RETICLE_CHECK(sequence->promised_events() <= sequence->stream().FreeSlots());
    RETICLE_CHECK(sequence->idle() || sequence->on_device);
    if (sequence->idle()) RETICLE_CHECK(sequence->positions < sequence->known_tokens());
  }
  RETICLE_CHECK(memory_.used() <= units);
  if (memory_.pool() == nullptr) RETICLE_CHECK(memory_.used() == units);
  for (const auto& [deadline, id] : deadlines_) RETICLE_CHECK(sequences_.contains(id));
}

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(std::unique_ptr<backends::Device> device,
                                                       const EngineOptions& options, Clock& clock,
                                                       EngineProbe* probe) {
  if (device == nullptr) return InvalidArgumentError("device is null");
  const uint32_t sequences = device->capabilities().max_sequences;
  const uint32_t running =
      options.max_running == 0 ? sequences : std::min(options.max_running, sequences);
  if (options.step_token_budget != 0 && options.step_token_budget < running) {
    return InvalidArgumentError(
        "step_token_budget is %u; it must be at least the %u sequences that may run at once",
        options.step_token_budget, running);
  }
  if (options.max_waiting == 0) {
    return InvalidArgumentError("max_waiting is 0; it must be at least 1");
  }
  if (options.stall_ns < 0 || options.watchdog_ns < 0) {
    return InvalidArgumentError("stall_ns is %d and watchdog_ns %d; both must be at least 0",
                                options.stall_ns, options.watchdog_ns);
  }
  if (options.failover_ns < 0 || options.fence_window_ns < 0 || options.fence_ns < 0 ||
      options.health_ns < 0 || options.idle_health_ns < 0 || options.adapter_turn_ns < 0) {
    return InvalidArgumentError(
        "failover_ns is %d, fence_window_ns %d, fence_ns %d, health_ns %d, idle_health_ns %d and "
        "adapter_turn_ns %d; each must be at least 0",
        options.failover_ns, options.fence_window_ns, options.fence_ns, options.health_ns,
        options.idle_health_ns, options.adapter_turn_ns);
  }
  return std::unique_ptr<Engine>(new Engine(std::move(device), options, clock, probe));
}

Engine::Engine(std::unique_ptr<backends::Device> device, const EngineOptions& options, Clock& clock,
               EngineProbe* probe)
    : impl_(std::make_unique<Impl>(*this, std::move(device), options, clock, probe)) {}
Engine::~Engine() = default;

absl::Status Engine::Submit(Request request) { return impl_->Submit(std::move(request)); }

absl::Status Engine::Validate(const Request& request) const { return impl_->Validate(request); }

void Engine::BeginDrain() {
  MutexLock lock(impl_->mutex_);
  impl_->draining_.store(true, std::memory_order_relaxed);
}

bool Engine::Idle() const { return impl_->alive_.load(std::memory_order_acquire) == 0; }

void Engine::AbortAll(absl::Status status) {
  impl_->Post([impl = impl_.get(), status = std::move(status)] { impl->FinishAll(status); });
}

EngineGauges Engine::Gauges() const {
  EngineGauges gauges;
  gauges.running = impl_->gauge_running_.load(std::memory_order_relaxed);
  gauges.waiting = impl_->waiting_count_.load(std::memory_order_relaxed);
  gauges.kv_blocks_total = impl_->memory_.total();
  gauges.kv_blocks_used = impl_->gauge_used_.load(std::memory_order_relaxed);
  return gauges;
}

const reticle_capabilities& Engine::capabilities() const { return impl_->capabilities_; }

DeviceState Engine::device_state() const { return impl_->state_.load(std::memory_order_acquire); }

absl::Status Engine::Adopt(Displaced& displaced) { return impl_->Adopt(displaced); }

void Engine::SeekRefuge() {
  impl_->Post([impl = impl_.get()] {
    if (impl->lost()) impl->Rehouse();
  });
}

void Engine::Fence(std::string reason) {
  impl_->Post([impl = impl_.get(), reason = std::move(reason)] {
    impl->Fence(UnavailableError("%s", reason));
  });
}

void Engine::Unfence(std::function<void(absl::Status)> done) {
  impl_->Post([impl = impl_.get(), done = std::move(done)] { impl->Unfence(done); });
}

void Engine::ResetDevice() {
  impl_->Post([impl = impl_.get()] {
    if (!impl->lost()) impl->OnDeviceLost(UnavailableError("it is reset by order"));
  });
}

void Engine::SetRefuge(Refuge* refuge) { impl_->refuge_ = refuge; }

const char* DeviceStateName(DeviceState state) {
  switch (state) {
    case DeviceState::kReady:
      return "ready";
    case DeviceState::kLost:
      return "lost";
    case DeviceState::kFenced:
      break;
  }
  return "fenced";
}

absl::StatusOr<reticle_health> Engine::Health() const { return impl_->device_->Health(); }

absl::StatusOr<reticle_stats> Engine::DeviceStats() const { return impl_->device_->Stats(); }

uint32_t Engine::CachedPrefixTokens(std::span<const TokenId> prompt, uint64_t adapter) const {
  const BlockPool* const pool = impl_->memory_.pool();
  if (pool == nullptr || prompt.empty() || !impl_->options_.prefix_cache) return 0;
  return pool->MatchHint(pool->Root(adapter, 0), prompt.first(prompt.size() - 1));
}

void Engine::LoadAdapter(uint64_t adapter, std::string path, float scale,
                         std::function<void(absl::Status)> done) {
  impl_->Post([impl = impl_.get(), adapter, path = std::move(path), scale, done = std::move(done)] {
    absl::Status status =
        impl->resetting_ ? impl->loss_ : impl->device_->LoadAdapter(adapter, path, scale);
    if (status.ok()) {
      MutexLock lock(impl->mutex_);
      impl->adapters_[adapter] = {path, scale};
    }
    done(std::move(status));
  });
}

void Engine::UnloadAdapter(uint64_t adapter, std::function<void(absl::Status)> done) {
  impl_->Post([impl = impl_.get(), adapter, done = std::move(done)] {
    absl::Status status = impl->resetting_ ? impl->loss_ : impl->device_->UnloadAdapter(adapter);
    if (status.ok()) {
      MutexLock lock(impl->mutex_);
      impl->adapters_.erase(adapter);
    }
    done(std::move(status));
  });
}

bool Engine::AdapterLoaded(uint64_t adapter) const {
  MutexLock lock(impl_->mutex_);
  return impl_->adapters_.contains(adapter);
}

bool Engine::SwapsAdapters() const { return impl_->swaps_adapters_; }

uint64_t Engine::current_adapter() const {
  return impl_->current_adapter_.load(std::memory_order_relaxed);
}

void Engine::SetWake(std::function<void()> wake) { impl_->signal_->SetWake(std::move(wake)); }

bool Engine::Step() { return impl_->Step(); }

bool Engine::PrepareSleep() { return impl_->PrepareSleep(); }

int Engine::event_fd() const { return impl_->capabilities_.event_fd; }

int64_t Engine::next_timer_ns() const { return impl_->NextTimer(); }

void Engine::CheckInvariants() const { impl_->CheckInvariants(); }

}  // namespace reticle::scheduler
