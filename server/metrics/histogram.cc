#include "server/metrics/histogram.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace reticle::server {

Histogram::Histogram(std::vector<double> bounds)
    : bounds_(std::move(bounds)),
      buckets_(std::make_unique<std::atomic<uint64_t>[]>(bounds_.size() + 1)) {}

void Histogram::Observe(double value, uint64_t count) {
  if (std::isnan(value) || count == 0) return;
  const size_t index = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  buckets_[index].fetch_add(count, std::memory_order_relaxed);
  sum_.fetch_add(value * static_cast<double>(count), std::memory_order_relaxed);
}

prometheus::ClientMetric Histogram::Collect() const {
  prometheus::ClientMetric metric;
  metric.histogram.sample_sum = sum_.load(std::memory_order_relaxed);
  uint64_t cumulative = 0;
  metric.histogram.bucket.reserve(bounds_.size() + 1);
  for (size_t i = 0; i <= bounds_.size(); ++i) {
    cumulative += buckets_[i].load(std::memory_order_relaxed);
    prometheus::ClientMetric::Bucket bucket;
    bucket.cumulative_count = cumulative;
    bucket.upper_bound = i < bounds_.size() ? bounds_[i] : std::numeric_limits<double>::infinity();
    metric.histogram.bucket.push_back(bucket);
  }
  metric.histogram.sample_count = cumulative;
  return metric;
}

std::vector<double> InterTokenBounds() {
  return {5e-6,   10e-6, 20e-6, 30e-6, 40e-6, 50e-6, 60e-6, 80e-6, 100e-6, 150e-6, 200e-6, 300e-6,
          500e-6, 1e-3,  2e-3,  5e-3,  0.01,  0.025, 0.05,  0.075, 0.1,    0.15,   0.2,    0.3,
          0.4,    0.5,   0.75,  1,     2.5,   5,     7.5,   10,    20,     40,     80};
}

std::vector<double> FirstTokenBounds() {
  return {50e-6, 100e-6, 200e-6, 300e-6, 500e-6, 750e-6, 0.001, 0.002, 0.003, 0.005, 0.0075,
          0.01,  0.02,   0.04,   0.06,   0.08,   0.1,    0.25,  0.5,   0.75,  1,     2.5,
          5,     7.5,    10,     20,     40,     80,     160,   640,   2560};
}

std::vector<double> RequestSecondsBounds() {
  return {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1,   1.5,  2,   2.5,
          5,     10,    15,    20,   30,   40,   50,  60,  120, 240, 480, 960, 1920, 7680};
}

std::vector<double> TokenCountBounds() {
  return {1,    2,    5,    10,    20,    50,    100,    200,   500,
          1000, 2000, 5000, 10000, 20000, 50000, 100000, 131072};
}

}  // namespace reticle::server
