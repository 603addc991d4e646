#include "server/metrics/device_metrics.h"

#include <algorithm>
#include <cmath>

#include "server/metrics/family_writer.h"

namespace reticle::server {
namespace {

constexpr int64_t kRateNs = 1'000'000'000;

double OrZero(double value) { return std::isfinite(value) ? value : 0.0; }

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

void DeviceMetrics::Collect(const prometheus::ClientMetric::Label& model, const std::string& device,
                            const std::string& card, const DeviceSnapshot& snapshot,
                            uint32_t running, int64_t now_ns,
                            std::vector<prometheus::MetricFamily>& families) {
  FamilyWriter out(families, {{"device", device}, {"card", card}, model});
  for (const auto state : {scheduler::DeviceState::kReady, scheduler::DeviceState::kLost,
                           scheduler::DeviceState::kFenced}) {
    out.Gauge("reticle_device_state", "1 for the state that the device is in.",
              snapshot.state == state ? 1 : 0, {{"state", scheduler::DeviceStateName(state)}});
  }
  out.Gauge("reticle_device_healthy", "1: ready, 0.5: degraded, 0: failed, as it says itself.",
            snapshot.health == RETICLE_HEALTH_READY      ? 1
            : snapshot.health == RETICLE_HEALTH_DEGRADED ? 0.5
                                                         : 0);
  out.Gauge("reticle_device_occupancy",
            "Sequences on the device per sequence that it serves at full speed.",
            snapshot.full_speed == 0 ? 0.0 : static_cast<double>(running) / snapshot.full_speed);
  const char* const losses = "reticle_device_losses_total";
  const char* const losses_help = "How often the device was lost: it failed, or the watchdog bit.";
  out.Count(losses, losses_help, crashes_.value(), {{"kind", "failed"}});
  out.Count(losses, losses_help, hangs_.value(), {{"kind", "hung"}});
  const char* const resets = "reticle_device_resets_total";
  const char* const resets_help = "Resets after a loss.";
  out.Count(resets, resets_help, resets_.value(), {{"result", "ok"}});
  out.Count(resets, resets_help, failed_resets_.value(), {{"result", "failed"}});
  out.Count("reticle_device_failovers_total",
            "Sequences that left the device because it was lost, and went on at another.",
            failovers_.value());
  if (!snapshot.stats.has_value()) return;
  const reticle_stats& stats = *snapshot.stats;
  if (now_ns - rated_ns_ >= kRateNs) {
    const uint64_t tokens = stats.decode_tokens - std::min(rated_tokens_, stats.decode_tokens);
    const double seconds = static_cast<double>(now_ns - rated_ns_) * 1e-9;
    tokens_per_second_ = rated_ns_ == 0 ? 0 : static_cast<double>(tokens) / seconds;
    rated_ns_ = now_ns;
    rated_tokens_ = stats.decode_tokens;
  }
  out.Gauge("reticle_device_tokens_per_second",
            "Tokens generated a second since the last look that is at least a second old.",
            tokens_per_second_);
  const char* const tokens = "reticle_device_tokens_total";
  const char* const tokens_help = "Tokens fed and generated, as the device counts them.";
  out.Count(tokens, tokens_help, static_cast<double>(stats.prefill_tokens), {{"kind", "prefill"}});
  out.Count(tokens, tokens_help, static_cast<double>(stats.decode_tokens), {{"kind", "decode"}});
  out.Count("reticle_device_time_seconds_total", "The device's own clock.",
            static_cast<double>(stats.device_time_ns) * 1e-9);
  out.Count("reticle_device_work_seconds_total", "Device time at work.",
            static_cast<double>(stats.busy_ns) * 1e-9);
  out.Gauge("reticle_device_utilization", "Share of the last second or so at work, 0 to 1.",
            OrZero(stats.utilization));
  out.Gauge("reticle_device_power_watts", "Power now; 0 when not measured.",
            OrZero(stats.power_watts));
  out.Count("reticle_device_energy_joules_total", "Energy used; 0 when not measured.",
            static_cast<double>(stats.energy_uj) * 1e-6);
  out.Gauge("reticle_device_temperature_celsius", "Temperature; 0 when not measured.",
            OrZero(stats.temperature_celsius));
  const char* const errors = "reticle_device_errors_total";
  const char* const errors_help = "Errors that the device counted.";
  out.Count(errors, errors_help, static_cast<double>(stats.corrected_errors),
            {{"kind", "memory_corrected"}});
  out.Count(errors, errors_help, static_cast<double>(stats.uncorrected_errors),
            {{"kind", "memory_uncorrected"}});
  out.Count(errors, errors_help, static_cast<double>(stats.link_errors), {{"kind", "link"}});
  out.Count("reticle_device_adapter_swaps_total", "Changes of the current adapter.",
            static_cast<double>(stats.adapter_swaps));
  out.Gauge("reticle_emulation_slowdown_ratio",
            "Host time per device time of an emulated device, at least 1; 1 for others.",
            OrZero(stats.slowdown_ratio));
}

}  // namespace reticle::server
