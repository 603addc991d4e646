// `reticle plan`: how many cards given traffic needs, what its users see, watts and dollars.
#ifndef RETICLE_SERVER_CLI_PLAN_H_
#define RETICLE_SERVER_CLI_PLAN_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "loadtest/slo.h"

namespace reticle::server::cli {

// Bounds as reticle load takes them, several separated by commas, with "=" for the way that a bound
// of its kind usually points: "ttft=200ms,tpot=1ms", "ttft.p99<=50ms,goodput=99.9%".
// INVALID_ARGUMENT: no such bound, or a time without its unit.
absl::StatusOr<loadtest::SloSet> ParsePlanSlos(const std::vector<std::string>& texts);

// Returns the exit status: 0 a plan for every profile, 1 an error, or none for some profile, 2
// wrong usage.
int RunPlan(const std::vector<std::string>& arguments);

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_PLAN_H_
