#include "backends/hardwired/driver/hardwired_core.h"

#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "backends/abi/capabilities_check.h"
#include "backends/hardwired/card/firmware_loop.h"
#include "backends/hardwired/driver/open_devices.h"
#include "backends/sampling/sequence_sampling.h"
#include "base/status.h"

namespace reticle::backends::hardwired {
namespace {

// A host that would sleep shorter than this polls on: a sleeping thread wakes 35 to 65 us late.
constexpr int64_t kTooShortToSleepNs = 100'000;
constexpr int64_t kWakeUpNs = 60'000;
constexpr int64_t kResendPatienceNs = 50'000'000;
constexpr int64_t kAdapterPatienceNs = 120'000'000'000;
constexpr uint32_t kMaxVocab = 1u << 24;
constexpr uint32_t kMaxSequences = 1u << 16;
// Beyond these a card's numbers are no times and no energies.
constexpr uint64_t kMaxDeviceNs = uint64_t{1} << 62;
constexpr uint64_t kMaxEnergyNj = 1'000'000'000'000'000'000;
// A card that never ceases to talk does not keep the host.
constexpr int kDrainedAtOnce = 8192;

void SetTimer(int fd, int64_t delay_ns) {
  const int64_t delay = std::max<int64_t>(delay_ns, 1);
  itimerspec when{};
  when.it_value.tv_sec = delay / 1'000'000'000;
  when.it_value.tv_nsec = delay % 1'000'000'000;
  timerfd_settime(fd, 0, &when, nullptr);
}

// A card's text for people, whatever it holds.
std::string Printable(std::string_view text) {
  std::string printable(text);
  for (char& c : printable) {
    if (c < ' ' || c > '~') c = '?';
  }
  return printable;
}

}  // namespace

HardwiredDevice::HardwiredDevice(const reticle_host& host, DriverOptions options)
    : host_(host), options_(std::move(options)) {}

absl::StatusOr<std::unique_ptr<HardwiredDevice>> HardwiredDevice::Open(
    const reticle_host& host, const reticle_device_config& config) {
  ASSIGN_OR_RETURN(DriverOptions options, DriverOptions::FromConfig(config));
  std::unique_ptr<HardwiredDevice> device(new HardwiredDevice(host, std::move(options)));
  const DriverOptions& made = device->options_;
  const bool is_inline = made.place == CardPlace::kInline;
  device->event_fd_.Reset(is_inline ? timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
                                    : eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (device->event_fd_.get() < 0) return ResourceExhaustedError("no descriptor for event_fd");
  ASSIGN_OR_RETURN(device->connection_, MakeConnection(made, device->event_fd_.get()));
  if (!is_inline || !made.fault_file.empty()) {
    Watcher::Options watcher;
    watcher.watchdog_ns = int64_t{made.watchdog_ms} * 1'000'000;
    watcher.fault_file = made.fault_file;
    watcher.device_name = made.name;
    watcher.device_index = made.device_index;
    watcher.watches_heartbeat = !is_inline;
    watcher.owes_work = [raw = device.get()] { return raw->OwesWork(); };
    watcher.lose = [raw = device.get()](LossReason reason) { raw->Lose(reason); };
    watcher.inject = [raw = device.get()](const FaultSpec& fault) { raw->Inject(fault); };
    ASSIGN_OR_RETURN(device->watcher_, Watcher::Start(std::move(watcher)));
  }
  RETURN_IF_ERROR(device->Start());
  OpenDevices::Get().Add(device.get());
  return device;
}

HardwiredDevice::~HardwiredDevice() {
  OpenDevices::Get().Remove(this);
  watcher_.reset();
}

absl::Status HardwiredDevice::Start() {
  RETURN_IF_ERROR(connection_->Start());
  const std::shared_ptr<CardMemory>& memory = connection_->memory();
  reticle_capabilities told;
  std::memcpy(&told, &memory->registers().capabilities, sizeof(told));
  told.struct_size = sizeof(told);
  told.event_fd = event_fd_.get();
  const bool replays = (memory->registers().flags & kCardReplays) != 0;
  if (replays || !connection_->is_inline()) told.features |= RETICLE_FEATURE_CHEAP_POLL;
  RETURN_IF_ERROR(CheckCapabilities(told));
  if (told.vocab_size > kMaxVocab || told.max_sequences > kMaxSequences ||
      told.kv_mode != RETICLE_KV_DEVICE_SLOTS ||
      LongestOrderBytes(told) > memory->submissions().size()) {
    return DataLossError("the card's capabilities make no sense");
  }
  if (capabilities_.struct_size == 0) {
    capabilities_ = told;
  } else if (std::memcmp(&capabilities_, &told, sizeof(told)) != 0) {
    return FailedPreconditionError("another card answers than before: '%s' with model '%s'",
                                   told.device_name, told.model_name);
  }
  orders_ = std::make_unique<OrderWriter>(memory);
  completions_ = std::make_unique<CompletionReader>(memory);
  registers_ = &memory->registers();
  resend_since_ns_ = 0;
  heartbeat_since_ns_ = 0;
  {
    MutexLock lock(mutex_);
    memory_ = memory;
  }
  is_virtual_ = (memory->registers().flags & kCardHasVirtualClock) != 0;
  // First the watcher, so that the end of the old card is not taken for that of the new one.
  if (watcher_ != nullptr) watcher_->Watch(memory, connection_->hangup_fd());
  lost_.store(0, std::memory_order_release);
  return absl::OkStatus();
}

// ---- Loss ----

LossReason HardwiredDevice::ReasonOfCard(const CardRegisters& registers) {
  const auto state = static_cast<CardState>(registers.state.load(std::memory_order_acquire));
  if (state == CardState::kRunning) return LossReason::kNone;
  if (state != CardState::kFailed) return LossReason::kGone;
  switch (static_cast<CardFailure>(registers.failure.load(std::memory_order_relaxed))) {
    case CardFailure::kMemory:
      return LossReason::kMemory;
    case CardFailure::kImage:
      return LossReason::kImage;
    default:
      return LossReason::kLink;
  }
}

bool HardwiredDevice::IsLost() {
  if (lost_.load(std::memory_order_acquire) != 0) return true;
  const LossReason reason = ReasonOfCard(*registers_);
  if (reason == LossReason::kNone) return false;
  Lose(reason);
  return true;
}

absl::Status HardwiredDevice::LossStatus() const {
  const auto reason = static_cast<LossReason>(lost_.load(std::memory_order_acquire));
  return UnavailableError("%s; reset it", LossText(reason));
}

void HardwiredDevice::Lose(LossReason reason) {
  uint32_t none = 0;
  if (!lost_.compare_exchange_strong(none, static_cast<uint32_t>(reason))) return;
  if (options_.place == CardPlace::kInline) {
    SetTimer(event_fd_.get(), 0);
  } else {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(event_fd_.get(), &one, sizeof(one));
  }
}

bool HardwiredDevice::OwesWork() const {
  return lost_.load(std::memory_order_acquire) == 0 && owed_.load(std::memory_order_acquire) > 0;
}

void HardwiredDevice::WatchInline() {
  const uint64_t heartbeat = registers_->heartbeat.load(std::memory_order_relaxed);
  if (heartbeat != heartbeat_ || owed_.load(std::memory_order_relaxed) == 0) {
    heartbeat_ = heartbeat;
    heartbeat_since_ns_ = 0;
    return;
  }
  const int64_t now = Now();
  if (heartbeat_since_ns_ == 0) heartbeat_since_ns_ = now;
  if (now - heartbeat_since_ns_ >= int64_t{options_.watchdog_ms} * 1'000'000) {
    Lose(LossReason::kHang);
  }
}

// ---- Orders ----

absl::Status HardwiredDevice::Submit(const reticle_work* work, size_t stride, size_t count,
                                     size_t* accepted) {
  *accepted = 0;
  if (IsLost()) return LossStatus();
  // What ended meanwhile is refused.
  Drain(SIZE_MAX);
  absl::Status refusal;
  for (; *accepted < count; ++*accepted) {
    refusal = Accept(StridedAt(work, stride, *accepted), stride);
    if (!refusal.ok()) break;
  }
  if (*accepted > 0) connection_->Ring();
  if (armed_) SignalInline();
  return refusal;
}

absl::Status HardwiredDevice::CheckRoom(const reticle_work& work,
                                        const HostSequence* sequence) const {
  const uint32_t alive = alive_.load(std::memory_order_relaxed);
  if (sequence == nullptr && alive >= capabilities_.max_sequences) {
    return ResourceExhaustedError("%u sequences are alive; max_sequences is %u", alive,
                                  capabilities_.max_sequences);
  }
  if (kv_tokens_ + work.token_count > capabilities_.kv_token_capacity) {
    return ResourceExhaustedError("%u tokens are held and %u come; kv_token_capacity is %u",
                                  kv_tokens_, work.token_count, capabilities_.kv_token_capacity);
  }
  return absl::OkStatus();
}

absl::Status HardwiredDevice::Accept(const reticle_work* from, size_t stride) {
  if (from->struct_size < sizeof(size_t)) {
    return InvalidArgumentError("struct_size of the work item is %u; it must be at least %u",
                                from->struct_size, sizeof(size_t));
  }
  const WholeWork whole(from, stride);
  const reticle_work& work = whole.work();
  const auto found = sequences_.find(work.sequence);
  HostSequence* sequence = found == sequences_.end() ? nullptr : found->second;
  if (sequence != nullptr && sequence->is_cancelled) {
    return NotFoundError("sequence %u is cancelled", work.sequence);
  }
  RETURN_IF_ERROR(CheckWork(work, whole.sampling(),
                            sequence != nullptr ? sequence->view : SequenceView{}, capabilities_));
  if (whole.sampling() != nullptr) {
    RETURN_IF_ERROR(sampling::ValidateSampling(*whole.sampling(), capabilities_));
  }
  if (work.adapter != 0 && !adapters_.contains(work.adapter)) {
    return NotFoundError("adapter %u is not loaded", work.adapter);
  }
  RETURN_IF_ERROR(CheckRoom(work, sequence));
  if (!orders_->WriteWork(work, whole.sampling(), capabilities_.vocab_size, Stamp())) {
    if (orders_->broken()) Lose(LossReason::kLink);
    if (orders_->broken()) return LossStatus();
    return absl::ResourceExhaustedError("the submission ring is full");
  }
  if (sequence == nullptr) {
    sequence = Begin(work.sequence);
    sequence->view.adapter = work.adapter;
    if (work.adapter != 0) ++adapters_[work.adapter].users;
  }
  SequenceView& view = sequence->view;
  sequence->tag = work.tag;
  if (whole.sampling() != nullptr) view.has_sampling = true;
  if (work.token_count > 0) {
    ++sequence->prefills;
    if ((work.flags & RETICLE_WORK_PROMPT_LOGPROBS) != 0) sequence->scores += work.token_count;
    view.next_position = work.position + work.token_count;
    view.has_sampled = false;
    sequence->kv_tokens += work.token_count;
    kv_tokens_ += work.token_count;
  }
  view.credits += work.decode_credits;
  CountOwed(*sequence);
  return absl::OkStatus();
}

HardwiredDevice::HostSequence* HardwiredDevice::Begin(uint64_t id) {
  if (free_.empty()) {
    pool_.push_back(std::make_unique<HostSequence>());
    free_.push_back(pool_.back().get());
  }
  HostSequence* const sequence = free_.back();
  free_.pop_back();
  *sequence = HostSequence();
  sequence->view.state = SequenceView::State::kAlive;
  sequences_.emplace(id, sequence);
  alive_.fetch_add(1, std::memory_order_relaxed);
  return sequence;
}

absl::Status HardwiredDevice::Cancel(uint64_t id) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end()) {
    return NotFoundError("sequence %u never began, or its end was polled", id);
  }
  HostSequence& sequence = *found->second;
  if (sequence.view.state == SequenceView::State::kEnded || sequence.is_cancelled) {
    return absl::OkStatus();
  }
  sequence.is_cancelled = true;
  CountOwed(sequence);
  cancels_.push_back(id);
  FlushCancels();
  if (armed_) SignalInline();
  return absl::OkStatus();
}

void HardwiredDevice::FlushCancels() {
  if (IsLost()) return;
  size_t written = 0;
  while (written < cancels_.size() && orders_->WriteCancel(cancels_[written], Stamp())) ++written;
  if (orders_->broken()) Lose(LossReason::kLink);
  if (written == 0) return;
  cancels_.erase(cancels_.begin(), cancels_.begin() + static_cast<ptrdiff_t>(written));
  connection_->Ring();
}

absl::Status HardwiredDevice::LoadAdapter(uint64_t adapter, const char* path, float scale) {
  if ((capabilities_.features & RETICLE_FEATURE_ADAPTERS) == 0) {
    return absl::UnimplementedError("this device does not offer adapters");
  }
  if (adapter == 0) return absl::InvalidArgumentError("adapter is 0; ids begin at 1");
  if (*path == '\0') {
    return absl::InvalidArgumentError("path of the adapter is empty");
  }
  if (std::strlen(path) > 4096) return absl::InvalidArgumentError("path has more than 4096 bytes");
  if (adapters_.contains(adapter)) return AlreadyExistsError("adapter %u is loaded", adapter);
  if (adapters_.size() >= capabilities_.max_adapters) {
    return ResourceExhaustedError("%u adapters are loaded; max_adapters is %u", adapters_.size(),
                                  capabilities_.max_adapters);
  }
  RETURN_IF_ERROR(RunAdapterOrder(OrderKind::kLoadAdapter, adapter, path, scale));
  adapters_[adapter] = {path, scale, 0};
  return absl::OkStatus();
}

absl::Status HardwiredDevice::UnloadAdapter(uint64_t adapter) {
  if ((capabilities_.features & RETICLE_FEATURE_ADAPTERS) == 0) {
    return absl::UnimplementedError("this device does not offer adapters");
  }
  const auto found = adapters_.find(adapter);
  if (found == adapters_.end()) return NotFoundError("adapter %u is not loaded", adapter);
  Drain(SIZE_MAX);
  if (found->second.users > 0) {
    return FailedPreconditionError("adapter %u is used by %u live sequences", adapter,
                                   found->second.users);
  }
  RETURN_IF_ERROR(RunAdapterOrder(OrderKind::kUnloadAdapter, adapter, "", 0));
  adapters_.erase(adapter);
  return absl::OkStatus();
}

absl::Status HardwiredDevice::RunAdapterOrder(OrderKind kind, uint64_t adapter,
                                              std::string_view path, float scale) {
  if (IsLost()) return LossStatus();
  adapter_answered_ = false;
  if (!orders_->WriteAdapter(kind, adapter, path, scale, Stamp())) {
    return absl::ResourceExhaustedError("the submission ring is full");
  }
  connection_->Ring();
  const int64_t give_up_ns = Now() + kAdapterPatienceNs;
  while (!adapter_answered_) {
    connection_->Pump();
    connection_->Advance();
    Drain(SIZE_MAX);
    if (IsLost()) return LossStatus();
    if (Now() > give_up_ns) {
      return DeadlineExceededError("the card did not answer about adapter %u", adapter);
    }
    if (!adapter_answered_ && !connection_->is_inline()) usleep(50);
  }
  return adapter_status_;
}

// ---- Completions ----

absl::Status HardwiredDevice::Poll(reticle_completion* completions, size_t stride, size_t capacity,
                                   size_t* count) {
  *count = 0;
  if (IsLost()) return LossStatus();
  if (!cancels_.empty()) FlushCancels();
  if (queue_.size() < capacity) {
    connection_->Pump();
    Drain(capacity);
    if (queue_.empty() && owed_.load(std::memory_order_relaxed) > 0) {
      if (connection_->Advance()) Drain(capacity);
      if (connection_->is_inline() && queue_.empty()) WatchInline();
    }
    if (IsLost()) return LossStatus();
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

void HardwiredDevice::Drain(size_t wanted) {
  ReadCompletion read;
  int drained = 0;
  while (queue_.size() < wanted && drained < kDrainedAtOnce) {
    if (completions_->Read(&read)) {
      ++drained;
      OnCompletion(read);
      continue;
    }
    const uint64_t errors = link_errors_before_ + completions_->errors();
    if (errors != link_errors_.load(std::memory_order_relaxed)) {
      link_errors_.store(errors, std::memory_order_relaxed);
      last_link_error_ns_.store(Now(), std::memory_order_relaxed);
      resend_since_ns_ = Now();
    }
    if (completions_->broken()) Lose(LossReason::kLink);
    if (completions_->broken() || !completions_->waits_for_resend()) return;
    if (!connection_->is_inline()) {
      connection_->Ring();
      if (Now() - resend_since_ns_ > kResendPatienceNs) Lose(LossReason::kLink);
      return;
    }
    const uint64_t request = registers_->resend_request.load(std::memory_order_relaxed);
    connection_->Pump();
    if (registers_->resent.load(std::memory_order_relaxed) != request) return;  // it hangs
  }
}

// What a card says is believed when it agrees with what was asked.
bool HardwiredDevice::IsSane(const ReadCompletion& read, const HostSequence& sequence) const {
  const CompletionCell& cell = read.cell;
  const SequenceView& view = sequence.view;
  if (cell.finish > RETICLE_FINISH_ERROR || cell.device_time_ns < sequence.device_time_ns ||
      cell.device_time_ns > kMaxDeviceNs || cell.busy_ns > cell.device_time_ns ||
      cell.energy_nj > kMaxEnergyNj || cell.top_count > capabilities_.max_logprobs ||
      std::isnan(cell.logprob)) {
    return false;
  }
  for (const reticle_token_logprob& entry : read.top) {
    if (entry.token >= capabilities_.vocab_size || std::isnan(entry.logprob)) return false;
  }
  switch (cell.kind) {
    case RETICLE_COMPLETION_TOKEN:
      return cell.token < capabilities_.vocab_size && view.credits > 0 &&
             cell.position == view.next_position + (view.has_sampled ? 1 : 0) &&
             cell.position < capabilities_.context_limit &&
             cell.finish <= RETICLE_FINISH_CONTEXT_LIMIT;
    case RETICLE_COMPLETION_PROMPT_LOGPROB:
      if (sequence.scores == 0) return false;
      [[fallthrough]];
    case RETICLE_COMPLETION_PREFILL:
      return sequence.prefills > 0 && cell.finish == RETICLE_FINISH_NONE &&
             cell.token < capabilities_.vocab_size;
    case RETICLE_COMPLETION_END:
      return cell.finish >= RETICLE_FINISH_CANCELLED;
    default:
      return false;
  }
}

void HardwiredDevice::OnCompletion(const ReadCompletion& read) {
  const CompletionCell& cell = read.cell;
  if (cell.kind == kAdapterResult) {
    adapter_answered_ = true;
    adapter_status_ =
        absl::Status(static_cast<absl::StatusCode>(cell.status), Printable(read.message));
    return;
  }
  const auto found = sequences_.find(cell.sequence);
  if (found == sequences_.end() || found->second->view.state != SequenceView::State::kAlive) return;
  HostSequence& sequence = *found->second;
  if (!IsSane(read, sequence)) {
    Lose(LossReason::kLink);
    return;
  }
  sequence.device_time_ns = cell.device_time_ns;
  SequenceView& view = sequence.view;
  if (cell.kind == RETICLE_COMPLETION_TOKEN) {
    if (view.has_sampled) {
      ++sequence.kv_tokens;
      ++kv_tokens_;
    }
    view.has_sampled = true;
    view.next_position = cell.position;
    if (--view.credits == 0) CountOwed(sequence);
  } else if (cell.kind == RETICLE_COMPLETION_PREFILL) {
    if (--sequence.prefills == 0) CountOwed(sequence);
  } else if (cell.kind == RETICLE_COMPLETION_PROMPT_LOGPROB) {
    --sequence.scores;
  }
  reticle_completion completion{};
  completion.sequence = cell.sequence;
  completion.tag = cell.tag;
  completion.kind = cell.kind;
  completion.finish = cell.finish;
  completion.token = cell.token;
  completion.position = cell.position;
  completion.token_count = cell.token_count;
  completion.credits_left = cell.credits_left;
  completion.device_time_ns = cell.device_time_ns;
  completion.busy_ns = cell.busy_ns;
  completion.energy_nj = cell.energy_nj;
  completion.logprob = cell.logprob;
  completion.rank = cell.rank;
  completion.status = cell.status;
  std::string message = Printable(read.message);
  if (cell.finish == RETICLE_FINISH_ERROR) {
    if (completion.status <= RETICLE_OK || completion.status > RETICLE_DATA_LOSS) {
      completion.status = RETICLE_UNKNOWN;
    }
    if (message.empty()) message = "the card gave no reason";
  }
  queue_.Push(completion, read.top, message);
  if (cell.finish != RETICLE_FINISH_NONE) OnEnd(sequence);
}

void HardwiredDevice::OnEnd(HostSequence& sequence) {
  SequenceView& view = sequence.view;
  view.credits = 0;
  view.state = SequenceView::State::kEnded;
  CountOwed(sequence);
  kv_tokens_ -= sequence.kv_tokens;
  if (view.adapter != 0) --adapters_[view.adapter].users;
  alive_.fetch_sub(1, std::memory_order_relaxed);
}

void HardwiredDevice::CountOwed(HostSequence& sequence) {
  const bool owed = sequence.view.state == SequenceView::State::kAlive &&
                    (sequence.view.credits > 0 || sequence.prefills > 0 || sequence.is_cancelled);
  if (owed == sequence.is_owed) return;
  sequence.is_owed = owed;
  owed_.fetch_add(owed ? 1 : UINT32_MAX, std::memory_order_relaxed);
}

// ---- Waiting ----

bool HardwiredDevice::Arm() {
  if (!queue_.empty() || completions_->pending() || IsLost()) return true;
  if (connection_->is_inline()) {
    const int64_t delay_ns = InlineDelay();
    if (delay_ns == 0) return true;
    armed_ = true;
    if (delay_ns != INT64_MAX) SetTimer(event_fd_.get(), delay_ns);
    return false;
  }
  registers_->armed.store(1, std::memory_order_seq_cst);
  const int64_t next = registers_->next_event_ns.load(std::memory_order_acquire);
  const bool soon = next != INT64_MIN && next != INT64_MAX && owed_.load() > 0 &&
                    next < connection_->NowNanos() + kTooShortToSleepNs;
  if (completions_->pending() || IsLost() || soon || (is_virtual_ && owed_.load() > 0)) {
    registers_->armed.store(0, std::memory_order_relaxed);
    return true;
  }
  return false;
}

int64_t HardwiredDevice::InlineDelay() const {
  if (completions_->pending()) return 0;
  const bool owes = owed_.load(std::memory_order_relaxed) > 0;
  const int64_t next = registers_->next_event_ns.load(std::memory_order_relaxed);
  if (options_.card.virtual_clock && options_.virtual_clock.empty() && next != INT64_MAX) return 0;
  if (next != INT64_MAX) {
    const int64_t delay_ns = next - connection_->NowNanos();
    return delay_ns < kTooShortToSleepNs ? 0 : delay_ns - kWakeUpNs;
  }
  return owes ? int64_t{options_.watchdog_ms} * 1'000'000 : INT64_MAX;
}

void HardwiredDevice::SignalInline() {
  const int64_t delay_ns = InlineDelay();
  if (delay_ns == INT64_MAX) return;
  if (delay_ns == 0) armed_ = false;
  SetTimer(event_fd_.get(), delay_ns);
}

absl::Status HardwiredDevice::Reset() {
  for (const auto& [id, sequence] : sequences_) {
    if (sequence->view.state != SequenceView::State::kAlive) continue;
    reticle_completion completion{};
    completion.sequence = id;
    completion.tag = sequence->tag;
    completion.kind = RETICLE_COMPLETION_END;
    completion.finish = RETICLE_FINISH_ERROR;
    completion.status = RETICLE_ABORTED;
    completion.device_time_ns = sequence->device_time_ns;
    queue_.Push(completion, {}, "the device was reset");
    OnEnd(*sequence);
  }
  cancels_.clear();
  {
    MutexLock lock(mutex_);
    if (memory_ != nullptr) before_ = ReadCounters(memory_->registers());
  }
  link_errors_before_ = link_errors_.load(std::memory_order_relaxed);
  resets_.fetch_add(1, std::memory_order_relaxed);
  Lose(LossReason::kRestart);
  {
    // The old memory's counters are in before_ now.
    MutexLock lock(mutex_);
    memory_.reset();
  }
  RETURN_IF_ERROR(Start());
  for (const auto& [adapter, loaded] : adapters_) {
    const absl::Status status =
        RunAdapterOrder(OrderKind::kLoadAdapter, adapter, loaded.path, loaded.scale);
    if (status.code() == absl::StatusCode::kAlreadyExists) continue;
    RETURN_IF_ERROR(status);
  }
  return absl::OkStatus();
}

}  // namespace reticle::backends::hardwired
