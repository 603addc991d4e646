// Reads figures out of the text of GET /metrics.
#ifndef RETICLE_SERVER_BENCH_METRICS_TEXT_H_
#define RETICLE_SERVER_BENCH_METRICS_TEXT_H_

#include <string_view>
#include <utility>
#include <vector>

namespace reticle::server::bench {

// The value of `series`, written as in the text, labels included; 0 when it is not there.
double MetricValue(std::string_view text, std::string_view series);

// What a histogram without labels took up between two texts.
class HistogramDelta {
 public:
  HistogramDelta(std::string_view name, std::string_view before, std::string_view after);
  double count() const { return count_; }
  double sum() const { return sum_; }
  // By linear interpolation within the bucket, as Prometheus does; 0 without observations.
  double Quantile(double q) const;

 private:
  std::vector<std::pair<double, double>> buckets_;  // upper bound, observations up to it
  double count_ = 0;
  double sum_ = 0;
};

}  // namespace reticle::server::bench

#endif  // RETICLE_SERVER_BENCH_METRICS_TEXT_H_
