#include "server/cli/plan_traffic.h"

#include <algorithm>
#include <cmath>

#include "base/status.h"
#include "loadtest/text.h"

namespace reticle::server::cli {
namespace {

using loadtest::ArrivalMode;

constexpr uint64_t kLengthStream = 0x1e46;
constexpr double kMostTokens = 10'000'000;
constexpr double kMostPerSecond = 1e6;
constexpr int64_t kForEverNs = INT64_MAX / 4;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// "1k" as "1000" wherever a number ends in k.
std::string ExpandThousands(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    size_t end = i;
    while (end < text.size() && (IsDigit(text[end]) || text[end] == '.')) ++end;
    double number = 0;
    if (end > i && end < text.size() && (text[end] == 'k' || text[end] == 'K') &&
        loadtest::ParseDouble(text.substr(i, end - i), number)) {
      out += absl::StrFormat("%.15g", number * 1000);
      i = end + 1;
      continue;
    }
    end = std::max(end, i + 1);
    out += text.substr(i, end - i);
    i = end;
  }
  return out;
}

uint32_t Tokens(double value) {
  return static_cast<uint32_t>(std::clamp(std::round(value), 1.0, kMostTokens));
}

const char* NameOf(ArrivalMode mode) {
  switch (mode) {
    case ArrivalMode::kGamma:
      return "gamma";
    case ArrivalMode::kConstant:
      return "constant";
    case ArrivalMode::kTrace:
      return "trace";
    default:
      return "poisson";
  }
}

}  // namespace

absl::StatusOr<double> ParseRate(std::string_view text) {
  constexpr struct {
    std::string_view name;
    double seconds;
  } kUnits[] = {{"s", 1}, {"sec", 1}, {"min", 60}, {"m", 60}, {"h", 3600}, {"d", 86400}};
  const size_t slash = text.find('/');
  double number = 0;
  if (slash != std::string_view::npos &&
      loadtest::ParseDouble(ExpandThousands(text.substr(0, slash)), number)) {
    for (const auto& unit : kUnits) {
      if (text.substr(slash + 1) != unit.name) continue;
      const double rate = number / unit.seconds;
      if (rate > 0 && rate <= kMostPerSecond) return rate;
      return InvalidArgumentError("--arrival is \"%s\"; it must be above 0 and at most %g/s", text,
                                  kMostPerSecond);
    }
  }
  return InvalidArgumentError(
      "--arrival is \"%s\"; it must be requests by time, with their unit: 50/s, 3000/min or 100k/h",
      text);
}

absl::StatusOr<loadtest::Distribution> ParseLength(std::string_view text) {
  ASSIGN_OR_RETURN(const loadtest::Distribution length,
                   loadtest::Distribution::Parse(ExpandThousands(text)));
  const bool fixed = text.find(':') == std::string_view::npos;
  if (fixed && (length.Mean() < 1 || length.Mean() != std::floor(length.Mean()))) {
    return InvalidArgumentError("\"%s\" is no whole number of tokens from 1 on", text);
  }
  if (length.Mean() > kMostTokens) {
    return InvalidArgumentError("\"%s\": the mean is above %.0f tokens", text, kMostTokens);
  }
  return length;
}

std::string PlanTraffic::Describe() const {
  std::string text = absl::StrFormat("%g requests/s (%s", rate, NameOf(mode));
  if (mode == ArrivalMode::kGamma) text += absl::StrFormat(", cv %g", cv);
  text += "), ";
  if (!trace.entries.empty()) {
    return text + absl::StrFormat("lengths of a trace of %d requests", trace.entries.size());
  }
  return text + absl::StrFormat("prompt %s tokens, output %s tokens", prompt.ToString(),
                                output.ToString());
}

TrafficSource::TrafficSource(const PlanTraffic& traffic, uint64_t seed)
    : traffic_(traffic),
      arrivals_(ScenarioOf(seed), &traffic.trace),
      random_(seed, kLengthStream) {}

loadtest::Scenario TrafficSource::ScenarioOf(uint64_t seed) const {
  loadtest::Scenario scenario;
  scenario.mode = traffic_.mode;
  scenario.rate = traffic_.rate;
  scenario.cv = traffic_.cv;
  scenario.trace_speed = traffic_.trace_speed;
  scenario.seed = static_cast<int64_t>(seed);
  scenario.duration_ns = kForEverNs;
  return scenario;
}

std::optional<PlannedRequest> TrafficSource::Next() {
  const std::optional<int64_t> arrival_ns = arrivals_.Next();
  if (!arrival_ns.has_value()) return std::nullopt;
  PlannedRequest request;
  request.arrival_ns = *arrival_ns;
  if (traffic_.trace.entries.empty()) {
    request.prompt_tokens = Tokens(traffic_.prompt.Sample(random_));
    request.output_tokens = Tokens(traffic_.output.Sample(random_));
    return request;
  }
  const int64_t last = static_cast<int64_t>(traffic_.trace.entries.size()) - 1;
  const size_t index = traffic_.mode == ArrivalMode::kTrace
                           ? next_entry_++
                           : static_cast<size_t>(random_.Integer(0, last));
  const loadtest::TraceEntry& entry = traffic_.trace.entries[index];
  request.prompt_tokens = Tokens(static_cast<double>(entry.input_length));
  request.output_tokens = Tokens(static_cast<double>(entry.output_length));
  return request;
}

}  // namespace reticle::server::cli
