// How many cards of a profile keep the bounds under given traffic, and how sure that is.
//
// Every number of cards is judged by several independent runs (other seeds, the same for each
// number of cards) or, for a trace with its own times, by the consecutive tenths of one run. A
// figure is their mean (a percentile that of all requests together); its interval is Student's at
// 95 %. A bound is kept when the whole interval keeps it, missed when the whole interval misses it,
// and undecided between: then further runs are made, up to a limit. The answer is the least number
// of cards found by bisection that keeps all bounds; where none decides, the least that may keep
// them, and its verdict says so.
#ifndef RETICLE_SERVER_CLI_PLAN_SEARCH_H_
#define RETICLE_SERVER_CLI_PLAN_SEARCH_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "loadtest/slo.h"
#include "server/cli/plan_simulation.h"
#include "server/cli/plan_statistics.h"
#include "server/cli/plan_traffic.h"

namespace reticle::server::cli {

struct PlanOptions {
  FleetOptions fleet;  // `cards` is the number to judge; 0: search
  loadtest::SloSet slos;
  uint64_t seed = 1;
  uint32_t requests = 2000;  // measured in a run; more where they stay long
  uint32_t runs = 5;         // to begin with, at least 2
  uint32_t max_runs = 20;    // while a bound is undecided
  uint32_t max_cards = 1024;
  uint32_t threads = 0;  // that simulate; 0: as the machine has cores
};

struct PlanAnswer {
  // The number of cards that keep the bounds (or may: see its verdict), or that was asked for.
  std::optional<PlanEvaluation> plan;
  // One card fewer, when there is one: why it does not do.
  std::optional<PlanEvaluation> fewer;
  PlanEvaluation alone;  // one request at a time: what no number of cards can better
  uint32_t context_limit = 0;
  uint32_t requests_per_run = 0;
  // Without a plan: which limit prevents it. A sentence.
  std::string impossible;
};

// Errors: what the driver says, or a trace that is too short.
absl::StatusOr<PlanAnswer> MakePlan(const PlanOptions& options, const PlanTraffic& traffic);

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_PLAN_SEARCH_H_
