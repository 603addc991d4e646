#include "server/metrics/latency_metrics.h"

#include <limits>
#include <string>
#include <vector>

namespace reticle::server {
namespace {

constexpr double kNs = 1e-9;

}  // namespace

void LatencyMetrics::Add(const AddedLatency& added) {
  Totals& device = devices_.Of({added.device});
  for (size_t i = 0; i < AddedLatency::kBuckets; ++i) {
    if (added.buckets[i] == 0) continue;
    all_.buckets[i].Add(added.buckets[i]);
    device.buckets[i].Add(added.buckets[i]);
  }
  all_.total_ns.Add(static_cast<uint64_t>(added.total_ns));
  device.total_ns.Add(static_cast<uint64_t>(added.total_ns));
  for (size_t i = 0; i < kLatencyStages; ++i) {
    stage_ns_[i].Add(static_cast<uint64_t>(added.stage_ns[i]));
  }
}

// `merge`: so many buckets within a doubling become one; 1 or 4.
prometheus::ClientMetric LatencyMetrics::Distribution(const Totals& totals, size_t merge) {
  prometheus::ClientMetric metric;
  uint64_t cumulative = 0;
  for (size_t i = 0; i < AddedLatency::kBuckets; ++i) {
    cumulative += totals.buckets[i].value();
    const bool last = i + 1 == AddedLatency::kBuckets;
    if (!last && i % merge != 0) continue;
    prometheus::ClientMetric::Bucket bucket;
    bucket.cumulative_count = cumulative;
    bucket.upper_bound = last ? std::numeric_limits<double>::infinity()
                              : static_cast<double>(AddedLatency::UpperBound(i)) / 1e9;
    metric.histogram.bucket.push_back(bucket);
  }
  metric.histogram.sample_count = cumulative;
  metric.histogram.sample_sum = static_cast<double>(totals.total_ns.value()) * kNs;
  return metric;
}

void LatencyMetrics::Collect(FamilySet& families) const {
  SeriesWriter out(families);
  out.Add(Metric::kAddedLatency, Distribution(all_, 1));
  for (size_t i = 0; i < kLatencyStages; ++i) {
    out.Count(Metric::kAddedLatencyStage, static_cast<double>(stage_ns_[i].value()) * kNs,
              {{"stage", std::string(LatencyStageName(static_cast<LatencyStage>(i)))}});
  }
  devices_.Each([&out](const std::vector<std::string>& key, const Totals& totals) {
    out.Add(Metric::kDeviceAddedLatency, Distribution(totals, 4), {{"device", key[0]}});
  });
}

}  // namespace reticle::server
