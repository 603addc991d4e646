#include "loadtest/compare.h"

#include <simdjson.h>

#include <cmath>
#include <optional>

#include "base/status.h"
#include "loadtest/text.h"

namespace reticle::loadtest {
namespace {

struct Metric {
  const char* name;
  const char* pointer;
  const char* unit;
  bool lower_is_better;
  bool judged;
};

constexpr Metric kMetrics[] = {
    {"requests/s", "/rates/requests_per_second", "", false, true},
    {"goodput/s", "/rates/goodput_per_second", "", false, true},
    {"output tokens/s", "/rates/output_tokens_per_second", "", false, true},
    {"events/s", "/rates/events_per_second", "", false, false},
    {"errors", "/shares/errors", "share", true, true},
    {"rejected", "/shares/rejected", "share", true, true},
    {"TTFT p50", "/ttft_ms/p50", "ms", true, true},
    {"TTFT p99", "/ttft_ms/p99", "ms", true, true},
    {"TTFT p99.99", "/ttft_ms/p99.99", "ms", true, false},
    {"inter-token p50", "/itl_ms/p50", "ms", true, true},
    {"inter-token p99", "/itl_ms/p99", "ms", true, true},
    {"inter-token p99.99", "/itl_ms/p99.99", "ms", true, false},
    {"TPOT p50", "/tpot_ms/p50", "ms", true, true},
    {"TPOT p99", "/tpot_ms/p99", "ms", true, true},
    {"end to end p50", "/e2e_ms/p50", "ms", true, true},
    {"end to end p99", "/e2e_ms/p99", "ms", true, true},
    {"conversation p50", "/conversation_ms/p50", "ms", true, true},
    {"conversation p99", "/conversation_ms/p99", "ms", true, true},
    {"fairness", "/fairness", "", true, false},
    {"client CPU", "/client/cpu_s", "s", true, false},
    {"server CPU", "/server_cpu_s", "s", true, false},
};

std::optional<double> Number(const simdjson::dom::element& root, const char* pointer) {
  double value = 0;
  if (root.at_pointer(pointer).get(value) != simdjson::SUCCESS) return std::nullopt;
  return value;
}

std::string Text(const simdjson::dom::element& root, const char* pointer) {
  std::string_view value;
  if (root.at_pointer(pointer).get(value) != simdjson::SUCCESS) return "";
  return std::string(value);
}

absl::StatusOr<simdjson::dom::element> Parse(simdjson::dom::parser& parser, std::string_view text,
                                             const std::string& name) {
  simdjson::dom::element root;
  if (const auto error = parser.parse(text.data(), text.size()).get(root);
      error != simdjson::SUCCESS) {
    return InvalidArgumentError("%s is no JSON (%s)", name, simdjson::error_message(error));
  }
  int64_t format = 0;
  simdjson::dom::object rates;
  if (root.at_pointer("/format").get(format) != simdjson::SUCCESS || format != 1 ||
      root.at_pointer("/rates").get(rates) != simdjson::SUCCESS) {
    return InvalidArgumentError("%s is no result of reticle load", name);
  }
  return root;
}

void CompareSettings(const simdjson::dom::element& before, const simdjson::dom::element& after,
                     Comparison& comparison) {
  simdjson::dom::object a;
  simdjson::dom::object b;
  if (before.at_pointer("/settings").get(a) != simdjson::SUCCESS ||
      after.at_pointer("/settings").get(b) != simdjson::SUCCESS) {
    return;
  }
  for (const auto& field : a) {
    std::string_view x;
    std::string_view y;
    if (field.value.get(x) != simdjson::SUCCESS || b[field.key].get(y) != simdjson::SUCCESS ||
        x == y || field.key == "--name" || field.key == "--description") {
      continue;
    }
    comparison.other_settings.push_back(absl::StrFormat("%s: %s, %s", field.key, x, y));
  }
}

}  // namespace

std::vector<const ComparedMetric*> Comparison::Regressions(double share) const {
  std::vector<const ComparedMetric*> regressions;
  for (const ComparedMetric& metric : metrics) {
    if (metric.judged && metric.worse > share) regressions.push_back(&metric);
  }
  return regressions;
}

absl::StatusOr<Comparison> CompareReports(std::string_view before, const std::string& before_name,
                                          std::string_view after, const std::string& after_name) {
  simdjson::dom::parser parser_a;
  simdjson::dom::parser parser_b;
  ASSIGN_OR_RETURN(const simdjson::dom::element a, Parse(parser_a, before, before_name));
  ASSIGN_OR_RETURN(const simdjson::dom::element b, Parse(parser_b, after, after_name));
  Comparison comparison;
  comparison.before_name = before_name;
  comparison.after_name = after_name;
  for (const Metric& metric : kMetrics) {
    const std::optional<double> x = Number(a, metric.pointer);
    const std::optional<double> y = Number(b, metric.pointer);
    if (!x.has_value() || !y.has_value()) continue;
    ComparedMetric compared;
    compared.name = metric.name;
    compared.unit = metric.unit;
    compared.lower_is_better = metric.lower_is_better;
    compared.judged = metric.judged;
    compared.before = *x;
    compared.after = *y;
    if (*x != 0) {
      compared.change = *y / *x - 1;
    } else if (*y != 0) {
      compared.change = INFINITY;
    }
    // A rate that halves is as much worse as a time that doubles.
    compared.worse = compared.change;
    if (!metric.lower_is_better) {
      compared.worse = *y != 0 ? *x / *y - 1 : (*x != 0 ? INFINITY : 0);
    }
    comparison.metrics.push_back(std::move(compared));
  }
  CompareSettings(a, b, comparison);
  if (Text(a, "/name") != Text(b, "/name")) {
    comparison.warnings.push_back("different scenarios: " + Text(a, "/name") + ", " +
                                  Text(b, "/name"));
  }
  for (const auto& [root, name] : {std::pair(a, before_name), std::pair(b, after_name)}) {
    if (Text(root, "/client/verdict") == "bottleneck") {
      comparison.warnings.push_back("the client was the bottleneck in " + name);
    }
  }
  return comparison;
}

std::string FormatComparison(const Comparison& comparison, bool color) {
  constexpr double kNoise = 0.02;
  std::string out = absl::StrFormat("A %s\nB %s\n", comparison.before_name, comparison.after_name);
  for (const std::string& setting : comparison.other_settings) {
    absl::StrAppendFormat(&out, "  set otherwise  %s\n", setting);
  }
  for (const std::string& warning : comparison.warnings) {
    absl::StrAppendFormat(&out, "  warning  %s\n", warning);
  }
  absl::StrAppendFormat(&out, "\n  %-20s %14s %14s %9s\n", "", "A", "B", "change");
  for (const ComparedMetric& metric : comparison.metrics) {
    const char* paint = "";
    const char* word = "";
    if (metric.worse > kNoise) paint = "\033[31m", word = "worse";
    if (metric.worse < -kNoise) paint = "\033[32m", word = "better";
    absl::StrAppendFormat(&out, "  %-20s %14.4f %14.4f %s%8.1f %%  %s%s  %s\n", metric.name,
                          metric.before, metric.after, color ? paint : "", metric.change * 100,
                          word, color ? "\033[0m" : "", metric.unit);
  }
  return out;
}

}  // namespace reticle::loadtest
