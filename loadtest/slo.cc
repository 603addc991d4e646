#include "loadtest/slo.h"

#include <algorithm>

#include "base/status.h"
#include "loadtest/text.h"

namespace reticle::loadtest {
namespace {

constexpr double kDefaultGoodput = 0.99;

bool Among(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool IsTime(std::string_view metric) {
  return Among(metric.substr(0, metric.find('.')), {"ttft", "itl", "tpot", "e2e", "conversation"});
}
bool IsShare(std::string_view metric) { return Among(metric, {"goodput", "errors", "rejected"}); }

// "p50" to "p99.99", "mean", "max".
bool IsStatistic(std::string_view name) {
  if (Among(name, {"mean", "max", "min"})) return true;
  double percent = 0;
  return name.starts_with('p') && ParseDouble(name.substr(1), percent) && percent > 0 &&
         percent <= 100;
}

absl::StatusOr<double> ParseLimit(std::string_view metric, std::string_view text) {
  if (IsTime(metric)) {
    ASSIGN_OR_RETURN(const int64_t ns, ParseDurationNs(text));
    return static_cast<double>(ns);
  }
  double value = 0;
  const bool percent = text.ends_with('%');
  if (percent) text.remove_suffix(1);
  if (!ParseDouble(text, value) || value < 0 || (percent && !IsShare(metric))) {
    return InvalidArgumentError("\"%s\" is no number for %s", text, metric);
  }
  if (percent) value /= 100;
  if (IsShare(metric) && value > 1) {
    return InvalidArgumentError("%s is a share: 0 to 1, or 0%% to 100%%", metric);
  }
  return value;
}

}  // namespace

absl::StatusOr<SloSet> ParseSlos(const std::vector<std::string>& texts) {
  SloSet set;
  bool goodput = false;
  for (const std::string& text : texts) {
    const size_t sign = text.find_first_of("<>");
    if (sign == std::string::npos || sign + 1 >= text.size() || text[sign + 1] != '=') {
      return InvalidArgumentError("the SLO \"%s\" has no <= or >=", text);
    }
    RunSlo slo;
    slo.text = text;
    slo.metric = std::string(Trim(std::string_view(text).substr(0, sign)));
    slo.at_most = text[sign] == '<';
    const absl::StatusOr<double> limit =
        ParseLimit(slo.metric, Trim(std::string_view(text).substr(sign + 2)));
    if (!limit.ok()) {
      return InvalidArgumentError("the SLO \"%s\": %s", text, limit.status().message());
    }
    slo.limit = *limit;
    std::optional<int64_t>* bound = nullptr;
    if (slo.metric == "ttft") bound = &set.request.ttft_ns;
    if (slo.metric == "tpot") bound = &set.request.tpot_ns;
    if (slo.metric == "e2e") bound = &set.request.e2e_ns;
    if (bound != nullptr) {
      if (!slo.at_most) {
        return InvalidArgumentError("the SLO \"%s\" bounds a request's time from below", text);
      }
      *bound = static_cast<int64_t>(slo.limit);
      continue;
    }
    const size_t dot = slo.metric.find('.');
    const bool known =
        dot != std::string::npos
            ? IsTime(slo.metric) && IsStatistic(std::string_view(slo.metric).substr(dot + 1))
            : IsShare(slo.metric) || Among(slo.metric, {"requests_per_second", "fairness",
                                                        "output_tokens_per_second"});
    if (!known) {
      return InvalidArgumentError(
          "the SLO \"%s\" bounds nothing that is measured; there are ttft, tpot, e2e (each "
          "request), ttft|itl|tpot|e2e|conversation.p50|..|p99.99|mean|max, goodput, errors, "
          "rejected, requests_per_second, output_tokens_per_second and fairness",
          text);
    }
    goodput = goodput || slo.metric == "goodput";
    set.run.push_back(std::move(slo));
  }
  if (set.request.any() && !goodput) {
    RunSlo slo;
    slo.text = "goodput>=99%";
    slo.metric = "goodput";
    slo.at_most = false;
    slo.limit = kDefaultGoodput;
    set.run.push_back(std::move(slo));
  }
  return set;
}

std::vector<SloVerdict> JudgeSlos(
    const SloSet& slos, const std::function<std::optional<double>(std::string_view)>& value_of) {
  std::vector<SloVerdict> verdicts;
  for (const RunSlo& slo : slos.run) {
    SloVerdict verdict;
    verdict.slo = slo;
    if (const std::optional<double> value = value_of(slo.metric); value.has_value()) {
      verdict.known = true;
      verdict.value = *value;
      verdict.met = slo.at_most ? *value <= slo.limit : *value >= slo.limit;
    }
    verdicts.push_back(std::move(verdict));
  }
  return verdicts;
}

std::string FormatMetric(std::string_view metric, double value) {
  if (IsTime(metric)) return FormatNs(value);
  if (IsShare(metric)) return absl::StrFormat("%.2f %%", value * 100);
  if (metric == "fairness") return absl::StrFormat("%.3f", value);
  return FormatCount(value);
}

}  // namespace reticle::loadtest
