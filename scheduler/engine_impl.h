// The inside of Engine, shared by its source files: engine.cc (the front and the step),
// engine_plan.cc (snapshot, plan, work out), engine_completions.cc (completions in),
// engine_sequences.cc (the life of sequences) and engine_losses.cc (lost devices, and where their
// sequences go). Not for others.
#ifndef RETICLE_SCHEDULER_ENGINE_IMPL_H_
#define RETICLE_SCHEDULER_ENGINE_IMPL_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/mutex.h"
#include "scheduler/adapter_policy.h"
#include "scheduler/appointments.h"
#include "scheduler/device_clock.h"
#include "scheduler/engine.h"
#include "scheduler/engine_signal.h"
#include "scheduler/fairness.h"
#include "scheduler/kv_memory.h"
#include "scheduler/policy.h"
#include "scheduler/sequence.h"

namespace reticle::scheduler {

struct Engine::Impl {
  struct Submission {
    Request request;
    uint64_t order = 0;
  };

  Impl(Engine& engine, std::unique_ptr<backends::Device> device, const EngineOptions& options,
       Clock& clock, EngineProbe* probe);
  ~Impl();

  // ---- engine.cc
  absl::Status Validate(const Request& request) const;
  absl::Status Submit(Request request);
  absl::Status Enqueue(Request request);
  absl::Status Adopt(Displaced& displaced);
  void Post(std::function<void()> control);
  bool Step();
  bool TakeSignals();
  bool RunTimers();
  // The device has shown life, or was given work when it had none.
  void FeedWatchdog();
  void CheckWatchdog();
  void EndStep();
  // Flushes what this step has pushed to its stream.
  void Settle(Sequence* sequence);
  bool PrepareSleep();
  int64_t NextTimer() const;
  void CheckInvariants() const;

  // ---- engine_plan.cc
  bool PlanAndSubmit();
  void TakeSnapshot();
  // Whose sequences get work, on a device that swaps adapters.
  void TakeTurn();
  bool HasTurn(const Sequence& sequence) const {
    return !swaps_adapters_ ||
           (!turn_.finishing && sequence.request().adapter == turn_.turn.adapter);
  }
  RunningSnapshot SnapshotRunning(Sequence& sequence);
  WaitingSnapshot SnapshotWaiting(Sequence& sequence);
  // Marks what runs beyond its tenant's share while another waits below its own.
  void MarkShares();
  uint32_t OutputRoom(const Sequence& sequence) const;
  bool HeldBySibling(const Sequence& sequence) const;
  // The longest prefix that may come from the cache, as names.
  std::span<const Hash128> UsableNames(Sequence& sequence);
  void Apply();
  bool Admit(Sequence* sequence, PlannedWork work);
  void AddWork(Sequence* sequence, const PlannedWork& work);
  void FillSampling(const Sequence& sequence, uint32_t history_count, reticle_sampling* sampling);
  void SubmitWork();
  void OnAccepted(size_t index);
  // What a sequence ends with when its device fails it: INTERNAL or DATA_LOSS, whatever `status`
  // says, so that no device's failure reaches a client as its own mistake.
  static absl::Status DeviceFailure(const absl::Status& status);
  // Whether to go on behind the item that was refused.
  bool OnRefused(size_t index, const absl::Status& refusal);

  // ---- engine_completions.cc
  bool PollDevice();
  Sequence* FindOnDevice(const reticle_completion& completion);
  void OnCompletion(const reticle_completion& completion);
  void OnPrefill(Sequence* sequence, const reticle_completion& completion);
  void OnPromptLogprob(Sequence* sequence, const reticle_completion& completion);
  void OnToken(Sequence* sequence, const reticle_completion& completion);
  void OnDeviceEnd(Sequence* sequence, const reticle_completion& completion);
  void PublishBlocks(Sequence* sequence, uint32_t valid_tokens);

  // ---- engine_losses.cc
  void OnDeviceLost(const absl::Status& status, bool hung = false);
  // Looks at the health of a device that may have nothing to say otherwise.
  bool CheckHealth();
  absl::Status DeviceHealth() const;
  bool LostTooOften();
  // Brings the device back, in its own time if it takes long; FinishReset follows.
  void StartReset();
  // Touches nothing of the engine but the device.
  absl::Status ResetDevice();
  void FinishReset(const absl::Status& status);
  void ScheduleReset();
  absl::Status ReloadAdapters();
  // Sequences of a device that will not tell their end.
  void ForgetDevice();
  // Offers what can leave to the refuge. Those that nobody takes stay.
  void Rehouse();
  // Those of `group` that live; they are as before if nobody takes them.
  bool RehouseGroup(Group& group);
  void AddDisplaced(Displaced displaced);
  void SetState(DeviceState state);
  void Fence(const absl::Status& reason);
  void Unfence(std::function<void(absl::Status)> done);
  // The device works: takes work again.
  void Reopen();
  // Starts the time that sequences which nobody takes wait for the device.
  void AwaitDevice();

  // ---- engine_sequences.cc
  void AddSequences(Submission submission);
  std::shared_ptr<Group> NewGroup(Request request);
  void AddSequence(const std::shared_ptr<Group>& group, SequenceProgress progress);
  void EnterWaiting(Sequence* sequence);
  // Moves the counts of the waiting by `change`.
  void CountWaiting(const Request& request, int32_t change);
  void LeaveWaiting(Sequence* sequence);
  void EnterRunning(Sequence* sequence);
  void LeaveRunning(Sequence* sequence);
  // Takes it off the device, to be recomputed later.
  void Preempt(Sequence* sequence);
  // It holds nothing on the device any more: waits again.
  void Requeue(Sequence* sequence);
  // As Requeue, unless it was recovered too often.
  void Recover(Sequence* sequence, const absl::Status& status);
  // Ends its stream; the sequence goes as soon as the device holds nothing of it.
  void Finish(Sequence* sequence, FinishReason reason, absl::Status status);
  void Remove(Sequence* sequence);
  void Touch(Sequence* sequence);
  void FinishCancelled();
  void FinishAll(const absl::Status& status);

  // ---- constant after construction
  const Engine& engine_;
  const EngineOptions options_;
  Clock& clock_;
  EngineProbe& probe_;
  const std::unique_ptr<backends::Device> device_;
  reticle_capabilities capabilities_;
  const std::shared_ptr<EngineSignal> signal_;
  PolicyLimits limits_;
  // The device computes in steps: all work of one is awaited before the next is planned, so that
  // sequences stay in one batch.
  bool lockstep_ = false;
  bool swaps_adapters_ = false;
  int64_t adapter_turn_ns_ = 0;

  // ---- any thread
  std::atomic<bool> draining_{false};
  std::atomic<DeviceState> state_{DeviceState::kReady};
  bool lost() const { return state_.load(std::memory_order_acquire) != DeviceState::kReady; }
  std::atomic<uint64_t> current_adapter_{0};
  std::atomic<uint32_t> alive_{0};  // sequences submitted and not gone
  std::atomic<uint32_t> waiting_count_{0};
  std::atomic<uint32_t> shed_first_count_{0};  // of these, of shed_priority or worse
  std::array<AdmissionPace, 2> paces_;         // of better priorities, and of those
  std::atomic<uint32_t> gauge_running_{0};
  std::atomic<uint32_t> gauge_used_{0};
  mutable Mutex mutex_;
  std::vector<Submission> submitted_ RETICLE_GUARDED_BY(mutex_);
  std::vector<absl::Status> rejections_ RETICLE_GUARDED_BY(mutex_);
  std::vector<std::function<void()>> controls_ RETICLE_GUARDED_BY(mutex_);
  std::vector<Displaced> adopted_ RETICLE_GUARDED_BY(mutex_);
  std::array<AppointmentBook, 2> appointments_ RETICLE_GUARDED_BY(mutex_);  // as paces_
  struct Adapter {
    std::string path;
    float scale = 1;
  };
  std::map<uint64_t, Adapter> adapters_ RETICLE_GUARDED_BY(mutex_);

  // ---- engine thread
  KvMemory memory_;
  int64_t now_ns_ = 0;
  DeviceClock device_clock_;
  bool owed_ = false;  // the device owed completions before the last plan
  bool dirty_ = true;  // a new plan may differ from "nothing"
  uint64_t next_id_ = 1;
  uint64_t next_device_id_ = 1;
  absl::flat_hash_map<uint64_t, std::unique_ptr<Sequence>> sequences_;
  FairQueue waiting_;
  std::vector<Sequence*> running_;  // in order of service; whatever holds memory
  std::vector<Sequence*> slots_;    // by tag
  std::vector<uint32_t> free_slots_;
  std::set<std::pair<int64_t, uint64_t>> deadlines_;
  int64_t stall_timer_ns_ = INT64_MAX;
  int64_t retry_timer_ns_ = INT64_MAX;  // the device refused for now and owes no completion
  int64_t watchdog_timer_ns_ = INT64_MAX;
  int64_t health_timer_ns_ = INT64_MAX;
  bool reachable_ = true;   // the device may be polled: not lost, though it may be fenced
  bool resetting_ = false;  // reset_thread_ has the device; nobody else may call it
  bool fenced_by_order_ = false;
  std::thread reset_thread_;
  std::vector<std::function<void(absl::Status)>> reset_waiters_;
  int64_t reset_timer_ns_ = INT64_MAX;
  int64_t reset_delay_ns_ = 0;
  int64_t failover_timer_ns_ = INT64_MAX;  // of what waits for the lost device
  std::deque<int64_t> losses_ns_;          // within the fence's window
  absl::Status loss_;
  Refuge* refuge_ = nullptr;

  AdapterPlan turn_;

  // ---- of the current step; kept to keep their memory
  std::vector<AdapterDemand> demands_;
  PolicySnapshot snapshot_;
  std::vector<Sequence*> candidates_;  // behind snapshot_.waiting
  Plan plan_;
  std::vector<reticle_work> work_;
  std::vector<Sequence*> work_sequences_;
  std::vector<reticle_sampling> samplings_;
  std::vector<reticle_completion> completions_;
  std::vector<Sequence*> touched_;
  std::vector<std::unique_ptr<Sequence>> gone_;
  uint32_t step_prefill_tokens_ = 0;
  uint32_t step_decode_tokens_ = 0;
};

}  // namespace reticle::scheduler

#endif  // RETICLE_SCHEDULER_ENGINE_IMPL_H_
