#include "server/metrics/buckets.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/check.h"
#include "base/status.h"

namespace reticle::server {
namespace {

constexpr size_t kMostBounds = 200;

using Bounds = std::vector<double>;

// Seconds between tokens: microseconds first, then vLLM's bounds.
const Bounds& TokenGaps() {
  static const Bounds* const bounds = new Bounds{
      5e-6,   10e-6, 20e-6, 30e-6, 40e-6, 50e-6, 60e-6, 80e-6, 100e-6, 150e-6, 200e-6, 300e-6,
      500e-6, 1e-3,  2e-3,  5e-3,  0.01,  0.025, 0.05,  0.075, 0.1,    0.15,   0.2,    0.3,
      0.4,    0.5,   0.75,  1,     2.5,   5,     7.5,   10,    20,     40,     80};
  return *bounds;
}

// Seconds to the first token.
const Bounds& FirstToken() {
  static const Bounds* const bounds =
      new Bounds{50e-6, 100e-6, 200e-6, 300e-6, 500e-6, 750e-6, 0.001, 0.002, 0.003, 0.005, 0.0075,
                 0.01,  0.02,   0.04,   0.06,   0.08,   0.1,    0.2,   0.25,  0.5,   0.75,  1,
                 2.5,   5,      7.5,    10,     20,     40,     80,    160,   640,   2560};
  return *bounds;
}

// Seconds of a whole request.
const Bounds& RequestSeconds() {
  static const Bounds* const bounds = new Bounds{
      0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1,   1.5,  2,   2.5,
      5,     10,    15,    20,   30,   40,   50,  60,  120, 240, 480, 960, 1920, 7680};
  return *bounds;
}

const Bounds& TokenCounts() {
  static const Bounds* const bounds = new Bounds{
      1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 131072};
  return *bounds;
}

const Bounds& StepTokens() {
  static const Bounds* const bounds =
      new Bounds{1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
  return *bounds;
}

const Bounds& Choices() {
  static const Bounds* const bounds = new Bounds{1, 2, 5, 10, 20};
  return *bounds;
}

const Bounds& TokenRates() {
  static const Bounds* const bounds =
      new Bounds{1,    5,     10,    20,    50,    100,   200,   500,   1000,  2000,  5000,
                 8000, 10000, 12000, 14000, 15000, 16000, 17000, 18000, 20000, 50000, 100000};
  return *bounds;
}

const Bounds& DefaultOf(Metric metric) {
  switch (metric) {
    case Metric::kInterTokenLatency:
    case Metric::kTimePerOutputToken:
      return TokenGaps();
    case Metric::kTimeToFirstToken:
    case Metric::kTierTimeToFirstToken:
    case Metric::kQueueTime:
    case Metric::kPrefillTime:
      return FirstToken();
    case Metric::kRequestPromptTokens:
    case Metric::kRequestGenerationTokens:
    case Metric::kRequestMaxGenerationTokens:
    case Metric::kRequestParamsMaxTokens:
      return TokenCounts();
    case Metric::kIterationTokens:
      return StepTokens();
    case Metric::kRequestParamsN:
      return Choices();
    case Metric::kTierTokensPerSecond:
      return TokenRates();
    default:
      return RequestSeconds();
  }
}

absl::StatusOr<double> ParseBound(std::string_view text, std::string_view option) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  double bound = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), bound);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size() ||
      !std::isfinite(bound)) {
    return InvalidArgumentError("--metrics-buckets \"%s\": \"%s\" is no number",
                                option.substr(0, 200), text.substr(0, 40));
  }
  return bound;
}

}  // namespace

absl::StatusOr<Buckets> Buckets::Create(const std::vector<std::string>& overrides) {
  Buckets buckets;
  for (const std::string& option : overrides) {
    const std::string_view text = option;
    const size_t equals = text.find('=');
    const std::string_view name = text.substr(0, equals);
    const std::optional<Metric> metric = FindMetric(name);
    if (equals == std::string_view::npos || !metric.has_value() || !Configurable(*metric)) {
      return InvalidArgumentError(
          "--metrics-buckets is \"%s\"; it must be NAME=BOUND,BOUND,... with the name of a "
          "histogram of docs/metrics.md",
          text.substr(0, 200));
    }
    Bounds bounds;
    for (size_t at = equals + 1; at <= text.size();) {
      const size_t end = std::min(text.find(',', at), text.size());
      ASSIGN_OR_RETURN(const double bound, ParseBound(text.substr(at, end - at), text));
      if (!bounds.empty() && bound <= bounds.back()) {
        return InvalidArgumentError("--metrics-buckets \"%s\": the bounds must rise",
                                    text.substr(0, 200));
      }
      bounds.push_back(bound);
      at = end + 1;
    }
    if (bounds.size() > kMostBounds) {
      return InvalidArgumentError("--metrics-buckets: %s has %d bounds; it must have at most %d",
                                  name, bounds.size(), kMostBounds);
    }
    buckets.overrides_[*metric] = std::move(bounds);
  }
  return buckets;
}

const std::vector<double>& Buckets::Of(Metric metric) const {
  RETICLE_CHECK(Configurable(metric));
  const auto found = overrides_.find(metric);
  return found != overrides_.end() ? found->second : DefaultOf(metric);
}

bool Buckets::Configurable(Metric metric) {
  return InfoOf(metric).kind == MetricKind::kHistogram && metric != Metric::kAddedLatency &&
         metric != Metric::kDeviceAddedLatency;
}

std::string Buckets::ToText(const std::vector<double>& bounds) {
  std::string text;
  for (const double bound : bounds) {
    if (!text.empty()) text += ", ";
    char buffer[32];
    const auto written =
        std::to_chars(buffer, buffer + sizeof buffer, bound, std::chars_format::general);
    text.append(buffer, written.ptr);
  }
  return text;
}

}  // namespace reticle::server
