// The metrics of requests: by model under vLLM's names, by tier under ours.
#ifndef RETICLE_SERVER_METRICS_REQUEST_METRICS_H_
#define RETICLE_SERVER_METRICS_REQUEST_METRICS_H_

#include <string_view>

#include "absl/status/status.h"
#include "server/core/server_probe.h"
#include "server/metrics/buckets.h"
#include "server/metrics/family_set.h"
#include "server/metrics/histogram.h"
#include "server/metrics/labelled.h"

namespace reticle::server {

// Thread-safe; a call takes a few short locks.
class RequestMetrics {
 public:
  explicit RequestMetrics(const Buckets& buckets);

  // So that a model's series are there, at zero, before its first request.
  void Expect(std::string_view model);
  void ExpectTier(std::string_view tier);
  void OnAdmitted(std::string_view model) { models_.Of({model}).admitted.Add(); }
  void OnChoiceFinished(std::string_view model, Outcome outcome);
  void OnFinished(const RequestRecord& record);
  void OnRefused(std::string_view tier, absl::StatusCode code);
  // `limit`: the limit of the tier that stood in the way.
  void OnQuotaRefused(std::string_view tier, std::string_view limit);

  void Collect(FamilySet& families) const;

 private:
  struct Model {
    explicit Model(const Buckets& buckets);
    Histogram params_n;
    Histogram params_max_tokens;
    Histogram prompt_tokens;
    Histogram generation_tokens;
    Histogram longest_choice;
    Histogram e2e_latency;
    Counter admitted;
    Counter finished[5];
  };
  struct Tier {
    explicit Tier(const Buckets& buckets);
    Histogram time_to_first_token;
    Histogram tokens_per_second;
  };
  struct Ended {
    Counter requests;
    Counter prompt_tokens;
    Counter cached_tokens;
    Counter output_tokens;
  };

  Labelled<Model> models_;
  Labelled<Tier> tiers_;
  Labelled<Ended> ended_;      // by tier, outcome
  Labelled<Counter> refused_;  // by tier, reason
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_METRICS_REQUEST_METRICS_H_
