#include "loadtest/report.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "loadtest/text.h"

namespace reticle::loadtest {
namespace {

constexpr double kPercentiles[] = {1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9, 99.99};
constexpr double kWorkLimit = 0.9;
constexpr double kSpinWaitLimit = 0.1;
constexpr double kWaitLimit = 0.25;
constexpr double kLagShare = 0.1;
constexpr double kWakeDelayFloorNs = 100e3;
constexpr double kSendLagFloorNs = 1e6;
constexpr double kLoopLagFloorNs = 5e6;

double Ratio(double a, double b) { return b > 0 ? a / b : 0; }

// Shares of the distribution at which a chart has points: 0.5 % steps, then finer towards 1.
std::vector<double> CurveShares() {
  std::vector<double> shares;
  for (int i = 1; i <= 180; ++i) shares.push_back(0.005 * i);
  for (double tail = 0.09; tail >= 0.9e-5; tail *= 0.9) shares.push_back(1 - tail);
  return shares;
}

}  // namespace

double Summary::At(double percent) const {
  for (const auto& [at, value] : percentiles) {
    if (at >= percent) return value;
  }
  return max;
}

Summary Summarize(const Histogram& histogram, double scale) {
  Summary summary;
  summary.count = histogram.count();
  summary.min = static_cast<double>(histogram.min()) * scale;
  summary.mean = histogram.mean() * scale;
  summary.max = static_cast<double>(histogram.max()) * scale;
  if (summary.count == 0) return summary;
  for (const double percent : kPercentiles) {
    summary.percentiles.emplace_back(percent,
                                     static_cast<double>(histogram.Percentile(percent)) * scale);
  }
  const auto buckets = histogram.Buckets();
  const double total = static_cast<double>(summary.count);
  size_t bucket = 0;
  double seen = static_cast<double>(buckets[0].second);
  for (const double share : CurveShares()) {
    if (share > 1 - 0.5 / total) break;
    while (seen < share * total - 1e-9 && bucket + 1 < buckets.size()) {
      seen += static_cast<double>(buckets[++bucket].second);
    }
    summary.curve.emplace_back(share, static_cast<double>(buckets[bucket].first) * scale);
  }
  summary.curve.emplace_back(1.0, summary.max);
  return summary;
}

ClientVerdict JudgeClient(const std::vector<ClientThread>& threads,
                          const ClientEvidence& evidence) {
  ClientVerdict verdict;
  const auto because = [&](std::string reason) { verdict.reasons.push_back(std::move(reason)); };
  double work = 0;
  double wait = 0;
  double wake_delay = 0;
  for (const ClientThread& thread : threads) {
    const double on_cpu = evidence.spin ? 0 : thread.cpu_share + thread.wait_share;
    work = std::max({work, thread.busy_share, on_cpu});
    wait = std::max(wait, thread.wait_share);
    wake_delay = std::max(wake_delay, thread.wake_delay_ns);
  }
  if (work >= kWorkLimit) {
    because(
        absl::StrFormat("a client thread had work for %.0f %% of the time, of which it waited "
                        "%.0f %% for a CPU",
                        std::min(work, 1.0) * 100, wait * 100));
  } else if (evidence.spin && wait >= kSpinWaitLimit) {
    because(absl::StrFormat("a spinning client thread was without a CPU for %.0f %% of the time",
                            wait * 100));
  } else if (!evidence.spin && wait >= kWaitLimit) {
    because(
        absl::StrFormat("a client thread waited for a CPU for %.0f %% of the time", wait * 100));
  }
  if (!evidence.spin &&
      wake_delay > std::max(kWakeDelayFloorNs, kLagShare * evidence.latency_p50)) {
    because("client threads were given a CPU late: on average " + FormatNs(wake_delay));
  }
  if (evidence.send_lag_p99 > std::max(kSendLagFloorNs, kLagShare * evidence.latency_p99)) {
    because("requests were sent late: p99 " + FormatNs(evidence.send_lag_p99));
  }
  if (evidence.loop_lag_p99 > std::max(kLoopLagFloorNs, kLagShare * evidence.latency_p50)) {
    because("events waited in the client: p99 " + FormatNs(evidence.loop_lag_p99));
  }
  verdict.bottleneck = !verdict.reasons.empty();
  return verdict;
}

void FillReport(const Recorder& recorder, Report& report) {
  const auto add = [&](const char* name, const Histogram& histogram, double scale) {
    report.summaries.insert_or_assign(name, Summarize(histogram, scale));
  };
  add("ttft", recorder.ttft, 1);
  add("itl", recorder.gap, 1);
  add("tpot", recorder.tpot, 1);
  add("e2e", recorder.e2e, 1);
  add("conversation", recorder.conversation, 1);
  add("send_lag", recorder.send_lag, 1);
  add("loop_lag", recorder.loop_lag, 1);
  add("stream_rate", recorder.stream_rate, 1e-3);

  report.requests = recorder.requests;
  report.successes = recorder.successes;
  report.good = recorder.good;
  report.rejections = recorder.rejections;
  report.disconnects = recorder.disconnects;
  report.empty_replies = recorder.empty_replies;
  report.short_replies = recorder.short_replies;
  report.without_usage = recorder.without_usage;
  report.retries = recorder.retries;
  report.connections = recorder.connections;
  report.reconnects = recorder.reconnects;
  report.prompt_tokens = recorder.prompt_tokens;
  report.cached_tokens = recorder.cached_tokens;
  report.completion_tokens = recorder.completion_tokens;
  report.completion_events = recorder.completion_events;
  report.errors = recorder.errors;
  report.error_examples = recorder.error_examples;
  report.finish_reasons = recorder.finish_reasons;

  report.chunks_per_token = Ratio(static_cast<double>(recorder.completion_events),
                                  static_cast<double>(recorder.completion_tokens));
  const double tokens_per_event = report.chunks_per_token > 0 ? 1 / report.chunks_per_token : 1;
  report.requests_per_s = Ratio(static_cast<double>(recorder.successes), report.window_s);
  report.goodput_per_s = Ratio(static_cast<double>(recorder.good), report.window_s);
  report.events_per_s = Ratio(static_cast<double>(recorder.window_events), report.window_s);
  report.output_tokens_per_s =
      Ratio(recorder.window_tokens +
                tokens_per_event * static_cast<double>(recorder.window_uncounted_events),
            report.window_s);

  report.interval_s = static_cast<double>(recorder.options().interval_ns) / 1e9;
  for (size_t i = 0; i < recorder.intervals.size(); ++i) {
    const Interval& from = recorder.intervals[i];
    IntervalReport to;
    to.begin_s = static_cast<double>(i) * report.interval_s;
    to.sent = from.sent;
    to.succeeded = from.succeeded;
    to.failed = from.failed;
    to.tokens_per_s = static_cast<double>(from.events) * tokens_per_event / report.interval_s;
    to.ttft_p50_ns = static_cast<double>(from.ttft.Percentile(50));
    to.ttft_p99_ns = static_cast<double>(from.ttft.Percentile(99));
    to.gap_p50_ns = static_cast<double>(from.gap.Percentile(50));
    to.gap_p99_ns = static_cast<double>(from.gap.Percentile(99));
    report.intervals.push_back(to);
  }
  const Summary& latency = report.summaries[recorder.ttft.count() > 0 ? "ttft" : "e2e"];
  report.client = JudgeClient(report.threads, {.spin = report.spin,
                                               .send_lag_p99 = report.summaries["send_lag"].At(99),
                                               .loop_lag_p99 = report.summaries["loop_lag"].At(99),
                                               .latency_p50 = latency.At(50),
                                               .latency_p99 = latency.At(99)});
}

std::optional<double> Report::Value(std::string_view metric) const {
  const double all = static_cast<double>(requests);
  if (metric == "goodput" || metric == "errors" || metric == "rejected") {
    if (requests == 0) return std::nullopt;
    // Who leaves on purpose is neither good nor bad.
    if (metric == "goodput") {
      const int64_t stayed = requests - disconnects;
      if (stayed == 0) return std::nullopt;
      return static_cast<double>(good) / static_cast<double>(stayed);
    }
    if (metric == "rejected") return static_cast<double>(rejections) / all;
    return static_cast<double>(requests - successes - disconnects - rejections) / all;
  }
  if (metric == "requests_per_second") return requests_per_s;
  if (metric == "output_tokens_per_second") return output_tokens_per_s;
  if (metric == "fairness") {
    const Summary& rate = summaries.find("stream_rate")->second;
    if (rate.count == 0 || rate.min <= 0) return std::nullopt;
    return rate.max / rate.min;
  }
  const size_t dot = metric.find('.');
  const auto found = summaries.find(metric.substr(0, dot));
  if (found == summaries.end() || found->second.count == 0 || dot == std::string_view::npos) {
    return std::nullopt;
  }
  const Summary& summary = found->second;
  const std::string_view statistic = metric.substr(dot + 1);
  if (statistic == "mean") return summary.mean;
  if (statistic == "min") return summary.min;
  if (statistic == "max") return summary.max;
  double percent = 0;
  if (!ParseDouble(statistic.substr(1), percent)) return std::nullopt;
  for (const auto& [at, value] : summary.percentiles) {
    if (std::fabs(at - percent) < 1e-9) return value;
  }
  // Between the stored ones: the chart's points, from above.
  for (const auto& [share, value] : summary.curve) {
    if (share >= percent / 100 - 1e-12) return value;
  }
  return summary.max;
}

bool Report::AllSlosMet() const {
  return std::all_of(slos.begin(), slos.end(), [](const SloVerdict& v) { return v.met; });
}

}  // namespace reticle::loadtest
