// Builds the metric families of one scrape in prometheus-cpp's data model.
#ifndef RETICLE_SERVER_METRICS_FAMILY_SET_H_
#define RETICLE_SERVER_METRICS_FAMILY_SET_H_

#include <prometheus/metric_family.h>

#include <array>
#include <utility>
#include <vector>

#include "server/metrics/histogram.h"
#include "server/metrics/metric.h"

namespace reticle::server {

using Labels = std::vector<prometheus::ClientMetric::Label>;

// The series of all metrics, each metric's together, as the exposition format wants them. Not
// thread-safe.
class FamilySet {
 public:
  void Add(Metric metric, prometheus::ClientMetric series) {
    series_[static_cast<size_t>(metric)].push_back(std::move(series));
  }
  // In the order of the catalogue, without families that have no series.
  std::vector<prometheus::MetricFamily> Take() {
    std::vector<prometheus::MetricFamily> families;
    for (const MetricInfo& info : MetricCatalogue()) {
      auto& series = series_[static_cast<size_t>(info.id)];
      if (series.empty()) continue;
      prometheus::MetricFamily& family = families.emplace_back();
      family.name = info.name;
      family.help = info.help;
      family.type = info.kind == MetricKind::kGauge     ? prometheus::MetricType::Gauge
                    : info.kind == MetricKind::kCounter ? prometheus::MetricType::Counter
                                                        : prometheus::MetricType::Histogram;
      family.metric = std::move(series);
    }
    return families;
  }

 private:
  std::array<std::vector<prometheus::ClientMetric>, static_cast<size_t>(Metric::kCount)> series_;
};

// Adds series that share their first labels. Not thread-safe.
class SeriesWriter {
 public:
  explicit SeriesWriter(FamilySet& families, Labels labels = {})
      : families_(families), labels_(std::move(labels)) {}

  void Gauge(Metric metric, double value, const Labels& extra = {}) {
    prometheus::ClientMetric series;
    series.gauge.value = value;
    Add(metric, std::move(series), extra);
  }
  void Count(Metric metric, double value, const Labels& extra = {}) {
    prometheus::ClientMetric series;
    series.counter.value = value;
    Add(metric, std::move(series), extra);
  }
  void Distribution(Metric metric, const Histogram& histogram, const Labels& extra = {}) {
    Add(metric, histogram.Collect(), extra);
  }
  void Add(Metric metric, prometheus::ClientMetric series, const Labels& extra = {}) {
    series.label.reserve(labels_.size() + extra.size());
    series.label = labels_;
    series.label.insert(series.label.end(), extra.begin(), extra.end());
    families_.Add(metric, std::move(series));
  }

 private:
  FamilySet& families_;
  const Labels labels_;
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_METRICS_FAMILY_SET_H_
