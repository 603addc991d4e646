#include "server/metrics/device_metrics.h"

#include <algorithm>
#include <cmath>

namespace reticle::server {
namespace {

constexpr int64_t kRateNs = 1'000'000'000;

double OrZero(double value) { return std::isfinite(value) ? value : 0.0; }

double Ratio(uint32_t part, uint32_t whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / whole;
}

}  // namespace

DeviceSnapshot SnapshotOf(const scheduler::Engine& engine) {
  const reticle_capabilities& device = engine.capabilities();
  DeviceSnapshot snapshot;
  snapshot.state = engine.device_state();
  const absl::StatusOr<reticle_health> health = engine.Health();
  snapshot.health = health.ok() ? health->state : uint32_t{RETICLE_HEALTH_FAILED};
  if (const absl::StatusOr<reticle_stats> stats = engine.DeviceStats(); stats.ok()) {
    snapshot.stats = *stats;
  }
  snapshot.full_speed = device.pipeline_depth != 0
                            ? std::min(device.pipeline_depth, device.max_sequences)
                            : device.max_sequences;
  snapshot.max_adapters = device.max_adapters;
  return snapshot;
}

void DeviceMetrics::Collect(const Labels& labels, const DeviceSnapshot& snapshot,
                            const scheduler::EngineGauges& gauges, int64_t now_ns,
                            FamilySet& families) {
  SeriesWriter out(families, labels);
  for (const auto state : {scheduler::DeviceState::kReady, scheduler::DeviceState::kLost,
                           scheduler::DeviceState::kFenced}) {
    out.Gauge(Metric::kDeviceState, snapshot.state == state ? 1 : 0,
              {{"state", scheduler::DeviceStateName(state)}});
  }
  out.Gauge(Metric::kDeviceHealthy, snapshot.health == RETICLE_HEALTH_READY      ? 1
                                    : snapshot.health == RETICLE_HEALTH_DEGRADED ? 0.5
                                                                                 : 0);
  out.Gauge(Metric::kDeviceRunning, gauges.running);
  out.Gauge(Metric::kDeviceWaiting, gauges.waiting);
  out.Gauge(Metric::kDeviceOccupancy, Ratio(gauges.running, snapshot.full_speed));
  out.Gauge(Metric::kDeviceKvUsage, Ratio(gauges.kv_blocks_used, gauges.kv_blocks_total));
  out.Count(Metric::kDeviceLosses, crashes_.value(), {{"kind", "failed"}});
  out.Count(Metric::kDeviceLosses, hangs_.value(), {{"kind", "hung"}});
  out.Count(Metric::kDeviceResets, resets_.value(), {{"result", "ok"}});
  out.Count(Metric::kDeviceResets, failed_resets_.value(), {{"result", "failed"}});
  out.Count(Metric::kDeviceFailovers, failovers_.value());
  if (!snapshot.stats.has_value()) return;
  const reticle_stats& stats = *snapshot.stats;
  out.Gauge(Metric::kDeviceTokensPerSecond, TokensPerSecond(stats.decode_tokens, now_ns));
  out.Count(Metric::kDeviceTokens, stats.prefill_tokens, {{"kind", "prefill"}});
  out.Count(Metric::kDeviceTokens, stats.decode_tokens, {{"kind", "decode"}});
  out.Count(Metric::kDeviceTime, static_cast<double>(stats.device_time_ns) * 1e-9);
  out.Count(Metric::kDeviceWork, static_cast<double>(stats.busy_ns) * 1e-9);
  out.Gauge(Metric::kDeviceUtilization, OrZero(stats.utilization));
  out.Gauge(Metric::kDevicePower, OrZero(stats.power_watts));
  out.Count(Metric::kDeviceEnergy, static_cast<double>(stats.energy_uj) * 1e-6);
  out.Gauge(Metric::kDeviceTemperature, OrZero(stats.temperature_celsius));
  out.Count(Metric::kDeviceErrors, stats.corrected_errors, {{"kind", "memory_corrected"}});
  out.Count(Metric::kDeviceErrors, stats.uncorrected_errors, {{"kind", "memory_uncorrected"}});
  out.Count(Metric::kDeviceErrors, stats.link_errors, {{"kind", "link"}});
  out.Count(Metric::kDeviceAdapterSwaps, stats.adapter_swaps);
  out.Gauge(Metric::kEmulationSlowdown, OrZero(stats.slowdown_ratio));
}

double DeviceMetrics::TokensPerSecond(uint64_t tokens, int64_t now_ns) {
  if (now_ns - rated_ns_ >= kRateNs) {
    const uint64_t more = tokens - std::min(rated_tokens_, tokens);
    const double seconds = static_cast<double>(now_ns - rated_ns_) * 1e-9;
    tokens_per_second_ = rated_ns_ == 0 ? 0 : static_cast<double>(more) / seconds;
    rated_ns_ = now_ns;
    rated_tokens_ = tokens;
  }
  return tokens_per_second_;
}

}  // namespace reticle::server
