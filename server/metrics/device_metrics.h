// The metrics of one device, beside those of the engine that drives it: reticle_device_*.
#ifndef RETICLE_SERVER_METRICS_DEVICE_METRICS_H_
#define RETICLE_SERVER_METRICS_DEVICE_METRICS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "backends/abi/reticle_device.h"
#include "scheduler/engine.h"
#include "scheduler/engine_probe.h"
#include "server/metrics/family_set.h"
#include "server/metrics/histogram.h"

namespace reticle::server {

// What a device says of itself at one moment.
struct DeviceSnapshot {
  scheduler::DeviceState state = scheduler::DeviceState::kReady;
  uint32_t health = RETICLE_HEALTH_READY;
  std::optional<reticle_stats> stats;
  // Sequences that it serves at full speed at once; for the occupancy.
  uint32_t full_speed = 0;
  uint32_t max_adapters = 0;
  // Names of the adapters that it can apply without a swap, with commas between.
  std::string adapters;
};

// The snapshot of an engine's device, but for the adapters' names. Any thread.
DeviceSnapshot SnapshotOf(const scheduler::Engine& engine);

// Counts losses and renders. On* by the engine's thread; Collect by one thread at a time.
class DeviceMetrics {
 public:
  void OnLost(bool hung) { (hung ? hangs_ : crashes_).Add(); }
  void OnReset(bool succeeded) { (succeeded ? resets_ : failed_resets_).Add(); }
  void OnFailover(uint32_t sequences) { failovers_.Add(sequences); }

  // Adds the series. `labels`: device, card and model_name. The engine that drives it says
  // `gauges`.
  void Collect(const Labels& labels, const DeviceSnapshot& snapshot,
               const scheduler::EngineGauges& gauges, int64_t now_ns, FamilySet& families);

 private:
  double TokensPerSecond(uint64_t tokens, int64_t now_ns);

  Counter crashes_;
  Counter hangs_;
  Counter resets_;
  Counter failed_resets_;
  Counter failovers_;
  // For the rate: the counts of at least a second ago.
  int64_t rated_ns_ = 0;
  uint64_t rated_tokens_ = 0;
  double tokens_per_second_ = 0;
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_METRICS_DEVICE_METRICS_H_
