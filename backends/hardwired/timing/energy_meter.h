// Power, energy, utilisation and temperature of a device, integrated over device time.
//
// Power lies between idle and active with the share of the device that is busy
// (TimingModel::Activity). While streams are at work, they share the energy evenly; what an idle
// device takes is nobody's. Temperatures are the emulator's own: no profile gives any.
#ifndef RETICLE_BACKENDS_HARDWIRED_TIMING_ENERGY_METER_H_
#define RETICLE_BACKENDS_HARDWIRED_TIMING_ENERGY_METER_H_

#include <cstdint>

#include "backends/hardwired/profiles/profile.h"
#include "backends/hardwired/timing/device_time.h"
#include "backends/hardwired/timing/timing_model.h"

namespace reticle::backends::hardwired {

// Not thread-safe. Times never go back. `timing` must outlive it.
class EnergyMeter {
 public:
  EnergyMeter(const Profile& profile, const TimingModel& timing);

  // Counting begins at `now`: what was before is nobody's.
  void Start(DeviceTime now) { now_ = now; }
  // Counts the time up to `now`, at which `streams` are at work from here on.
  void SetStreams(DeviceTime now, uint32_t streams);
  void Advance(DeviceTime now);
  // While hot, the temperature heads for its limit.
  void set_hot(bool hot) { hot_ = hot; }

  // Energy of one stream that was at work all the time since the start, nJ: take differences.
  double per_stream_nj() const { return per_stream_nj_; }
  double total_nj() const { return total_nj_; }
  // Time with at least one stream at work.
  int64_t busy_ns() const { return busy_.nanos(); }
  double watts() const { return watts_; }
  double utilization() const { return utilization_; }  // 0..1, over the last second or so
  double celsius() const { return celsius_; }

 private:
  const TimingModel& timing_;
  double idle_watts_;
  double active_watts_;
  uint32_t streams_ = 0;
  double activity_ = 0;  // with so many streams
  double watts_;
  DeviceTime now_;
  DeviceTime busy_;
  double total_nj_ = 0;
  double per_stream_nj_ = 0;
  // Utilisation and temperature follow in strides, since they cost an exponential each.
  double stride_ns_ = 0;
  double stride_activity_ns_ = 0;
  double utilization_ = 0;
  double celsius_;
  bool hot_ = false;
};

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_TIMING_ENERGY_METER_H_
