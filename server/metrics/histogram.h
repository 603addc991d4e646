// A histogram and a counter that cost a relaxed atomic addition: what the token path may afford.
#ifndef RETICLE_SERVER_METRICS_HISTOGRAM_H_
#define RETICLE_SERVER_METRICS_HISTOGRAM_H_

#include <prometheus/metric_family.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

namespace reticle::server {

// Thread-safe.
class Counter {
 public:
  void Add(uint64_t n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

// Cumulative-bucket histogram with fixed bounds. Thread-safe; a reader may see an observation in a
// bucket a moment before it sees it in the sum.
class Histogram {
 public:
  // `bounds`: upper bounds, rising; a last bucket for everything above is added.
  explicit Histogram(std::vector<double> bounds);

  // Adds `count` observations of `value` (NaN is dropped).
  void Observe(double value, uint64_t count = 1);

  // The state as the exposition format wants it.
  prometheus::ClientMetric Collect() const;

 private:
  const std::vector<double> bounds_;
  const std::unique_ptr<std::atomic<uint64_t>[]> buckets_;  // bounds_.size() + 1
  std::atomic<double> sum_{0};
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_METRICS_HISTOGRAM_H_
