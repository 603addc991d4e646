#include <algorithm>
#include <system_error>
#include <utility>

#include "base/log.h"
#include "base/status.h"
#include "scheduler/engine_impl.h"

namespace reticle::scheduler {
namespace {

constexpr int64_t kFirstResetDelayNs = 100'000'000;
constexpr int64_t kLongestResetDelayNs = 30'000'000'000;

}  // namespace

void Engine::Impl::SetState(DeviceState state) {
  state_.store(state, std::memory_order_release);
  if (state != DeviceState::kReady) watchdog_timer_ns_ = INT64_MAX;
}

void Engine::Impl::OnDeviceLost(const absl::Status& status, bool hung) {
  now_ns_ = clock_.NowNanos();
  dirty_ = true;
  device_clock_.Forget();
  loss_ = UnavailableError("device '%s' is lost: %s", capabilities_.device_name, status.message());
  LogWarning("%s", loss_.message());
  reachable_ = false;
  const bool fenced = state_.load() == DeviceState::kFenced;
  if (!fenced) SetState(DeviceState::kLost);
  // Whoever counts the loss finds the device lost.
  probe_.OnDeviceLost(hung);
  if (fenced) {
    ForgetDevice();
    return;
  }
  const std::vector<Sequence*> running = running_;
  for (Sequence* sequence : running) {
    if (sequence->state == Sequence::State::kRunning) Recover(sequence, loss_);
  }
  // Before the reset, which may take long.
  Rehouse();
  if (!device_->Has(RETICLE_FEATURE_RESET)) {
    SetState(DeviceState::kFenced);
    ForgetDevice();
    FinishAll(loss_);
    return;
  }
  if (LostTooOften()) {
    LogError("device '%s' was lost %d times within %d s: fenced", capabilities_.device_name,
             losses_ns_.size(), options_.fence_window_ns / 1'000'000'000);
    SetState(DeviceState::kFenced);
    ForgetDevice();
    ScheduleReset();
    return;
  }
  AwaitDevice();
  StartReset();
}

bool Engine::Impl::LostTooOften() {
  losses_ns_.push_back(now_ns_);
  while (losses_ns_.front() + options_.fence_window_ns < now_ns_) losses_ns_.pop_front();
  return options_.fence_after > 0 && losses_ns_.size() >= options_.fence_after;
}

void Engine::Impl::Fence(const absl::Status& reason) {
  now_ns_ = clock_.NowNanos();
  loss_ =
      UnavailableError("device '%s' is fenced: %s", capabilities_.device_name, reason.message());
  LogWarning("%s", loss_.message());
  SetState(DeviceState::kFenced);
  fenced_by_order_ = true;
  reset_timer_ns_ = INT64_MAX;
  const std::vector<Sequence*> running = running_;
  for (Sequence* sequence : running) {
    if (sequence->state == Sequence::State::kRunning) Preempt(sequence);
  }
  Rehouse();
  AwaitDevice();
}

void Engine::Impl::Unfence(std::function<void(absl::Status)> done) {
  losses_ns_.clear();
  reset_delay_ns_ = 0;
  fenced_by_order_ = false;
  if (lost() && reachable_) Reopen();
  if (!lost()) {
    done(absl::OkStatus());
    return;
  }
  reset_waiters_.push_back(std::move(done));
  StartReset();
}

bool Engine::Impl::CheckHealth() {
  const int64_t period_ns = running_.empty() ? options_.idle_health_ns : options_.health_ns;
  health_timer_ns_ = period_ns > 0 ? now_ns_ + period_ns : INT64_MAX;
  if (!reachable_) return false;
  const absl::Status health = DeviceHealth();
  if (health.ok()) return false;
  OnDeviceLost(health);
  return true;
}

absl::Status Engine::Impl::DeviceHealth() const {
  ASSIGN_OR_RETURN(const reticle_health health, device_->Health());
  if (health.state != RETICLE_HEALTH_FAILED) return absl::OkStatus();
  return UnavailableError("%s", health.reason);
}

void Engine::Impl::StartReset() {
  reset_timer_ns_ = INT64_MAX;
  if (resetting_) return;
  if (!options_.reset_in_background) {
    FinishReset(ResetDevice());
    return;
  }
  resetting_ = true;
  if (reset_thread_.joinable()) reset_thread_.join();
  try {
    reset_thread_ = std::thread([this] {
      absl::Status status = ResetDevice();
      Post([this, status = std::move(status)] {
        resetting_ = false;
        now_ns_ = clock_.NowNanos();
        FinishReset(status);
      });
    });
  } catch (const std::system_error& error) {
    resetting_ = false;
    FinishReset(InternalError("no thread for the reset: %s", error.what()));
  }
}

absl::Status Engine::Impl::ResetDevice() {
  RETURN_IF_ERROR(device_->Reset());
  RETURN_IF_ERROR(DeviceHealth());
  return ReloadAdapters();
}

void Engine::Impl::FinishReset(const absl::Status& status) {
  now_ns_ = clock_.NowNanos();
  probe_.OnDeviceReset(status.ok());
  std::vector<std::function<void(absl::Status)>> waiters;
  waiters.swap(reset_waiters_);
  if (status.ok()) {
    if (BlockPool* const pool = memory_.pool()) pool->ForgetAll();
    reachable_ = true;
    reset_delay_ns_ = 0;
    if (!fenced_by_order_) Reopen();
  } else {
    LogError("device '%s' cannot be brought back: %s", capabilities_.device_name, status.message());
    loss_ =
        UnavailableError("device '%s' is lost: %s", capabilities_.device_name, status.message());
    ForgetDevice();
    ScheduleReset();
  }
  for (const auto& done : waiters) done(status);
}

void Engine::Impl::Reopen() {
  LogInfo("device '%s' is back", capabilities_.device_name);
  failover_timer_ns_ = INT64_MAX;
  SetState(DeviceState::kReady);
  FeedWatchdog();
  dirty_ = true;
  if (refuge_ != nullptr) refuge_->OnRecovered(engine_);
}

void Engine::Impl::ScheduleReset() {
  if (state_.load() == DeviceState::kFenced) {
    reset_delay_ns_ = options_.fence_ns;
    if (reset_delay_ns_ == 0) return;
  } else {
    reset_delay_ns_ = std::clamp(2 * reset_delay_ns_, kFirstResetDelayNs, kLongestResetDelayNs);
  }
  reset_timer_ns_ = now_ns_ + reset_delay_ns_;
}

absl::Status Engine::Impl::ReloadAdapters() {
  std::map<uint64_t, Adapter> adapters;
  {
    MutexLock lock(mutex_);
    adapters = adapters_;
  }
  for (const auto& [id, adapter] : adapters) {
    const absl::Status status = device_->LoadAdapter(id, adapter.path, adapter.scale);
    if (!status.ok() && !absl::IsAlreadyExists(status)) return status;
  }
  return absl::OkStatus();
}

void Engine::Impl::ForgetDevice() {
  if (BlockPool* const pool = memory_.pool()) pool->ForgetAll();
  const std::vector<Sequence*> running = running_;
  for (Sequence* sequence : running) {
    sequence->on_device = false;
    if (sequence->state == Sequence::State::kFinished) {
      LeaveRunning(sequence);
      Remove(sequence);
    } else {
      Requeue(sequence);
    }
  }
  AwaitDevice();
}

void Engine::Impl::AwaitDevice() {
  const bool waits = std::any_of(sequences_.begin(), sequences_.end(), [](const auto& entry) {
    return entry.second->state != Sequence::State::kFinished;
  });
  if (waits && failover_timer_ns_ == INT64_MAX) {
    failover_timer_ns_ = now_ns_ + options_.failover_ns;
  }
}

void Engine::Impl::Rehouse() {
  if (refuge_ == nullptr) return;
  std::vector<std::shared_ptr<Group>> groups;
  const auto add = [&groups](const Sequence* sequence) {
    if (sequence->state == Sequence::State::kFinished) return;
    if (std::find(groups.begin(), groups.end(), sequence->group) == groups.end()) {
      groups.push_back(sequence->group);
    }
  };
  for (const Sequence* sequence : running_) add(sequence);
  for (const Sequence* sequence : waiting_.All()) add(sequence);
  uint32_t moved = 0;
  for (const std::shared_ptr<Group>& group : groups) {
    const auto alive =
        group->choices.size() - std::count(group->choices.begin(), group->choices.end(), nullptr);
    if (RehouseGroup(*group)) moved += static_cast<uint32_t>(alive);
  }
  if (moved == 0) return;
  LogInfo("%d sequences of device '%s' go on elsewhere", moved, capabilities_.device_name);
  probe_.OnFailover(moved);
}

bool Engine::Impl::RehouseGroup(Group& group) {
  std::vector<Sequence*> leaving;
  Displaced displaced;
  for (Sequence* sequence : group.choices) {
    if (sequence == nullptr) continue;
    if (sequence->touched) {
      Settle(sequence);
      std::erase(touched_, sequence);
    }
    leaving.push_back(sequence);
    displaced.choices.push_back(std::move(static_cast<SequenceProgress&>(*sequence)));
  }
  displaced.request = group.request;
  if (!refuge_->Take(engine_, displaced)) {
    for (size_t i = 0; i < leaving.size(); ++i) {
      static_cast<SequenceProgress&>(*leaving[i]) = std::move(displaced.choices[i]);
    }
    return false;
  }
  for (Sequence* sequence : leaving) {
    group.choices[sequence->choice] = nullptr;
    const int64_t deadline_ns = group.request.deadline_ns;
    if (deadline_ns != 0) deadlines_.erase({deadline_ns, sequence->id.value()});
    if (sequence->state == Sequence::State::kWaiting) {
      LeaveWaiting(sequence);
      Remove(sequence);
    }
    sequence->state = Sequence::State::kFinished;
  }
  return true;
}

absl::Status Engine::Impl::Adopt(Displaced& displaced) {
  RETURN_IF_ERROR(Validate(displaced.request));
  const uint32_t count = static_cast<uint32_t>(displaced.choices.size());
  {
    MutexLock lock(mutex_);
    if (lost()) {
      return UnavailableError("device '%s' is %s", capabilities_.device_name,
                              DeviceStateName(state_.load()));
    }
    for (const SequenceProgress& progress : displaced.choices) {
      displaced.request.outputs[progress.choice]->MoveTo(signal_);
    }
    CountWaiting(displaced.request, static_cast<int32_t>(count));
    alive_.fetch_add(count, std::memory_order_relaxed);
    adopted_.push_back(std::move(displaced));
  }
  signal_->Notify(EngineSignal::kSubmitted);
  return absl::OkStatus();
}

void Engine::Impl::AddDisplaced(Displaced displaced) {
  const std::shared_ptr<Group> group = NewGroup(std::move(displaced.request));
  std::vector<uint32_t> choices;
  for (SequenceProgress& progress : displaced.choices) {
    choices.push_back(progress.choice);
    AddSequence(group, std::move(progress));
  }
  // As in AddSequences: a cancellation of just before has told the old engine.
  for (const uint32_t choice : choices) {
    Sequence* const sequence = group->choices[choice];
    if (sequence->stream().cancelled()) Finish(sequence, FinishReason::kCancelled, {});
  }
}

}  // namespace reticle::scheduler
