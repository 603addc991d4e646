#include "server/cli/plan_search.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <limits>
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

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr uint32_t kTraceParts = 10;
constexpr uint32_t kLeastOfTrace = 20;
constexpr uint32_t kAloneRequests = 500;
constexpr uint32_t kMostRequests = 200'000;
// A run lasts so many times as long as a request, so that its beginning and its end do not matter.
constexpr double kLifetimes = 30;
constexpr double kWarmUpShare = 0.2;
// A mean request that lasts for more of a run's window than this shows that requests pile up.
constexpr double kBacklogShare = 0.2;
constexpr double kNsPerS = 1e9;

// 97.5 % quantile of Student's distribution.
double StudentQuantile(size_t degrees) {
  constexpr double kTable[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306,
                               2.262,  2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
                               2.110,  2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064,
                               2.060,  2.056, 2.052, 2.048, 2.045, 2.042};
  if (degrees == 0) return kInfinity;
  if (degrees <= std::size(kTable)) return kTable[degrees - 1];
  const double n = static_cast<double>(degrees);
  return 1.959964 + 2.3723 / n + 2.82 / (n * n);
}

// The smallest value that `percent` of the sorted values do not exceed.
double PercentileOf(const std::vector<double>& sorted, double percent) {
  if (sorted.empty()) return 0;
  const double rank = std::ceil(percent / 100 * static_cast<double>(sorted.size()));
  const auto index = static_cast<size_t>(std::max(rank, 1.0)) - 1;
  return sorted[std::min(index, sorted.size() - 1)];
}

// One run's requests, sorted by each of their times.
struct Batch {
  std::vector<double> ttft, tpot, e2e;
  double good = 0;  // shares of all
  double refused = 0;
  double too_long = 0;
  double seconds = 0;
  double requests_per_second = 0;
  double tokens_per_second = 0;

  const std::vector<double>* Times(std::string_view name) const {
    if (name == "ttft") return &ttft;
    if (name == "tpot") return &tpot;
    return name == "e2e" ? &e2e : nullptr;
  }

  // A figure by the name that bounds use; nothing when a plan does not predict it.
  std::optional<double> Value(std::string_view metric) const {
    if (metric == "goodput") return good;
    if (metric == "errors") return too_long;
    if (metric == "rejected") return refused;
    if (metric == "requests_per_second") return requests_per_second;
    if (metric == "output_tokens_per_second") return tokens_per_second;
    const size_t dot = metric.find('.');
    if (dot == std::string_view::npos) return std::nullopt;
    const std::vector<double>* const times = Times(metric.substr(0, dot));
    const std::string_view statistic = metric.substr(dot + 1);
    double percent = 0;
    if (times == nullptr) return std::nullopt;
    // What is never served has no time, and keeps no bound on one.
    if (times->empty()) return kInfinity;
    if (statistic == "min") return times->front();
    if (statistic == "max") return times->back();
    if (statistic == "mean") {
      double sum = 0;
      for (const double value : *times) sum += value;
      return sum / static_cast<double>(times->size());
    }
    if (!loadtest::ParseDouble(statistic.substr(1), percent)) return std::nullopt;
    return PercentileOf(*times, percent);
  }
};

bool IsGood(const PlannedOutcome& outcome, const loadtest::RequestSlo& slo) {
  if (outcome.kind != PlannedOutcome::Kind::kServed) return false;
  if (slo.ttft_ns.has_value() && outcome.ttft_ns > *slo.ttft_ns) return false;
  if (slo.tpot_ns.has_value() && outcome.tpot_ns > static_cast<double>(*slo.tpot_ns)) return false;
  return !slo.e2e_ns.has_value() || outcome.e2e_ns <= *slo.e2e_ns;
}

Batch BatchOf(const FleetRun& run, const loadtest::RequestSlo& slo) {
  Batch batch;
  double served = 0;
  for (const PlannedOutcome& outcome : run.outcomes) {
    batch.good += IsGood(outcome, slo) ? 1 : 0;
    batch.refused += outcome.kind == PlannedOutcome::Kind::kRefused ? 1 : 0;
    batch.too_long += outcome.kind == PlannedOutcome::Kind::kTooLong ? 1 : 0;
    if (outcome.kind != PlannedOutcome::Kind::kServed) continue;
    served += 1;
    batch.ttft.push_back(static_cast<double>(outcome.ttft_ns));
    if (outcome.output_tokens > 1) batch.tpot.push_back(outcome.tpot_ns);
    batch.e2e.push_back(static_cast<double>(outcome.e2e_ns));
  }
  const double count = std::max<double>(1, static_cast<double>(run.outcomes.size()));
  batch.good /= count;
  batch.refused /= count;
  batch.too_long /= count;
  batch.seconds = run.seconds;
  if (run.seconds > 0) batch.requests_per_second = served / run.seconds;
  batch.tokens_per_second = run.tokens_per_second;
  for (std::vector<double>* times : {&batch.ttft, &batch.tpot, &batch.e2e}) {
    std::sort(times->begin(), times->end());
  }
  return batch;
}

bool IsShare(std::string_view metric) {
  return metric == "goodput" || metric == "errors" || metric == "rejected";
}

// Runs that all say 0 or all say 1 leave room for what is rarer than they could see: of n requests
// without one failure, 3 / n is the upper end of a 95 % interval.
Estimate EstimateShare(const std::vector<double>& values, uint64_t requests) {
  Estimate estimate = EstimateOf(values);
  const double unseen = 3 / std::max<double>(1, static_cast<double>(requests));
  estimate.half = std::max(estimate.half, unseen);
  return estimate;
}

PlanVerdict Judge(const RunSlo& slo, const Estimate& value) {
  // Nobody asks more of a share than all.
  const double low = IsShare(slo.metric) ? std::max(value.low(), 0.0) : value.low();
  const double high = IsShare(slo.metric) ? std::min(value.high(), 1.0) : value.high();
  if (slo.at_most) {
    if (high <= slo.limit || (slo.limit == 0 && value.value == 0)) return PlanVerdict::kKept;
    return low > slo.limit ? PlanVerdict::kMissed : PlanVerdict::kUndecided;
  }
  if (low >= slo.limit || (slo.limit == 1 && value.value == 1)) return PlanVerdict::kKept;
  return high < slo.limit ? PlanVerdict::kMissed : PlanVerdict::kUndecided;
}

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
    alone_ = BatchOf(alone, options_.slos.request);
    // What arrives is not at issue here.
    SloSet slos = options_.slos;
    std::erase_if(slos.run, [](const RunSlo& slo) {
      return slo.metric == "requests_per_second" || slo.metric == "output_tokens_per_second";
    });
    answer->alone = Evaluate(1, Split(alone, kTraceParts), slos);
    const double e2e_s = alone_.Value("e2e.mean").value_or(0) / kNsPerS;
    requests_ = options_.requests;
    if (std::isfinite(e2e_s)) {
      const double wanted = kLifetimes * traffic_.rate * e2e_s;
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
      if (too_long > 0 && (IsShare(slo.metric) || too_long == 1) &&
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
      answer->impossible =
          absl::StrFormat("%d cards do not keep the bounds: %s", most, WhatIsMissed(plan));
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
    const Batch batch = BatchOf(runs_[cards].front(), options_.slos.request);
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
  Batch alone_;
  uint32_t requests_ = 0;
  std::map<uint32_t, std::vector<FleetRun>> runs_;  // by cards
};

}  // namespace

const char* PlanVerdictName(PlanVerdict verdict) {
  switch (verdict) {
    case PlanVerdict::kKept:
      return "kept";
    case PlanVerdict::kMissed:
      return "missed";
    case PlanVerdict::kUndecided:
      break;
  }
  return "undecided";
}

Estimate EstimateOf(const std::vector<double>& values) {
  Estimate estimate;
  if (values.empty()) return estimate;
  const auto count = static_cast<double>(values.size());
  for (const double value : values) estimate.value += value / count;
  if (!std::isfinite(estimate.value)) return {kInfinity, 0};
  if (values.size() == 1) return {estimate.value, kInfinity};
  double squares = 0;
  for (const double value : values) {
    squares += (value - estimate.value) * (value - estimate.value);
  }
  estimate.half = StudentQuantile(values.size() - 1) * std::sqrt(squares / (count - 1) / count);
  return estimate;
}

PlanEvaluation Evaluate(uint32_t cards, const std::vector<FleetRun>& runs, const SloSet& slos) {
  PlanEvaluation evaluation;
  evaluation.cards = cards;
  evaluation.runs = static_cast<uint32_t>(runs.size());
  std::vector<Batch> batches;
  FleetRun all;
  double late = 0;
  double rate = 0;
  for (const FleetRun& run : runs) {
    batches.push_back(BatchOf(run, slos.request));
    evaluation.requests += run.outcomes.size();
    evaluation.seconds += run.seconds;
    all.outcomes.insert(all.outcomes.end(), run.outcomes.begin(), run.outcomes.end());
    const double e2e_ns = batches.back().Value("e2e.mean").value_or(0);
    if (std::isfinite(e2e_ns)) late += e2e_ns / kNsPerS;
    rate += batches.back().seconds;
  }
  const Batch pooled = BatchOf(all, slos.request);
  const auto over = [&](const std::function<double(const Batch&)>& of) {
    std::vector<double> values;
    for (const Batch& batch : batches) values.push_back(of(batch));
    return values;
  };
  // A percentile is that of all requests together: one of a short run would be off to one side.
  const auto metric = [&](std::string_view name) {
    Estimate estimate = EstimateOf(over([name](const Batch& batch) { return *batch.Value(name); }));
    if (name.find('.') != std::string_view::npos) estimate.value = *pooled.Value(name);
    return estimate;
  };
  const auto share = [&](std::string_view name) {
    return EstimateShare(over([name](const Batch& batch) { return *batch.Value(name); }),
                         evaluation.requests);
  };
  const auto of_runs = [&](double FleetRun::*field) {
    std::vector<double> values;
    for (const FleetRun& run : runs) values.push_back(run.*field);
    return EstimateOf(values);
  };
  evaluation.ttft_p50 = metric("ttft.p50");
  evaluation.ttft_p99 = metric("ttft.p99");
  evaluation.tpot_p50 = metric("tpot.p50");
  evaluation.tpot_p99 = metric("tpot.p99");
  evaluation.e2e_p50 = metric("e2e.p50");
  evaluation.e2e_p99 = metric("e2e.p99");
  evaluation.good_share = share("goodput");
  evaluation.refused_share = share("rejected");
  evaluation.too_long_share = share("errors");
  evaluation.requests_per_second = metric("requests_per_second");
  evaluation.tokens_per_second = of_runs(&FleetRun::tokens_per_second);
  evaluation.busy_share = of_runs(&FleetRun::busy_share);
  evaluation.watts = of_runs(&FleetRun::watts);
  evaluation.kv_share = of_runs(&FleetRun::kv_share);
  evaluation.waiting = of_runs(&FleetRun::waiting);
  evaluation.overloaded =
      evaluation.refused_share.value > 0.01 || (rate > 0 && late > kBacklogShare * rate);
  for (const RunSlo& slo : slos.run) {
    JudgedSlo judged;
    judged.slo = slo;
    judged.value = IsShare(slo.metric) ? share(slo.metric) : metric(slo.metric);
    judged.verdict = Judge(slo, judged.value);
    // One bound missed decides, whatever the others are.
    if (judged.verdict == PlanVerdict::kMissed) evaluation.verdict = PlanVerdict::kMissed;
    if (judged.verdict == PlanVerdict::kUndecided && evaluation.verdict == PlanVerdict::kKept) {
      evaluation.verdict = PlanVerdict::kUndecided;
    }
    evaluation.slos.push_back(std::move(judged));
  }
  return evaluation;
}

absl::Status CheckSlos(const SloSet& slos) {
  const Batch any;
  for (const RunSlo& slo : slos.run) {
    if (any.Value(slo.metric).has_value()) continue;
    return InvalidArgumentError(
        "the SLO \"%s\" bounds what a plan does not predict; there are ttft, tpot and e2e (each "
        "request, or .p50|..|p99.9|mean|max), goodput, errors, rejected, requests_per_second and "
        "output_tokens_per_second",
        slo.text);
  }
  if (slos.run.empty()) return InvalidArgumentError("--slo is missing, as in ttft=200ms,tpot=1ms");
  return absl::OkStatus();
}

absl::StatusOr<PlanAnswer> MakePlan(const PlanOptions& options, const PlanTraffic& traffic) {
  if (traffic.mode == ArrivalMode::kTrace && traffic.trace.entries.size() < kLeastOfTrace) {
    return InvalidArgumentError("the trace has %d requests; a plan needs at least %d",
                                traffic.trace.entries.size(), kLeastOfTrace);
  }
  if (options.fleet.cards == 0) RETURN_IF_ERROR(CheckSlos(options.slos));
  return Planner(options, traffic).Make();
}

}  // namespace reticle::server::cli
