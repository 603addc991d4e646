#include "server/bench/metrics_text.h"

#include <cstdlib>
#include <limits>
#include <string>

namespace reticle::server::bench {
namespace {

double ParseNumber(std::string_view text) {
  if (text.starts_with("+Inf")) return std::numeric_limits<double>::infinity();
  return std::strtod(std::string(text.substr(0, 40)).c_str(), nullptr);
}

}  // namespace

double MetricValue(std::string_view text, std::string_view series) {
  const std::string start = std::string(series) + " ";
  size_t at = text.starts_with(start) ? 0 : text.find("\n" + start);
  if (at == std::string_view::npos) return 0;
  if (text[at] == '\n') ++at;
  return ParseNumber(text.substr(at + start.size()));
}

HistogramDelta::HistogramDelta(std::string_view name, std::string_view before,
                               std::string_view after) {
  const std::string base(name);
  count_ = MetricValue(after, base + "_count") - MetricValue(before, base + "_count");
  sum_ = MetricValue(after, base + "_sum") - MetricValue(before, base + "_sum");
  const std::string head = base + "_bucket{le=\"";
  for (size_t at = after.find(head); at != std::string_view::npos; at = after.find(head, at + 1)) {
    const std::string_view rest = after.substr(at + head.size());
    const std::string_view bound = rest.substr(0, rest.find('"'));
    const std::string series = head + std::string(bound) + "\"}";
    buckets_.emplace_back(ParseNumber(bound),
                          MetricValue(after, series) - MetricValue(before, series));
  }
}

double HistogramDelta::Quantile(double q) const {
  const double rank = q * count_;
  double low = 0;
  double below = 0;
  for (const auto& [bound, up_to] : buckets_) {
    if (up_to >= rank && up_to > below) {
      if (bound == std::numeric_limits<double>::infinity()) return low;
      return low + (bound - low) * (rank - below) / (up_to - below);
    }
    low = bound;
    below = up_to;
  }
  return low;
}

}  // namespace reticle::server::bench
