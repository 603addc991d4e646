// When the conversations of an open-loop run begin.
#ifndef RETICLE_LOADTEST_ARRIVALS_H_
#define RETICLE_LOADTEST_ARRIVALS_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "loadtest/distribution.h"
#include "loadtest/scenario.h"
#include "loadtest/trace.h"

namespace reticle::loadtest {

// A sequence of times in ns since the start of the run, never falling. The same scenario gives the
// same sequence, so that every client thread can walk the whole of it and take its share. Not
// thread-safe.
//   poisson   exponential gaps of mean 1/rate
//   gamma     gaps of mean 1/rate and coefficient of variation cv
//   constant  one every 1/rate, the first at 0
//   ramp      poisson, its rate growing linearly from rate to rate_end over the run's duration
//   trace     the trace's own times
class Arrivals {
 public:
  // `scenario.mode` must be an open one. `trace` is needed for kTrace alone and must outlive this.
  Arrivals(const Scenario& scenario, const Trace* trace);

  // The next time; nothing behind the end of the run's duration or of the trace.
  std::optional<int64_t> Next();

 private:
  const ArrivalMode mode_;
  const double rate_;
  const double rate_end_;
  const double shape_;
  const double duration_s_;
  const double speed_;
  const Trace* const trace_;
  Random random_;
  double at_s_ = 0;      // constant: unused
  double expected_ = 0;  // ramp: arrivals to be expected up to now, plus noise
  uint64_t count_ = 0;
};

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_ARRIVALS_H_
