// The continuous-batching engine of one device: admission, batch policy, KV blocks, submission and
// completions. A plain object that some thread steps (scheduler/engine_thread.h), so that a device
// that is cheap to poll can be driven by an I/O thread and a test can step it by hand.
#ifndef RETICLE_SCHEDULER_ENGINE_H_
#define RETICLE_SCHEDULER_ENGINE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backends/abi/device.h"
#include "base/clock.h"
#include "scheduler/engine_probe.h"
#include "scheduler/refuge.h"
#include "scheduler/request.h"

namespace reticle::scheduler {

struct EngineOptions {
  // Tokens fed in one step, over all sequences; 0: the device's max_step_tokens. Running sequences
  // come first, prompts share the rest in chunks.
  uint32_t step_token_budget = 0;
  // Sequences that run at once; 0: the device's max_sequences.
  uint32_t max_running = 0;
  // Sequences that may wait for admission before Submit refuses with RESOURCE_EXHAUSTED, which
  // tells a time to come back. Who comes back then is taken (appointments.h), although the queue
  // may be full.
  uint32_t max_waiting = 1024;
  // Sequences of this priority or worse are refused when half of max_waiting wait, and leave the
  // whole of it to better ones: overload sheds them first. They also leave a sixteenth of the
  // places that run to better ones.
  int32_t shed_priority = INT32_MAX;
  bool prefix_cache = true;
  // Decode credits granted ahead to a device that can run ahead; 0: as the device allows, at
  // most 64.
  uint32_t run_ahead = 0;
  // A sequence whose reader has made no room for this long yields its memory and its slot to others
  // when they are short, and is recomputed once there is room.
  int64_t stall_ns = 100'000'000;
  // How often in a row, without a token of its own between, a sequence is recomputed after a loss
  // of its device before it ends with kError: what kills every device that takes it must end.
  uint32_t max_recoveries = 3;
  // A device that has work and gives no completion for this long counts as lost; 0: waits for ever.
  // A CPU may well take tens of seconds for one chunk of a large model's prompt.
  int64_t watchdog_ns = 300'000'000'000;
  // How long sequences that no other engine takes wait for their lost device to come back.
  int64_t failover_ns = 30'000'000'000;
  // So many losses within the window fence the device: it is left alone for fence_ns (0: until
  // Unfence) before a reset is tried again. fence_after 0: never fenced.
  uint32_t fence_after = 8;
  int64_t fence_window_ns = 60'000'000'000;
  int64_t fence_ns = 300'000'000'000;
  // Resets the device from a thread of its own, so that a step never waits for it.
  bool reset_in_background = false;
  // On a device that swaps adapters at a cost: how long one is served while others wait; 0: twenty
  // times the cost, at least 20 ms.
  int64_t adapter_turn_ns = 0;
  // How often to ask for the device's health, beside the completions that it gives: while it has
  // work, and while it has none. 0: never.
  int64_t health_ns = 0;
  int64_t idle_health_ns = 0;
};

// Where a device stands; told by Engine::device_state.
enum class DeviceState : uint8_t {
  kReady,
  kLost,    // to be reset soon
  kFenced,  // lost too often, or by order: takes no work
};
// "ready", "lost", "fenced".
const char* DeviceStateName(DeviceState state);

class Engine {
 public:
  // `device` is the engine's own from now on; `clock` and `probe` (may be null) must outlive it.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(std::unique_ptr<backends::Device> device,
                                                        const EngineOptions& options, Clock& clock,
                                                        EngineProbe* probe);
  ~Engine();

  // ---- any thread
  // Queues a request. INVALID_ARGUMENT (prompt empty or not below the context limit, token out of
  // the vocabulary, a parameter that the device does not offer: both numbers are named),
  // NOT_FOUND (adapter not loaded), RESOURCE_EXHAUSTED (queue full), UNAVAILABLE (draining or
  // device lost). On an error no stream is touched. A stream serves one sequence in its life.
  absl::Status Submit(Request request);
  // As Submit would, without queueing and without a look at the streams; lets a front end refuse
  // before it has built them.
  absl::Status Validate(const Request& request) const;
  // From now on Submit refuses with UNAVAILABLE; what is queued or running goes on.
  void BeginDrain();
  // No sequence is queued or running.
  bool Idle() const;
  // Ends everything that is queued or running with kError and this status, within one step.
  void AbortAll(absl::Status status);
  EngineGauges Gauges() const;
  // Those of the device, but for context_limit, which is never longer than the whole KV memory.
  const reticle_capabilities& capabilities() const;
  // The device takes no work: lost and not brought back (yet), or fenced.
  bool Lost() const { return device_state() != DeviceState::kReady; }
  DeviceState device_state() const;
  absl::StatusOr<reticle_health> Health() const;
  absl::StatusOr<reticle_stats> DeviceStats() const;
  // Tokens of `prompt` whose KV blocks are cached now (a hint for the dispatcher).
  uint32_t CachedPrefixTokens(std::span<const TokenId> prompt, uint64_t adapter = 0) const;
  // Loads or unloads an adapter on the device, on the engine thread; `done` is called there with
  // the result. It must be quick and must not call into the engine.
  void LoadAdapter(uint64_t adapter, std::string path, float scale,
                   std::function<void(absl::Status)> done);
  void UnloadAdapter(uint64_t adapter, std::function<void(absl::Status)> done);
  bool AdapterLoaded(uint64_t adapter) const;
  // Whether the device applies one adapter at a time, and which one it is (0: none).
  bool SwapsAdapters() const;
  uint64_t current_adapter() const;
  // Takes over sequences of another engine, ahead of the queue's limit and although it drains. On
  // an error (the device is lost, or cannot serve the request) `displaced` is as it was. Called on
  // the thread that owned them until then.
  absl::Status Adopt(Displaced& displaced);
  // Another engine works again: a lost one offers what it holds once more.
  void SeekRefuge();
  // Takes the device out of service: what it holds goes elsewhere or waits for Unfence.
  void Fence(std::string reason);
  // Resets a lost or fenced device, and takes work again if that helps; `done` as for LoadAdapter.
  void Unfence(std::function<void(absl::Status)> done);
  // As if the device had been lost just now: sequences leave, the device is reset.
  void ResetDevice();
  // `wake` is called, from any thread, when Step has new work after PrepareSleep returned true
  // (submit, cancel, room in a stream), at most once for each such return. It must not call into
  // the engine.
  void SetWake(std::function<void()> wake);
  // Where sequences go when the device is lost; null: they wait for it. Before the first Step, and
  // again with null when nothing steps the engine any more. It must outlive what is between.
  void SetRefuge(Refuge* refuge);

  // ---- the engine thread
  // One iteration: completions in, plan, work out. Returns whether anything happened, so that a
  // driver loop knows when it may sleep.
  bool Step();
  // Before sleeping: asks the device for an event. False when there is something to do already.
  bool PrepareSleep();
  // The device's event descriptor, or -1. Whoever slept on it reads it to clear it.
  int event_fd() const;
  // The earliest time at which Step has something to do by itself (a deadline; a look at a device
  // without an event descriptor), on the clock; INT64_MAX: none.
  int64_t next_timer_ns() const;
  // Aborts if an invariant of the engine's state does not hold. For tests.
  void CheckInvariants() const;

 private:
  struct Impl;
  Engine(std::unique_ptr<backends::Device> device, const EngineOptions& options, Clock& clock,
         EngineProbe* probe);

  const std::unique_ptr<Impl> impl_;
};

}  // namespace reticle::scheduler

#endif  // RETICLE_SCHEDULER_ENGINE_H_
