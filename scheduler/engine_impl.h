// The inside of Engine, shared by its source files: engine.cc (the front and the step),
// engine_plan.cc (snapshot, plan, work out), engine_completions.cc (completions in, device loss)
// and engine_sequences.cc (the life of sequences). Not for others.
#ifndef RETICLE_SCHEDULER_ENGINE_IMPL_H_
#define RETICLE_SCHEDULER_ENGINE_IMPL_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "base/mutex.h"
#include "scheduler/engine.h"
#include "scheduler/engine_signal.h"
#include "scheduler/fairness.h"
#include "scheduler/kv_memory.h"
#include "scheduler/policy.h"
#include "scheduler/sequence.h"

namespace reticle::scheduler {

struct Engine::Impl {
  Impl(std::unique_ptr<backends::Device> device, const EngineOptions& options, Clock& clock,
       EngineProbe* probe);
  ~Impl();

  // ---- engine.cc
  absl::Status Validate(const Request& request) const;
  absl::Status Submit(Request request);
  absl::Status Enqueue(Request request);
  void Post(std::function<void()> control);
  bool Step();
  bool TakeSignals();
  void TakeSubmissions(std::vector<Request> requests);
  bool RunTimers();
  // The device has shown life, or was given work when it had none.
  void FeedWatchdog();
  void CheckWatchdog();
  void EndStep();
  bool PrepareSleep();
  int64_t NextTimer() const;
  void CheckInvariants() const;

  // ---- engine_plan.cc
  bool PlanAndSubmit();
  void TakeSnapshot();
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
  void OnDeviceLost(const absl::Status& status);
  void GiveUpDevice(const absl::Status& status);
  void TryResetAgain();

  // ---- engine_sequences.cc
  void AddSequences(Request request);
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

  // ---- any thread
  std::atomic<bool> draining_{false};
  std::atomic<bool> lost_{false};
  std::atomic<uint32_t> alive_{0};  // sequences submitted and not gone
  std::atomic<uint32_t> waiting_count_{0};
  std::atomic<uint32_t> shed_first_count_{0};      // of these, of shed_priority or worse
  std::atomic<int64_t> admission_interval_ns_{0};  // on average; 0: nothing was admitted yet
  std::atomic<uint32_t> gauge_running_{0};
  std::atomic<uint32_t> gauge_used_{0};
  mutable Mutex mutex_;
  std::vector<Request> submitted_ RETICLE_GUARDED_BY(mutex_);
  std::vector<absl::Status> rejections_ RETICLE_GUARDED_BY(mutex_);
  std::vector<std::function<void()>> controls_ RETICLE_GUARDED_BY(mutex_);
  absl::flat_hash_set<uint64_t> adapters_ RETICLE_GUARDED_BY(mutex_);

  // ---- engine thread
  KvMemory memory_;
  int64_t now_ns_ = 0;
  bool owed_ = false;  // the device owed completions before the last plan
  int64_t last_admission_ns_ = 0;
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
  int64_t reset_timer_ns_ = INT64_MAX;
  int64_t reset_delay_ns_ = 0;
  uint32_t losses_in_a_row_ = 0;
  absl::Status loss_;

  // ---- of the current step; kept to keep their memory
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
