// Plans for several profiles, side by side: watts and dollars, a table for people, JSON.
#ifndef RETICLE_SERVER_CLI_PLAN_REPORT_H_
#define RETICLE_SERVER_CLI_PLAN_REPORT_H_

#include <optional>
#include <string>
#include <vector>

#include "backends/hardwired/profiles/profile.h"
#include "server/cli/plan_search.h"
#include "server/cli/report_output.h"

namespace reticle::server::cli {

struct PlanCost {
  std::optional<Figure> watts;         // of the cards, on average under this traffic
  std::optional<Figure> watts_in_all;  // with their servers, where known, and the cooling (PUE)
  std::optional<Figure> power_usd;     // an hour
  std::optional<Figure> usd_per_hour;  // everything that backends/hardwired/timing/cost.h counts
  std::optional<Figure> usd_per_mtok;  // of the above by the output tokens of this traffic
  std::optional<Figure> capital_usd;   // cards, hosts and network
  std::optional<Figure> claimed_usd_per_mtok;  // when the price is unknown
};

struct PlannedProfile {
  std::string name;
  std::string title;
  std::string problem;  // why it cannot be simulated; else empty
  PlanAnswer answer;
  char time_letter = 'U';         // of times and rates
  PlanCost cost;                  // of answer.plan
  uint32_t cards_per_server = 0;  // 0: unknown
};

struct PlanReport {
  std::string traffic;
  std::vector<std::string> bounds;
  bool searched = false;  // for the number of cards; else it was given
  std::vector<PlannedProfile> profiles;
};

// Fills `planned`'s letter and cost. `device_usd`: a price instead of the profile's.
void AddCosts(const backends::hardwired::Profile& profile, std::optional<double> device_usd,
              PlannedProfile* planned);

std::string PlanTable(const PlanReport& report);
// Times in ms.
std::string PlanJson(const PlanReport& report);

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_PLAN_REPORT_H_
