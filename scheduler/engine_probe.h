// What the engine tells about itself. The exporter implements it; the engine never sees the metrics
// library.
#ifndef RETICLE_SCHEDULER_ENGINE_PROBE_H_
#define RETICLE_SCHEDULER_ENGINE_PROBE_H_

#include <cstdint>

#include "scheduler/request.h"

namespace reticle::scheduler {

// Gauges at one moment. Token and block counts, not ratios.
struct EngineGauges {
  uint32_t running = 0;
  uint32_t waiting = 0;  // not yet admitted (capacity)
  uint32_t kv_blocks_total = 0;
  uint32_t kv_blocks_used =
      0;  // referenced by live sequences; cached but unreferenced blocks are free
};

// Called by the engine thread only, never per token: at most a few calls a step and one a request.
class EngineProbe {
 public:
  virtual ~EngineProbe() = default;
  // After a step: tokens fed and generated in it, and the gauges.
  virtual void OnStep(uint32_t prefill_tokens, uint32_t decode_tokens, const EngineGauges& gauges) {
  }
  // One call for each choice, at its first admission.
  virtual void OnAdmitted(const Request& request, uint32_t prompt_tokens, uint32_t cached_tokens,
                          int64_t queue_ns) {}
  virtual void OnFirstToken(int64_t since_arrival_ns) {}
  // Inter-token gaps of one sequence since the last call: `count` gaps of together `total_ns`.
  virtual void OnInterTokenGaps(int64_t total_ns, uint32_t count) {}
  virtual void OnPreemption() {}
  virtual void OnFinished(const Request& request, const SequenceEnd& end) {}
  virtual void OnRejected(const absl::Status& status) {}
  // The device was lost. `hung`: the watchdog said so.
  virtual void OnDeviceLost(bool hung) {}
  virtual void OnDeviceReset(bool succeeded) {}
  // Sequences that left for another engine.
  virtual void OnFailover(uint32_t sequences) {}
};

}  // namespace reticle::scheduler

#endif  // RETICLE_SCHEDULER_ENGINE_PROBE_H_
