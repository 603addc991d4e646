#include "server/cli/plan_statistics.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "base/status.h"
#include "loadtest/text.h"

namespace reticle::server::cli {
namespace {

using loadtest::RunSlo;
using loadtest::SloSet;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
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

bool IsGood(const PlannedOutcome& outcome, const loadtest::RequestSlo& slo) {
  if (outcome.kind != PlannedOutcome::Kind::kServed) return false;
  if (slo.ttft_ns.has_value() && outcome.ttft_ns > *slo.ttft_ns) return false;
  if (slo.tpot_ns.has_value() && outcome.tpot_ns > static_cast<double>(*slo.tpot_ns)) return false;
  return !slo.e2e_ns.has_value() || outcome.e2e_ns <= *slo.e2e_ns;
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
  const double low = IsShareMetric(slo.metric) ? std::max(value.low(), 0.0) : value.low();
  const double high = IsShareMetric(slo.metric) ? std::min(value.high(), 1.0) : value.high();
  if (slo.at_most) {
    if (high <= slo.limit || (slo.limit == 0 && value.value == 0)) return PlanVerdict::kKept;
    return low > slo.limit ? PlanVerdict::kMissed : PlanVerdict::kUndecided;
  }
  if (low >= slo.limit || (slo.limit == 1 && value.value == 1)) return PlanVerdict::kKept;
  return high < slo.limit ? PlanVerdict::kMissed : PlanVerdict::kUndecided;
}

}  // namespace

bool IsShareMetric(std::string_view metric) {
  return metric == "goodput" || metric == "errors" || metric == "rejected";
}

double PercentileOf(const std::vector<double>& sorted, double percent) {
  if (sorted.empty()) return 0;
  const double rank = std::ceil(percent / 100 * static_cast<double>(sorted.size()));
  const auto index = static_cast<size_t>(std::max(rank, 1.0)) - 1;
  return sorted[std::min(index, sorted.size() - 1)];
}

std::optional<double> RunFigures::Value(std::string_view metric) const {
  if (metric == "goodput") return good;
  if (metric == "errors") return too_long;
  if (metric == "rejected") return refused;
  if (metric == "requests_per_second") return requests_per_second;
  if (metric == "output_tokens_per_second") return tokens_per_second;
  const size_t dot = metric.find('.');
  if (dot == std::string_view::npos) return std::nullopt;
  const std::string_view name = metric.substr(0, dot);
  const std::vector<double>* const times = name == "ttft"   ? &ttft
                                           : name == "tpot" ? &tpot
                                           : name == "e2e"  ? &e2e
                                                            : nullptr;
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

RunFigures FiguresOf(const FleetRun& run, const loadtest::RequestSlo& slo) {
  RunFigures batch;
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
  std::vector<RunFigures> batches;
  FleetRun all;
  double late = 0;
  double rate = 0;
  for (const FleetRun& run : runs) {
    batches.push_back(FiguresOf(run, slos.request));
    evaluation.requests += run.outcomes.size();
    evaluation.seconds += run.seconds;
    all.outcomes.insert(all.outcomes.end(), run.outcomes.begin(), run.outcomes.end());
    const double e2e_ns = batches.back().Value("e2e.mean").value_or(0);
    if (std::isfinite(e2e_ns)) late += e2e_ns / kNsPerS;
    rate += batches.back().seconds;
  }
  const RunFigures pooled = FiguresOf(all, slos.request);
  const auto over = [&](const std::function<double(const RunFigures&)>& of) {
    std::vector<double> values;
    for (const RunFigures& batch : batches) values.push_back(of(batch));
    return values;
  };
  // A percentile is that of all requests together: one of a short run would be off to one side.
  const auto metric = [&](std::string_view name) {
    Estimate estimate =
        EstimateOf(over([name](const RunFigures& batch) { return *batch.Value(name); }));
    if (name.find('.') != std::string_view::npos) estimate.value = *pooled.Value(name);
    return estimate;
  };
  const auto share = [&](std::string_view name) {
    return EstimateShare(over([name](const RunFigures& batch) { return *batch.Value(name); }),
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
    judged.value = IsShareMetric(slo.metric) ? share(slo.metric) : metric(slo.metric);
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
  const RunFigures any;
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

}  // namespace reticle::server::cli
