// The figures of simulated runs: percentiles, means with their intervals, and bounds judged by
// them.
#ifndef RETICLE_SERVER_CLI_PLAN_STATISTICS_H_
#define RETICLE_SERVER_CLI_PLAN_STATISTICS_H_

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "loadtest/slo.h"
#include "server/cli/plan_simulation.h"

namespace reticle::server::cli {

// A mean of runs and half of its 95 % interval.
struct Estimate {
  double value = 0;
  double half = 0;
  double low() const { return value - half; }
  double high() const { return value + half; }
};
// Student's interval of the mean; of one value it is infinite.
Estimate EstimateOf(const std::vector<double>& values);

enum class PlanVerdict : uint8_t { kKept, kMissed, kUndecided };
// "kept", "missed", "undecided".
const char* PlanVerdictName(PlanVerdict verdict);

struct JudgedSlo {
  loadtest::RunSlo slo;
  Estimate value;
  PlanVerdict verdict = PlanVerdict::kUndecided;
};

// A number of cards under the traffic.
struct PlanEvaluation {
  uint32_t cards = 0;
  uint32_t runs = 0;
  uint64_t requests = 0;  // measured, of all runs
  double seconds = 0;     // of simulated time that was measured
  std::vector<JudgedSlo> slos;
  PlanVerdict verdict = PlanVerdict::kKept;                           // of all bounds
  Estimate ttft_p50, ttft_p99, tpot_p50, tpot_p99, e2e_p50, e2e_p99;  // ns
  Estimate good_share, refused_share, too_long_share;
  Estimate requests_per_second, tokens_per_second, busy_share, watts, kv_share, waiting;
  // It cannot keep up: requests pile up for as long as they come.
  bool overloaded = false;
};

// The requests of a run, by each of their times, ascending.
struct RunFigures {
  std::vector<double> ttft, tpot, e2e;  // ns, of the served ones
  double good = 0;                      // shares of all
  double refused = 0;
  double too_long = 0;
  double seconds = 0;
  double requests_per_second = 0;
  double tokens_per_second = 0;

  // A figure by the name that bounds use: ttft, tpot and e2e with .mean, .max, .min or a
  // percentile, goodput, errors, rejected, requests_per_second, output_tokens_per_second; nothing
  // for others. Infinite when nothing was served.
  std::optional<double> Value(std::string_view metric) const;
};
// `slo` says which requests are good.
RunFigures FiguresOf(const FleetRun& run, const loadtest::RequestSlo& slo);

// The smallest value that `percent` of the sorted values do not exceed; 0 of none.
double PercentileOf(const std::vector<double>& sorted, double percent);
// Whether the metric is a share, 0 to 1.
bool IsShareMetric(std::string_view metric);

// The figures of some runs of so many cards, judged.
PlanEvaluation Evaluate(uint32_t cards, const std::vector<FleetRun>& runs,
                        const loadtest::SloSet& slos);

// INVALID_ARGUMENT when a bound is of a figure that a plan does not predict.
absl::Status CheckSlos(const loadtest::SloSet& slos);

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_PLAN_STATISTICS_H_
