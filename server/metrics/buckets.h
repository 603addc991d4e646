// The buckets of the histograms, by metric: defaults, and what the operator puts in their place.
#ifndef RETICLE_SERVER_METRICS_BUCKETS_H_
#define RETICLE_SERVER_METRICS_BUCKETS_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/metrics/metric.h"

namespace reticle::server {

class Buckets {
 public:
  // The defaults. Inter-token time begins at 5 us and the time to the first token at 50 us, where
  // vLLM's own bounds see nothing; above, they continue with vLLM's, so that its dashboards keep
  // their resolution.
  Buckets() = default;
  // `overrides`: "NAME=BOUND,BOUND,..." with the metric's name in the exposition and rising bounds
  // in its unit. INVALID_ARGUMENT naming what is wrong.
  static absl::StatusOr<Buckets> Create(const std::vector<std::string>& overrides);

  // Rising upper bounds, without the last, +Inf. Requires Configurable(metric).
  const std::vector<double>& Of(Metric metric) const;
  // Histograms but those of the latency ledger, whose buckets are part of its counting.
  static bool Configurable(Metric metric);
  // "0.001, 0.002, 0.005".
  static std::string ToText(const std::vector<double>& bounds);

 private:
  std::map<Metric, std::vector<double>> overrides_;
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_METRICS_BUCKETS_H_
