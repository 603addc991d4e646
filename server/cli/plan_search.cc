#include "server/cli/plan_search.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>
#include <string_view>
#include <thread>

#include "base/status.h"
#include "loadtest/text.h"

namespace reticle::server::cli {
namespace {

using loadtest::ArrivalMode;
using loadtest::RunSlo;
using loadtest::SloSet;

constexpr uint32_t kTraceParts = 10;
constexpr uint32_t kLeastOfTrace = 20;
constexpr uint32_t kAloneRequests = 500;
constexpr uint32_t kMostRequests = 200'000;
// A run lasts so many times as long as a request, so that its beginning and its end do not matter.
constexpr double kLifetimes = 30;
constexpr double kLeastSeconds = 3;
constexpr double kWarmUpShare = 0.2;
constexpr double kNsPerS = 1e9;

// The parts of one run as runs of their own.
std::vector<FleetRun> Split(const FleetRun& run, uint32_t parts) {
  std::vector<FleetRun> split(parts, run);
  const size_t count = run.outcomes.size();
  for (uint32_t i = 0; i < parts; ++i) {
    split[i].outcomes.assign(
        run.outcomes.begin() + static_cast<ptrdiff_t>(count * i / parts),
        run.outcomes.begin() + static_cast<ptrdiff_t>(count * (i + 1) / parts));
    split[i].seconds = run.seconds / parts;
  }
  return split;
}

class Planner {
 public:
  Planner(const PlanOptions& options, const PlanTraffic& traffic)
      : options_(options), traffic_(traffic) {}

  absl::StatusOr<PlanAnswer> Make() {
    PlanAnswer answer;
    ASSIGN_OR_RETURN(answer.context_limit, ContextLimitOf(options_.fleet));
    RETURN_IF_ERROR(MeasureAlone(&answer));
    answer.requests_per_run = requests_;
    if (options_.fleet.cards != 0) {
      ASSIGN_OR_RETURN(answer.plan, Settled(options_.fleet.cards));
      return answer;
    }
    answer.impossible = WhyImpossible(answer);
    if (!answer.impossible.empty()) return answer;
    RETURN_IF_ERROR(Search(&answer));
    return answer;
  }

 private:
  absl::Status MeasureAlone(PlanAnswer* answer) {
    RunLength length;
    length.seed = options_.seed;
    length.measured = std::min(options_.requests, kAloneRequests);
    const bool own_times = traffic_.mode == ArrivalMode::kTrace;
    if (own_times) {
      length.measured =
          std::min(length.measured, static_cast<uint32_t>(traffic_.trace.entries.size()));
    }
    ASSIGN_OR_RETURN(const FleetRun alone, SimulateAlone(options_.fleet, traffic_, length));
    alone_ = FiguresOf(alone, options_.slos.request);
    // What arrives is not at issue here.
    SloSet slos = options_.slos;
    std::erase_if(slos.run, [](const RunSlo& slo) {
      return slo.metric == "requests_per_second" || slo.metric == "output_tokens_per_second";
    });
    answer->alone = Evaluate(1, Split(alone, kTraceParts), slos);
    const double e2e_s = alone_.Value("e2e.mean").value_or(0) / kNsPerS;
    requests_ = options_.requests;
    if (std::isfinite(e2e_s)) {
      const double wanted = traffic_.rate * std::max(kLifetimes * e2e_s, kLeastSeconds);
      requests_ = static_cast<uint32_t>(
          std::min<double>(kMostRequests, std::max<double>(requests_, std::ceil(wanted))));
    }
    if (own_times) requests_ = static_cast<uint32_t>(traffic_.trace.entries.size());
    return absl::OkStatus();
  }

  // A limit that holds for one request by itself holds for any number of cards.
  std::string WhyImpossible(const PlanAnswer& answer) const {
    const PlanEvaluation& alone = answer.alone;
    const double too_long = alone.too_long_share.value;
    for (const JudgedSlo& judged : alone.slos) {
      const RunSlo& slo = judged.slo;
      const bool missed = slo.at_most ? judged.value.value > slo.limit + judged.value.half
                                      : judged.value.value + judged.value.half < slo.limit;
      if (!missed) continue;
      if (too_long > 0 && (IsShareMetric(slo.metric) || too_long == 1) &&
          (slo.at_most || 1 - too_long < slo.limit || too_long == 1)) {
        return absl::StrFormat(
            "context limit: %s of the requests pass the %d tokens that prompt and output may have "
            "together",
            loadtest::FormatMetric("goodput", too_long), answer.context_limit);
      }
      if (slo.metric == "goodput") return WhyNoGoodput(slo);
      return absl::StrFormat("%s is %s for requests that have a card to themselves; %s", slo.metric,
                             loadtest::FormatMetric(slo.metric, judged.value.value), slo.text);
    }
    return "";
  }

  // The bound on each request that most requests miss when they are alone.
  std::string WhyNoGoodput(const RunSlo& goodput) const {
    const loadtest::RequestSlo& slo = options_.slos.request;
    const struct {
      const char* name;
      const char* title;
      const std::vector<double>& values;
      std::optional<int64_t> bound;
    } bounds[] = {{"ttft", "TTFT floor", alone_.ttft, slo.ttft_ns},
                  {"tpot", "speed of one stream", alone_.tpot, slo.tpot_ns},
                  {"e2e", "time of a whole request", alone_.e2e, slo.e2e_ns}};
    std::string text;
    size_t most = 0;
    for (const auto& bound : bounds) {
      if (!bound.bound.has_value() || bound.values.empty()) continue;
      const auto limit = static_cast<double>(*bound.bound);
      const auto missed =
          static_cast<size_t>(std::count_if(bound.values.begin(), bound.values.end(),
                                            [limit](double value) { return value > limit; }));
      if (missed <= most) continue;
      most = missed;
      const double percent = std::min(goodput.limit * 100, 100.0);
      text = absl::StrFormat(
          "%s: p%g of %s is %s for requests that have a card to themselves; the bound is %s",
          bound.title, percent, bound.name, loadtest::FormatNs(PercentileOf(bound.values, percent)),
          loadtest::FormatNs(limit));
    }
    return text.empty() ? "goodput " + loadtest::FormatMetric("goodput", alone_.good) : text;
  }

  absl::Status Search(PlanAnswer* answer) {
    const uint32_t most = options_.max_cards;
    uint32_t high = std::clamp<uint32_t>(Guess(), 1, most);
    uint32_t low = 0;  // known not to do
    while (true) {
      ASSIGN_OR_RETURN(const bool does, Probe(high));
      if (does) break;
      low = high;
      if (high == most) break;
      high = std::min(high * 2, most);
    }
    while (high - low > 1) {
      const uint32_t middle = low + (high - low) / 2;
      ASSIGN_OR_RETURN(const bool does, Probe(middle));
      (does ? high : low) = middle;
    }
    // What one run says may be chance: the neighbourhood is judged by all of them.
    ASSIGN_OR_RETURN(PlanEvaluation plan, Settled(high));
    while (plan.verdict == PlanVerdict::kMissed && high < most) {
      ASSIGN_OR_RETURN(plan, Settled(++high));
    }
    // A few more cards decide, or nothing does but more requests.
    const uint32_t further = std::min(most, high + high / 8 + 2);
    for (uint32_t cards = high + 1; plan.verdict == PlanVerdict::kUndecided && cards <= further;
         ++cards) {
      ASSIGN_OR_RETURN(PlanEvaluation more, Settled(cards));
      if (more.verdict != PlanVerdict::kKept) continue;
      plan = std::move(more);
      high = cards;
    }
    while (plan.verdict == PlanVerdict::kKept && high > 1) {
      ASSIGN_OR_RETURN(PlanEvaluation fewer, Settled(high - 1));
      answer->fewer = fewer;
      if (fewer.verdict != PlanVerdict::kKept) break;
      plan = std::move(fewer);
      answer->fewer.reset();
      --high;
    }
    if (plan.verdict != PlanVerdict::kMissed) {
      answer->plan = std::move(plan);
    } else {
      answer->impossible = absl::StrFormat("the bounds are not kept by %d %s: %s", most,
                                           most == 1 ? "card" : "cards", WhatIsMissed(plan));
      answer->fewer = std::move(plan);
    }
    return absl::OkStatus();
  }

  static std::string WhatIsMissed(const PlanEvaluation& evaluation) {
    for (const JudgedSlo& judged : evaluation.slos) {
      if (judged.verdict == PlanVerdict::kKept) continue;
      return absl::StrFormat("%s is %s; %s", judged.slo.metric,
                             loadtest::FormatMetric(judged.slo.metric, judged.value.value),
                             judged.slo.text);
    }
    return "";
  }

  // As many as the requests would keep busy if each were alone on its card, where that is few.
  uint32_t Guess() const {
    const double e2e_s = alone_.Value("e2e.mean").value_or(0) / kNsPerS;
    const double streams = traffic_.rate * e2e_s;
    return std::isfinite(streams) ? static_cast<uint32_t>(std::min(streams / 4 + 1, 64.0)) : 1;
  }

  RunLength Length(uint64_t seed) const {
    RunLength length;
    length.seed = seed;
    length.measured = requests_;
    if (traffic_.mode != ArrivalMode::kTrace) {
      length.warm_up = static_cast<uint32_t>(kWarmUpShare * requests_);
    }
    return length;
  }

  absl::StatusOr<bool> Probe(uint32_t cards) {
    RETURN_IF_ERROR(RunAll(cards, 1));
    const RunFigures batch = FiguresOf(runs_[cards].front(), options_.slos.request);
    for (const RunSlo& slo : options_.slos.run) {
      const std::optional<double> value = batch.Value(slo.metric);
      const bool met =
          value.has_value() && (slo.at_most ? *value <= slo.limit : *value >= slo.limit);
      if (!met) return false;
    }
    return true;
  }

  // Runs until every bound is decided, or there are enough.
  absl::StatusOr<PlanEvaluation> Settled(uint32_t cards) {
    uint32_t runs = std::max(options_.runs, 2u);
    while (true) {
      RETURN_IF_ERROR(RunAll(cards, runs));
      PlanEvaluation evaluation = Evaluate(cards, runs_[cards], options_.slos);
      if (evaluation.verdict != PlanVerdict::kUndecided || runs >= options_.max_runs ||
          traffic_.mode == ArrivalMode::kTrace) {
        return evaluation;
      }
      runs = std::min(runs + options_.runs, options_.max_runs);
    }
  }

  // Makes those of the first `count` runs that are not there. Each has its own seed, so it does not
  // matter which thread makes it.
  absl::Status RunAll(uint32_t cards, uint32_t count) {
    std::vector<FleetRun>& runs = runs_[cards];
    FleetOptions fleet = options_.fleet;
    fleet.cards = cards;
    if (traffic_.mode == ArrivalMode::kTrace) {
      if (!runs.empty()) return absl::OkStatus();
      ASSIGN_OR_RETURN(const FleetRun run, SimulateFleet(fleet, traffic_, Length(options_.seed)));
      runs = Split(run, kTraceParts);
      return absl::OkStatus();
    }
    const size_t present = runs.size();
    if (present >= count) return absl::OkStatus();
    std::vector<absl::StatusOr<FleetRun>> made(count - present, absl::UnknownError("not run"));
    std::atomic<size_t> next{0};
    const auto work = [&] {
      for (size_t i = next.fetch_add(1); i < made.size(); i = next.fetch_add(1)) {
        made[i] = SimulateFleet(fleet, traffic_, Length(options_.seed + present + i));
      }
    };
    const uint32_t cores = std::max(1u, std::thread::hardware_concurrency());
    const size_t threads =
        std::min<size_t>(options_.threads != 0 ? options_.threads : cores, made.size());
    std::vector<std::thread> others;
    for (size_t i = 1; i < threads; ++i) others.emplace_back(work);
    work();
    for (std::thread& thread : others) thread.join();
    for (absl::StatusOr<FleetRun>& run : made) {
      RETURN_IF_ERROR(run.status());
      runs.push_back(*std::move(run));
    }
    return absl::OkStatus();
  }

  const PlanOptions& options_;
  const PlanTraffic& traffic_;
  RunFigures alone_;
  uint32_t requests_ = 0;
  std::map<uint32_t, std::vector<FleetRun>> runs_;  // by cards
};

}  // namespace

absl::StatusOr<PlanAnswer> MakePlan(const PlanOptions& options, const PlanTraffic& traffic) {
  if (traffic.mode == ArrivalMode::kTrace && traffic.trace.entries.size() < kLeastOfTrace) {
    return InvalidArgumentError("the trace has %d requests; a plan needs at least %d",
                                traffic.trace.entries.size(), kLeastOfTrace);
  }
  if (options.fleet.cards == 0) RETURN_IF_ERROR(CheckSlos(options.slos));
  return Planner(options, traffic).Make();
}

}  // namespace reticle::server::cli
