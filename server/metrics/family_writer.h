// Builds metric families of prometheus-cpp's data model.
#ifndef RETICLE_SERVER_METRICS_FAMILY_WRITER_H_
#define RETICLE_SERVER_METRICS_FAMILY_WRITER_H_

#include <prometheus/metric_family.h>

#include <utility>
#include <vector>

#include "server/metrics/histogram.h"

namespace reticle::server {

// Appends families, one after the other, whose series all carry the same labels. Not thread-safe.
class FamilyWriter {
 public:
  using ClientMetric = prometheus::ClientMetric;
  using MetricFamily = prometheus::MetricFamily;
  using MetricType = prometheus::MetricType;
  using Labels = std::vector<ClientMetric::Label>;

  FamilyWriter(std::vector<MetricFamily>& families, Labels labels)
      : families_(families), labels_(std::move(labels)) {}

  void Gauge(const char* name, const char* help, double value, const Labels& extra = {}) {
    ClientMetric metric;
    metric.gauge.value = value;
    Add(name, help, MetricType::Gauge, std::move(metric), extra);
  }
  void Count(const char* name, const char* help, double value, const Labels& extra = {}) {
    ClientMetric metric;
    metric.counter.value = value;
    Add(name, help, MetricType::Counter, std::move(metric), extra);
  }
  void Distribution(const char* name, const char* help, const Histogram& histogram,
                    const Labels& extra = {}) {
    Add(name, help, MetricType::Histogram, histogram.Collect(), extra);
  }
  // A gauge with only these labels.
  void Info(const char* name, const char* help, double value, Labels labels) {
    ClientMetric metric;
    metric.gauge.value = value;
    metric.label = std::move(labels);
    Family(name, help, MetricType::Gauge).metric.push_back(std::move(metric));
  }

 private:
  void Add(const char* name, const char* help, MetricType type, ClientMetric metric,
           const Labels& extra) {
    metric.label = labels_;
    metric.label.insert(metric.label.end(), extra.begin(), extra.end());
    Family(name, help, type).metric.push_back(std::move(metric));
  }
  MetricFamily& Family(const char* name, const char* help, MetricType type) {
    if (families_.empty() || families_.back().name != name) {
      MetricFamily family;
      family.name = name;
      family.help = help;
      family.type = type;
      families_.push_back(std::move(family));
    }
    return families_.back();
  }

  std::vector<MetricFamily>& families_;
  const Labels labels_;
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_METRICS_FAMILY_WRITER_H_
