#include "server/cli/plan.h"

#include <CLI/CLI.hpp>
#include <cstdio>

#include "backends/hardwired/profiles/profile.h"
#include "base/status.h"
#include "loadtest/text.h"
#include "server/cli/command_line.h"
#include "server/cli/plan_report.h"
#include "server/cli/plan_search.h"
#include "server/cli/plan_statistics.h"
#include "server/cli/profile_options.h"

namespace reticle::server::cli {
namespace {

namespace hw = backends::hardwired;
using loadtest::ArrivalMode;

constexpr char kFooter[] =
    "Example\n"
    "  reticle plan --arrival 50/s --prompt 1k --output 300 --slo ttft=200ms,tpot=1ms \\\n"
    "    --profile taalas-hc1 --profile nvidia-h100 --price taalas-hc1=10000\n"
    "Lengths: 300, uniform:10:200, normal:512:128, lognormal:512:0.8, exponential:300, each with "
    "@LOW-HIGH behind it to clamp; k is a thousand.\n"
    "Bounds: ttft, tpot and e2e bound each request, and 99 % must keep them unless goodput=.. says "
    "otherwise; ttft.p50, e2e.p99.9, tpot.mean, rejected, requests_per_second and so on bound the "
    "whole (docs/plan.md).\n"
    "Exit status: 0 a plan for every profile, 1 an error or none for some profile, 2 wrong "
    "usage.\n";

struct PlanArguments {
  std::vector<std::string> profiles = {"taalas-hc1"};
  std::string arrival;
  std::string pattern;
  double cv = 1;
  std::string prompt;
  std::string output;
  std::string trace;
  double trace_speed = 1;
  std::vector<std::string> slos;
  std::vector<std::string> prices;
  std::vector<std::string> settings;
  std::string host_time = "500us";
  std::string json;
  PlanOptions plan;
};

double RateOf(const loadtest::Trace& trace, double speed) {
  const double ms = trace.entries.back().timestamp_ms - trace.entries.front().timestamp_ms;
  return ms > 0 ? static_cast<double>(trace.entries.size() - 1) / ms * 1000 * speed : 0;
}

absl::Status SetPattern(const PlanArguments& arguments, bool cv_given, PlanTraffic* traffic) {
  std::string pattern = arguments.pattern;
  if (pattern.empty()) pattern = cv_given ? "gamma" : "poisson";
  if (cv_given && pattern != "gamma") {
    return InvalidArgumentError("--cv is for --pattern gamma, not for %s", pattern);
  }
  if (!(arguments.cv >= 0.01 && arguments.cv <= 100)) {
    return InvalidArgumentError("--cv is %g; it must be between 0.01 and 100", arguments.cv);
  }
  traffic->cv = arguments.cv;
  traffic->mode = pattern == "gamma"      ? ArrivalMode::kGamma
                  : pattern == "constant" ? ArrivalMode::kConstant
                                          : ArrivalMode::kPoisson;
  return absl::OkStatus();
}

absl::StatusOr<PlanTraffic> TrafficOf(const PlanArguments& arguments, bool cv_given) {
  PlanTraffic traffic;
  if (!(arguments.trace_speed > 0 && arguments.trace_speed <= 1e6)) {
    return InvalidArgumentError("--trace-speed is %g; it must be above 0 and at most 1e6",
                                arguments.trace_speed);
  }
  traffic.trace_speed = arguments.trace_speed;
  if (!arguments.trace.empty()) {
    if (!arguments.prompt.empty() || !arguments.output.empty()) {
      return InvalidArgumentError("--trace has the lengths: --prompt and --output go without it");
    }
    ASSIGN_OR_RETURN(traffic.trace, loadtest::LoadTrace(arguments.trace));
    if (traffic.trace.entries.empty()) {
      return InvalidArgumentError("%s has no requests", arguments.trace);
    }
  } else {
    if (arguments.prompt.empty() || arguments.output.empty()) {
      return InvalidArgumentError(
          "--prompt and --output are needed, in tokens, such as 1k and 300; or --trace FILE");
    }
    const auto length = [](const char* flag, const std::string& text,
                           loadtest::Distribution& out) -> absl::Status {
      const absl::StatusOr<loadtest::Distribution> parsed = ParseLength(text);
      if (!parsed.ok()) return InvalidArgumentError("%s: %s", flag, parsed.status().message());
      out = *parsed;
      return absl::OkStatus();
    };
    RETURN_IF_ERROR(length("--prompt", arguments.prompt, traffic.prompt));
    RETURN_IF_ERROR(length("--output", arguments.output, traffic.output));
  }
  if (arguments.arrival.empty()) {
    if (arguments.trace.empty()) {
      return InvalidArgumentError("--arrival is missing: requests by time, such as 50/s");
    }
    if (cv_given || !arguments.pattern.empty()) {
      return InvalidArgumentError("--pattern and --cv need --arrival; a trace has its own times");
    }
    traffic.mode = ArrivalMode::kTrace;
    traffic.rate = RateOf(traffic.trace, arguments.trace_speed);
    return traffic;
  }
  ASSIGN_OR_RETURN(traffic.rate, ParseRate(arguments.arrival));
  RETURN_IF_ERROR(SetPattern(arguments, cv_given, &traffic));
  return traffic;
}

absl::StatusOr<PlannedProfile> PlanFor(const std::string& name, const PlanArguments& arguments,
                                       const PlanTraffic& traffic,
                                       const std::map<std::string, double>& prices) {
  ASSIGN_OR_RETURN(hw::Profile profile, hw::LoadProfile(name));
  PlanOptions options = arguments.plan;
  options.fleet.profile = name;
  ASSIGN_OR_RETURN(options.fleet.settings, ApplySettings(arguments.settings, &profile));
  PlannedProfile planned;
  planned.name = profile.name;
  planned.title = profile.title;
  absl::StatusOr<PlanAnswer> answer = MakePlan(options, traffic);
  if (absl::IsInvalidArgument(answer.status())) return answer.status();
  if (!answer.ok()) {
    planned.problem = std::string(answer.status().message());
    return planned;
  }
  planned.answer = *std::move(answer);
  const auto price = prices.find(profile.name);
  AddCosts(profile, price == prices.end() ? std::nullopt : std::optional<double>(price->second),
           &planned);
  return planned;
}

absl::StatusOr<PlanReport> MakeReport(PlanArguments arguments, bool cv_given) {
  PlanReport report;
  ASSIGN_OR_RETURN(const PlanTraffic traffic, TrafficOf(arguments, cv_given));
  ASSIGN_OR_RETURN(arguments.plan.slos, ParsePlanSlos(arguments.slos));
  const absl::StatusOr<int64_t> host_ns = loadtest::ParseDurationNs(arguments.host_time);
  if (!host_ns.ok()) return InvalidArgumentError("--host-time: %s", host_ns.status().message());
  arguments.plan.fleet.host_ns = *host_ns;
  ASSIGN_OR_RETURN(const auto prices, ParsePrices(arguments.prices));
  report.traffic = traffic.Describe();
  report.searched = arguments.plan.fleet.cards == 0;
  if (report.searched || !arguments.plan.slos.empty()) {
    RETURN_IF_ERROR(CheckSlos(arguments.plan.slos));
  }
  const loadtest::RequestSlo& request = arguments.plan.slos.request;
  if (request.ttft_ns) report.bounds.push_back("ttft<=" + loadtest::FormatNs(*request.ttft_ns));
  if (request.tpot_ns) report.bounds.push_back("tpot<=" + loadtest::FormatNs(*request.tpot_ns));
  if (request.e2e_ns) report.bounds.push_back("e2e<=" + loadtest::FormatNs(*request.e2e_ns));
  for (const loadtest::RunSlo& slo : arguments.plan.slos.run) report.bounds.push_back(slo.text);
  for (const std::string& name : arguments.profiles) {
    ASSIGN_OR_RETURN(PlannedProfile planned, PlanFor(name, arguments, traffic, prices));
    report.profiles.push_back(std::move(planned));
  }
  return report;
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "reticle plan: %s\n", std::string(status.message()).c_str());
  return absl::IsInvalidArgument(status) || absl::IsNotFound(status) ? 2 : 1;
}

}  // namespace

absl::StatusOr<loadtest::SloSet> ParsePlanSlos(const std::vector<std::string>& texts) {
  std::vector<std::string> bounds;
  for (const std::string& text : texts) {
    for (const std::string_view part : loadtest::Split(text, ',')) {
      std::string bound(loadtest::Trim(part));
      const size_t sign = bound.find('=');
      const std::string metric = bound.substr(0, bound.find_first_of("<>=."));
      const bool is_time = metric == "ttft" || metric == "tpot" || metric == "e2e";
      if (is_time && !bound.empty() && bound.back() >= '0' && bound.back() <= '9') {
        return InvalidArgumentError(
            "the SLO \"%s\" has no unit: write 250us, 200ms or 1.5s behind the =", bound);
      }
      if (sign != std::string::npos && sign > 0 && bound[sign - 1] != '<' &&
          bound[sign - 1] != '>') {
        const bool at_least = metric == "goodput" || metric.ends_with("per_second");
        bound.insert(sign, at_least ? ">" : "<");
      }
      bounds.push_back(std::move(bound));
    }
  }
  return loadtest::ParseSlos(bounds);
}

int RunPlan(const std::vector<std::string>& arguments) {
  PlanArguments options;
  PlanOptions& plan = options.plan;
  plan.fleet.cards = 0;
  CLI::App app(
      "Says how many cards some traffic needs, what its users see, watts and dollars, by "
      "simulation "
      "with the scheduler that serves",
      "reticle plan");
  app.footer(kFooter);
  app.add_option("--profile", options.profiles,
                 "Profile, by name or file (reticle devices lists them); repeatable")
      ->capture_default_str();
  app.add_option("--arrival", options.arrival,
                 "Requests by time: 50/s, 3000/min, 100k/h; without it the times of --trace");
  app.add_option("--pattern", options.pattern, "poisson (default), gamma or constant")
      ->check(CLI::IsMember({"poisson", "gamma", "constant"}));
  CLI::Option* const cv = app.add_option(
      "--cv", options.cv, "Gamma: coefficient of variation of the times between arrivals");
  app.add_option("--prompt", options.prompt, "Tokens of a prompt: a length or a distribution");
  app.add_option("--output", options.output, "Tokens of an answer: likewise");
  app.add_option("--trace", options.trace,
                 "File of {\"timestamp\": ms, \"input_length\", \"output_length\"} lines; with "
                 "--arrival, its lengths alone, drawn at random");
  app.add_option("--trace-speed", options.trace_speed, "2: twice as fast as recorded");
  app.add_option("--slo", options.slos, "Bounds, such as ttft=200ms,tpot=1ms; repeatable");
  app.add_option("--cards", plan.fleet.cards, "Judge this number of cards instead of searching")
      ->check(CLI::Range(1, 1024));
  app.add_option("--max-cards", plan.max_cards, "Search up to so many")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--requests", plan.requests,
                 "Measured in a run, at least; more where requests stay long")
      ->check(CLI::Range(100, 200'000))
      ->capture_default_str();
  app.add_option("--runs", plan.runs, "Independent runs, to begin with")
      ->check(CLI::Range(2, 1000))
      ->capture_default_str();
  app.add_option("--max-runs", plan.max_runs, "Runs at most, while a bound is undecided")
      ->check(CLI::Range(2, 1000))
      ->capture_default_str();
  app.add_option("--seed", plan.seed, "The same seed gives the same plan")->capture_default_str();
  app.add_option("--threads", plan.threads, "That simulate; 0: as the machine has cores")
      ->check(CLI::Range(0, 256))
      ->capture_default_str();
  app.add_option("--kv-bytes-per-token", plan.fleet.kv_bytes_per_token,
                 "KV memory of a token in the model (default: Llama 3.1 8B at 8 bits); 0: no limit")
      ->capture_default_str();
  app.add_option("--max-waiting", plan.fleet.max_waiting, "As serve --max-waiting")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app.add_option("--run-ahead", plan.fleet.run_ahead, "As serve --run-ahead")
      ->capture_default_str();
  app.add_option(
         "--host-time", options.host_time,
         "What HTTP, text and the network add to a request before its first token (docs/plan.md)")
      ->capture_default_str();
  app.add_option("--price", options.prices, "PROFILE=USD: the price of a device; repeatable");
  app.add_option("--set", options.settings,
                 "PROFILE:name=value: another number of a profile, such as "
                 "taalas-hc1:timing.pipeline_depth=32; repeatable");
  app.add_option("--json", options.json, "File for the plan as JSON; -: print it, not the table");
  if (const auto exit = ParseArguments(app, arguments); exit.has_value()) return Finish(*exit);
  const absl::StatusOr<PlanReport> report = MakeReport(options, cv->count() > 0);
  if (!report.ok()) return Fail(report.status());
  if (options.json != "-") std::fputs(PlanTable(*report).c_str(), stdout);
  if (!options.json.empty()) {
    if (const absl::Status status = WriteReport(options.json, PlanJson(*report)); !status.ok()) {
      return Fail(status);
    }
  }
  for (const PlannedProfile& planned : report->profiles) {
    if (!planned.answer.plan.has_value()) return 1;
  }
  return 0;
}

}  // namespace reticle::server::cli
