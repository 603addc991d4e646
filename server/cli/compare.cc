#include "server/cli/compare.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>

#include "backends/hardwired/profiles/profile.h"
#include "base/status.h"
#include "server/cli/command_line.h"
#include "server/cli/compare_report.h"
#include "server/cli/compare_simulation.h"
#include "server/cli/profile_options.h"
#include "server/cli/report_output.h"

namespace reticle::server::cli {
namespace {

namespace hw = backends::hardwired;

struct CompareOptions {
  std::vector<std::string> profiles;
  std::vector<std::string> scenarios;
  std::vector<std::string> prices;
  std::vector<std::string> settings;
  uint32_t users = 0;
  std::string json;
  std::string svg;
};

absl::StatusOr<ComparedDevice> CompareDevice(const std::string& name, const Scenario& scenario,
                                             uint32_t users, const CompareOptions& options,
                                             const std::map<std::string, double>& prices) {
  ASSIGN_OR_RETURN(hw::Profile profile, hw::LoadProfile(name));
  ASSIGN_OR_RETURN(const Settings settings, ApplySettings(options.settings, &profile));
  ComparedDevice device;
  device.profile = profile.name;
  device.title = profile.title;
  device.users = users;
  const absl::StatusOr<Measured> alone = Simulate(name, settings, scenario, 1);
  const absl::StatusOr<Measured> loaded =
      alone.ok() ? Simulate(name, settings, scenario, users) : alone.status();
  if (!loaded.ok()) {
    device.problem = std::string(loaded.status().message());
    return device;
  }
  device.alone = *alone;
  device.loaded = *loaded;
  const auto price = prices.find(profile.name);
  Evaluate(profile, price == prices.end() ? std::nullopt : std::optional<double>(price->second),
           &device);
  return device;
}

absl::StatusOr<Comparison> RunComparison(const CompareOptions& options) {
  ASSIGN_OR_RETURN(const auto prices, ParsePrices(options.prices));
  std::vector<std::string> profiles = options.profiles;
  if (profiles.empty()) {
    for (const std::string& name : hw::BuiltInProfileNames()) {
      // Variants are for those who ask; without limits there is nothing to compare.
      if (name.starts_with("taalas-hc1-") || name.find('@') != std::string::npos) continue;
      if (name == "unlimited") continue;
      profiles.push_back(name);
    }
  }
  std::vector<const Scenario*> scenarios;
  for (const std::string& name : options.scenarios) {
    scenarios.push_back(FindScenario(name));
    if (scenarios.back() != nullptr) continue;
    return NotFoundError("--scenario is \"%s\"; it must be chat, coding, agent or batch", name);
  }
  if (scenarios.empty()) {
    for (const Scenario& scenario : Scenarios()) scenarios.push_back(&scenario);
  }
  Comparison comparison;
  for (const Scenario* scenario : scenarios) {
    ComparedScenario& compared = comparison.scenarios.emplace_back();
    compared.scenario = scenario;
    const uint32_t users = options.users != 0 ? options.users : scenario->users;
    for (const std::string& name : profiles) {
      ASSIGN_OR_RETURN(ComparedDevice device,
                       CompareDevice(name, *scenario, users, options, prices));
      compared.devices.push_back(std::move(device));
    }
  }
  ASSIGN_OR_RETURN(const hw::Profile any, hw::LoadProfile(profiles.front()));
  comparison.utilisation = hw::CostInputs::For(any).utilisation.simulated_or(1);
  return comparison;
}

}  // namespace

int Compare(const std::vector<std::string>& arguments) {
  CompareOptions options;
  CLI::App app(
      "Runs one workload on several device profiles under a virtual clock and compares speed, "
      "energy and cost",
      "reticle compare");
  app.add_option("profiles", options.profiles,
                 "Profiles, by name or file (reticle devices lists them); default: one of each");
  app.add_option("--scenario", options.scenarios,
                 "chat, coding, agent or batch; repeatable; default: all");
  app.add_option("--users", options.users, "Users at once in the loaded run; 0: the scenario's own")
      ->check(CLI::Range(0, 4096));
  app.add_option("--price", options.prices, "PROFILE=USD: the price of a device; repeatable");
  app.add_option("--set", options.settings,
                 "PROFILE:name=value: another number of a profile, such as "
                 "taalas-hc1:timing.pipeline_depth=32; repeatable");
  app.add_option("--json", options.json, "File for the figures as JSON");
  app.add_option("--svg", options.svg, "File for a chart");
  if (const auto exit = ParseArguments(app, arguments); exit.has_value()) return Finish(*exit);
  absl::StatusOr<Comparison> comparison = RunComparison(options);
  absl::Status status = comparison.status();
  if (status.ok()) {
    std::fputs(ComparisonTable(*comparison).c_str(), stdout);
    if (!options.json.empty()) status = WriteReport(options.json, ComparisonJson(*comparison));
    if (status.ok() && !options.svg.empty()) {
      status = WriteReport(options.svg, ComparisonSvg(*comparison));
    }
  }
  if (status.ok()) return 0;
  std::fprintf(stderr, "reticle compare: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace reticle::server::cli
