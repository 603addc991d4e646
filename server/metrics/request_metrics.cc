#include "server/metrics/request_metrics.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

namespace reticle::server {
namespace {

constexpr Outcome kOutcomes[] = {Outcome::kStop, Outcome::kLength, Outcome::kAbort,
                                 Outcome::kDeadline, Outcome::kError};

double Seconds(int64_t ns) { return static_cast<double>(ns) * 1e-9; }

std::string_view ReasonOf(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kResourceExhausted:
      return "queue_full";
    case absl::StatusCode::kUnavailable:
      return "unavailable";
    case absl::StatusCode::kInvalidArgument:
      return "invalid";
    case absl::StatusCode::kNotFound:
      return "not_found";
    case absl::StatusCode::kPermissionDenied:
      return "not_allowed";
    case absl::StatusCode::kDeadlineExceeded:
      return "deadline";
    default:
      return "other";
  }
}

}  // namespace

RequestMetrics::Model::Model(const Buckets& buckets)
    : params_n(buckets.Of(Metric::kRequestParamsN)),
      params_max_tokens(buckets.Of(Metric::kRequestParamsMaxTokens)),
      prompt_tokens(buckets.Of(Metric::kRequestPromptTokens)),
      generation_tokens(buckets.Of(Metric::kRequestGenerationTokens)),
      longest_choice(buckets.Of(Metric::kRequestMaxGenerationTokens)),
      e2e_latency(buckets.Of(Metric::kE2eRequestLatency)) {}

RequestMetrics::Tier::Tier(const Buckets& buckets)
    : time_to_first_token(buckets.Of(Metric::kTierTimeToFirstToken)),
      tokens_per_second(buckets.Of(Metric::kTierTokensPerSecond)) {}

RequestMetrics::RequestMetrics(const Buckets& buckets)
    : models_([buckets] { return std::make_unique<Model>(buckets); }),
      tiers_([buckets] { return std::make_unique<Tier>(buckets); }) {}

void RequestMetrics::Expect(std::string_view model) { models_.Of({model}); }

void RequestMetrics::ExpectTier(std::string_view tier) {
  tiers_.Of({tier});
  for (const Outcome outcome : kOutcomes) ended_.Of({tier, OutcomeName(outcome)});
  for (const absl::StatusCode code :
       {absl::StatusCode::kResourceExhausted, absl::StatusCode::kUnavailable,
        absl::StatusCode::kInvalidArgument}) {
    refused_.Of({tier, ReasonOf(code)});
  }
}

void RequestMetrics::OnChoiceFinished(std::string_view model, Outcome outcome) {
  models_.Of({model}).finished[static_cast<size_t>(outcome)].Add();
}

void RequestMetrics::OnFinished(const RequestRecord& record) {
  Model& model = models_.Of({record.model});
  model.params_n.Observe(record.n);
  model.params_max_tokens.Observe(record.max_tokens);
  model.prompt_tokens.Observe(static_cast<double>(record.prompt_tokens));
  model.generation_tokens.Observe(static_cast<double>(record.output_tokens));
  model.longest_choice.Observe(record.longest_choice);
  model.e2e_latency.Observe(Seconds(record.e2e_ns));

  Ended& ended = ended_.Of({record.tier, OutcomeName(record.outcome)});
  ended.requests.Add();
  ended.prompt_tokens.Add(record.prompt_tokens -
                          std::min(record.cached_tokens, record.prompt_tokens));
  ended.cached_tokens.Add(record.cached_tokens);
  ended.output_tokens.Add(record.output_tokens);
  if (record.time_to_first_token_ns == 0) return;
  Tier& tier = tiers_.Of({record.tier});
  tier.time_to_first_token.Observe(Seconds(record.time_to_first_token_ns));
  const int64_t decode_ns = record.e2e_ns - record.time_to_first_token_ns;
  if (record.longest_choice > 1 && decode_ns > 0) {
    tier.tokens_per_second.Observe((record.longest_choice - 1) / Seconds(decode_ns));
  }
}

void RequestMetrics::OnRefused(std::string_view tier, absl::StatusCode code) {
  refused_.Of({tier, ReasonOf(code)}).Add();
}

void RequestMetrics::OnQuotaRefused(std::string_view tier, std::string_view limit) {
  refused_.Of({tier, limit}).Add();
}

void RequestMetrics::Collect(FamilySet& families) const {
  models_.Each([&families](const std::vector<std::string>& key, const Model& model) {
    SeriesWriter out(families, {{"model_name", key[0]}, {"engine", "0"}});
    out.Count(Metric::kRequestsAdmitted, model.admitted.value());
    for (const Outcome outcome : kOutcomes) {
      out.Count(Metric::kRequestSuccess, model.finished[static_cast<size_t>(outcome)].value(),
                {{"finished_reason", std::string(OutcomeName(outcome))}});
    }
    out.Distribution(Metric::kE2eRequestLatency, model.e2e_latency);
    out.Distribution(Metric::kRequestPromptTokens, model.prompt_tokens);
    out.Distribution(Metric::kRequestGenerationTokens, model.generation_tokens);
    out.Distribution(Metric::kRequestMaxGenerationTokens, model.longest_choice);
    out.Distribution(Metric::kRequestParamsN, model.params_n);
    out.Distribution(Metric::kRequestParamsMaxTokens, model.params_max_tokens);
  });
  tiers_.Each([&families](const std::vector<std::string>& key, const Tier& tier) {
    SeriesWriter out(families, {{"tier", key[0]}});
    out.Distribution(Metric::kTierTimeToFirstToken, tier.time_to_first_token);
    out.Distribution(Metric::kTierTokensPerSecond, tier.tokens_per_second);
  });
  ended_.Each([&families](const std::vector<std::string>& key, const Ended& ended) {
    SeriesWriter out(families, {{"tier", key[0]}, {"outcome", key[1]}});
    out.Count(Metric::kTierRequests, ended.requests.value());
    out.Count(Metric::kTierTokens, ended.prompt_tokens.value(), {{"kind", "prompt"}});
    out.Count(Metric::kTierTokens, ended.cached_tokens.value(), {{"kind", "cached"}});
    out.Count(Metric::kTierTokens, ended.output_tokens.value(), {{"kind", "output"}});
  });
  refused_.Each([&families](const std::vector<std::string>& key, const Counter& count) {
    SeriesWriter(families).Count(Metric::kTierRejections, count.value(),
                                 {{"tier", key[0]}, {"reason", key[1]}});
  });
}

}  // namespace reticle::server
