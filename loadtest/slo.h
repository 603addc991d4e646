// Service-level objectives: bounds on each request, which make goodput, and bounds on the run.
#ifndef RETICLE_LOADTEST_SLO_H_
#define RETICLE_LOADTEST_SLO_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace reticle::loadtest {

// Bounds that every good request keeps, ns. Not set: any value will do.
struct RequestSlo {
  std::optional<int64_t> ttft_ns;
  std::optional<int64_t> tpot_ns;
  std::optional<int64_t> e2e_ns;
  bool any() const { return ttft_ns || tpot_ns || e2e_ns; }
};

// One bound on a number of the whole run.
struct RunSlo {
  std::string text;    // as it was written
  std::string metric;  // "ttft.p99", "goodput", "output_tokens_per_second", ...
  bool at_most = true;
  double limit = 0;  // ns for times, a share for goodput, errors and rejected, else as written
};

struct SloSet {
  RequestSlo request;
  std::vector<RunSlo> run;
  bool empty() const { return !request.any() && run.empty(); }
};

// Reads bounds such as
//   "ttft<=50ms" "tpot<=100us" "e2e<=2s"      each request; together they make goodput
//   "goodput>=99%"                            share of requests that are good; when no such bound
//   is
//                                             given but there are bounds on requests: 99 %
//   "ttft.p99<=100ms" "itl.p99.9<=1ms" "e2e.mean<=1s"    of ttft, itl, tpot, e2e, conversation
//   "errors<=1%" "rejected<=5%"               share of all requests
//   "requests_per_second>=1000" "output_tokens_per_second>=500000"
//   "fairness<=1.05"                          fastest stream over slowest
// INVALID_ARGUMENT quotes the first one that is none of these.
absl::StatusOr<SloSet> ParseSlos(const std::vector<std::string>& texts);

struct SloVerdict {
  RunSlo slo;
  bool known = false;  // false: the run has no such number
  double value = 0;
  bool met = false;  // false when the value is not known
};

// `value_of` gives the run's number of that name, or nothing.
std::vector<SloVerdict> JudgeSlos(
    const SloSet& slos, const std::function<std::optional<double>(std::string_view)>& value_of);

// A value of a metric for people: a time, a percentage or a number.
std::string FormatMetric(std::string_view metric, double value);

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_SLO_H_
