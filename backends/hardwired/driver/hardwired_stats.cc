// What the driver of the card tells about it: stats and health, for any thread.
#include <algorithm>
#include <string>

#include "absl/strings/str_format.h"
#include "backends/hardwired/driver/hardwired_core.h"

namespace reticle::backends::hardwired {
namespace {

constexpr uint32_t kFullPace = 1024;
// For how long corrected errors make a device degraded.
constexpr int64_t kErrorMemoryNs = 10'000'000'000;

template <typename T>
T Get(const std::atomic<T>& value) {
  return value.load(std::memory_order_relaxed);
}

}  // namespace

// With what cards before the last reset have counted.
HardwiredDevice::Counters HardwiredDevice::ReadCounters(const CardRegisters& registers) const {
  Counters counters = before_;
  counters.device_time_ns += Get(registers.device_time_ns);
  counters.busy_ns += Get(registers.busy_ns);
  counters.prefill_tokens += Get(registers.prefill_tokens);
  counters.decode_tokens += Get(registers.decode_tokens);
  counters.steps += Get(registers.steps);
  counters.energy_uj += Get(registers.energy_uj);
  counters.stretched_ns += Get(registers.stretched_ns);
  counters.corrected_errors += Get(registers.corrected_errors);
  counters.uncorrected_errors += Get(registers.uncorrected_errors);
  counters.adapter_swaps += Get(registers.adapter_swaps);
  return counters;
}

reticle_stats HardwiredDevice::Stats() const {
  reticle_stats stats{};
  stats.struct_size = sizeof(stats);
  MutexLock lock(mutex_);
  Counters counters = before_;
  if (memory_ != nullptr) {
    const CardRegisters& registers = memory_->registers();
    counters = ReadCounters(registers);
    stats.power_watts = static_cast<double>(Get(registers.power_mw)) / 1e3;
    stats.temperature_celsius = static_cast<double>(Get(registers.temperature_mc)) / 1e3;
    stats.utilization = std::min(1.0, static_cast<double>(Get(registers.utilization_ppm)) / 1e6);
  }
  stats.device_time_ns = counters.device_time_ns;
  stats.busy_ns = counters.busy_ns;
  stats.prefill_tokens = counters.prefill_tokens;
  stats.decode_tokens = counters.decode_tokens;
  stats.steps = counters.steps;
  stats.energy_uj = counters.energy_uj;
  stats.slowdown_ratio = 1;
  if (counters.busy_ns > 0) {
    stats.slowdown_ratio +=
        static_cast<double>(counters.stretched_ns) / static_cast<double>(counters.busy_ns);
  }
  stats.corrected_errors = counters.corrected_errors;
  stats.uncorrected_errors = counters.uncorrected_errors;
  stats.link_errors = Get(link_errors_);
  stats.resets = Get(resets_);
  stats.adapter_swaps = counters.adapter_swaps;
  stats.sequences = Get(alive_);
  return stats;
}

reticle_health HardwiredDevice::Health() const {
  reticle_health health{};
  health.struct_size = sizeof(health);
  const auto tell = [&](uint32_t state, const std::string& reason) {
    health.state = state;
    reason.copy(health.reason, sizeof(health.reason) - 1);
    return health;
  };
  auto lost = static_cast<LossReason>(Get(lost_));
  MutexLock lock(mutex_);
  if (lost == LossReason::kNone && memory_ != nullptr) {
    lost = ReasonOfCard(memory_->registers());
  }
  if (lost != LossReason::kNone) return tell(RETICLE_HEALTH_FAILED, LossText(lost));
  if (memory_ == nullptr) return tell(RETICLE_HEALTH_FAILED, "the card is being started");
  const CardRegisters& registers = memory_->registers();
  const uint32_t pace = Get(registers.throttled);
  if (pace < kFullPace) {
    return tell(RETICLE_HEALTH_DEGRADED,
                absl::StrFormat("throttled to %.0f %% of full speed at %.0f degrees",
                                100.0 * pace / kFullPace,
                                static_cast<double>(Get(registers.temperature_mc)) / 1e3));
  }
  const uint64_t corrected = Get(registers.corrected_errors);
  const uint64_t device_ns = Get(registers.device_time_ns);
  if (corrected > 0 && device_ns < Get(registers.last_corrected_ns) + kErrorMemoryNs) {
    return tell(RETICLE_HEALTH_DEGRADED, absl::StrFormat("%u corrected memory errors", corrected));
  }
  const int64_t link_error_ns = Get(last_link_error_ns_);
  if (link_error_ns != 0 && Now() - link_error_ns < kErrorMemoryNs) {
    return tell(RETICLE_HEALTH_DEGRADED,
                absl::StrFormat("%u completions had to be sent again", Get(link_errors_)));
  }
  return health;
}

}  // namespace reticle::backends::hardwired
