// What the server added to each streamed token, over all streams and by group of cards.
#ifndef RETICLE_SERVER_METRICS_LATENCY_METRICS_H_
#define RETICLE_SERVER_METRICS_LATENCY_METRICS_H_

#include "server/core/latency_ledger.h"
#include "server/metrics/family_set.h"
#include "server/metrics/histogram.h"
#include "server/metrics/labelled.h"

namespace reticle::server {

// Thread-safe.
class LatencyMetrics {
 public:
  void Add(const AddedLatency& added);
  void Collect(FamilySet& families) const;

 private:
  struct Totals {
    Counter buckets[AddedLatency::kBuckets];
    Counter total_ns;
  };
  static prometheus::ClientMetric Distribution(const Totals& totals, size_t merge);

  Totals all_;
  Counter stage_ns_[kLatencyStages];
  Labelled<Totals> devices_;
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_METRICS_LATENCY_METRICS_H_
