// The traffic that a plan is made for: when requests come and how long they are.
#ifndef RETICLE_SERVER_CLI_PLAN_TRAFFIC_H_
#define RETICLE_SERVER_CLI_PLAN_TRAFFIC_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "loadtest/arrivals.h"
#include "loadtest/distribution.h"
#include "loadtest/scenario.h"
#include "loadtest/trace.h"

namespace reticle::server::cli {

struct PlannedRequest {
  int64_t arrival_ns = 0;
  uint32_t prompt_tokens = 0;
  uint32_t output_tokens = 0;
};

// Constant while sources of it are used.
struct PlanTraffic {
  // kPoisson, kGamma, kConstant, or kTrace: the trace's own times.
  loadtest::ArrivalMode mode = loadtest::ArrivalMode::kPoisson;
  double rate = 0;  // requests a second; kTrace: the mean that follows from the trace
  double cv = 1;    // kGamma: coefficient of variation of the times between arrivals
  double trace_speed = 1;
  // Lengths in tokens, at least 1 each; a trace that is not empty stands in their place.
  loadtest::Distribution prompt = loadtest::Distribution::Fixed(1);
  loadtest::Distribution output = loadtest::Distribution::Fixed(1);
  loadtest::Trace trace;

  // "50 requests/s (poisson), prompt 1000 tokens, output lognormal:300:0.8 tokens"
  std::string Describe() const;
};

// "50/s", "3000/min", "100k/h": requests a second. INVALID_ARGUMENT: no number, or no unit.
absl::StatusOr<double> ParseRate(std::string_view text);
// As loadtest::Distribution::Parse, and numbers may end in k (thousand): "1k",
// "lognormal:1k:0.8@16-4k". A fixed length must be a whole number from 1 on.
absl::StatusOr<loadtest::Distribution> ParseLength(std::string_view text);

// The requests of one run, in order of arrival. The same traffic and seed give the same requests;
// the arrivals are those of `reticle load` with that seed. Not thread-safe.
class TrafficSource {
 public:
  // `traffic` must outlive it.
  TrafficSource(const PlanTraffic& traffic, uint64_t seed);
  TrafficSource(const TrafficSource&) = delete;
  TrafficSource& operator=(const TrafficSource&) = delete;

  // Nothing behind the end of a trace that is replayed with its own times.
  std::optional<PlannedRequest> Next();

 private:
  loadtest::Scenario ScenarioOf(uint64_t seed) const;

  const PlanTraffic& traffic_;
  loadtest::Arrivals arrivals_;
  loadtest::Random random_;
  size_t next_entry_ = 0;
};

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_PLAN_TRAFFIC_H_
