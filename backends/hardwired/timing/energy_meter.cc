#include "backends/hardwired/timing/energy_meter.h"

#include <cmath>

namespace reticle::backends::hardwired {
namespace {

constexpr double kAmbientCelsius = 35;
constexpr double kWorkingCelsius = 70;
constexpr double kLimitCelsius = 95;
constexpr double kThermalNs = 20e9;
constexpr double kUtilizationNs = 1e9;
constexpr double kStrideNs = 1e6;

}  // namespace

EnergyMeter::EnergyMeter(const Profile& profile, const TimingModel& timing)
    : timing_(timing),
      idle_watts_(profile[Key::kIdlePower].simulated_or(0)),
      active_watts_(profile[Key::kActivePower].simulated_or(idle_watts_)),
      watts_(idle_watts_),
      celsius_(kAmbientCelsius) {}

void EnergyMeter::SetStreams(DeviceTime now, uint32_t streams) {
  Advance(now);
  streams_ = streams;
  activity_ = timing_.Activity(streams);
  watts_ = idle_watts_ + (active_watts_ - idle_watts_) * activity_;
}

void EnergyMeter::Advance(DeviceTime now) {
  if (now <= now_) return;
  const DeviceTime passed = now - now_;
  now_ = now;
  const double passed_ns = passed.nanos_as_double();
  const double energy_nj = watts_ * passed_ns;
  total_nj_ += energy_nj;
  if (streams_ > 0) {
    per_stream_nj_ += energy_nj / streams_;
    busy_ += passed;
  }
  stride_ns_ += passed_ns;
  stride_activity_ns_ += activity_ * passed_ns;
  if (stride_ns_ < kStrideNs) return;
  const double activity = stride_activity_ns_ / stride_ns_;
  utilization_ += (activity - utilization_) * -std::expm1(-stride_ns_ / kUtilizationNs);
  const double heads_for =
      hot_ ? kLimitCelsius : kAmbientCelsius + (kWorkingCelsius - kAmbientCelsius) * activity;
  celsius_ += (heads_for - celsius_) * -std::expm1(-stride_ns_ / kThermalNs);
  stride_ns_ = 0;
  stride_activity_ns_ = 0;
}

}  // namespace reticle::backends::hardwired
