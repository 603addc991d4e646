// The comparison of profiles as a table for people, as JSON and as a chart.
#ifndef RETICLE_SERVER_CLI_COMPARE_REPORT_H_
#define RETICLE_SERVER_CLI_COMPARE_REPORT_H_

#include <optional>
#include <string>
#include <vector>

#include "backends/hardwired/profiles/profile.h"
#include "backends/hardwired/timing/cost.h"
#include "server/cli/compare_simulation.h"
#include "server/cli/report_output.h"

namespace reticle::server::cli {

// One profile in one scenario.
struct ComparedDevice {
  std::string profile;
  std::string title;
  std::string problem;  // why it cannot be simulated; else empty
  Measured alone;       // one user
  Measured loaded;      // the scenario's users
  uint32_t users = 0;
  Figure ttft_ms;          // alone
  Figure per_user;         // alone
  Figure session_seconds;  // alone: until the last call is answered
  Figure loaded_per_user;
  Figure aggregate;  // loaded
  Figure joules_per_token;
  // Loaded, at the cost formula's utilisation.
  std::optional<backends::hardwired::Cost> cost;
  std::optional<Figure> usd_per_million;  // of `cost`, or as claimed without shares
  bool usd_is_claim = false;
};

struct ComparedScenario {
  const Scenario* scenario = nullptr;
  std::vector<ComparedDevice> devices;
};

struct Comparison {
  std::vector<ComparedScenario> scenarios;
  double utilisation = 0;  // that the costs assume
};

// Fills the figures from the runs. `device_usd`: a price instead of the profile's.
void Evaluate(const backends::hardwired::Profile& profile, std::optional<double> device_usd,
              ComparedDevice* device);

std::string ComparisonTable(const Comparison& comparison);
std::string ComparisonJson(const Comparison& comparison);
std::string ComparisonSvg(const Comparison& comparison);

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_COMPARE_REPORT_H_
