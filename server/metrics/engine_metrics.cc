#include "server/metrics/engine_metrics.h"

#include <algorithm>
#include <string>

namespace reticle::server {
namespace {

double Seconds(int64_t ns) { return static_cast<double>(ns) * 1e-9; }

}  // namespace

EngineMetrics::EngineMetrics(const Buckets& buckets)
    : time_to_first_token_(buckets.Of(Metric::kTimeToFirstToken)),
      inter_token_latency_(buckets.Of(Metric::kInterTokenLatency)),
      time_per_output_token_(buckets.Of(Metric::kTimePerOutputToken)),
      queue_time_(buckets.Of(Metric::kQueueTime)),
      inference_time_(buckets.Of(Metric::kInferenceTime)),
      prefill_time_(buckets.Of(Metric::kPrefillTime)),
      decode_time_(buckets.Of(Metric::kDecodeTime)),
      iteration_tokens_(buckets.Of(Metric::kIterationTokens)) {}

void EngineMetrics::OnStep(uint32_t prefill_tokens, uint32_t decode_tokens,
                           const scheduler::EngineGauges& gauges) {
  generation_tokens_.Add(decode_tokens);
  if (prefill_tokens + decode_tokens > 0) iteration_tokens_.Observe(prefill_tokens + decode_tokens);
  SetGauges(gauges);
}

void EngineMetrics::SetGauges(const scheduler::EngineGauges& gauges) {
  running_.store(gauges.running, std::memory_order_relaxed);
  waiting_.store(gauges.waiting, std::memory_order_relaxed);
  kv_blocks_total_.store(gauges.kv_blocks_total, std::memory_order_relaxed);
  kv_blocks_used_.store(gauges.kv_blocks_used, std::memory_order_relaxed);
}

void EngineMetrics::OnAdmitted(const scheduler::Request& request, uint32_t prompt_tokens,
                               uint32_t cached_tokens, int64_t queue_ns) {
  if (request.use_prefix_cache) {
    prefix_cache_queries_.Add(prompt_tokens);
    prefix_cache_hits_.Add(cached_tokens);
  }
  prompt_tokens_.Add(prompt_tokens);
  prompt_tokens_cached_.Add(cached_tokens);
}

void EngineMetrics::OnFirstToken(int64_t since_arrival_ns) {
  time_to_first_token_.Observe(Seconds(since_arrival_ns));
}

void EngineMetrics::OnInterTokenGaps(int64_t total_ns, uint32_t count) {
  if (count > 0) inter_token_latency_.Observe(Seconds(total_ns) / count, count);
}

void EngineMetrics::OnPreemption() { preemptions_.Add(); }

void EngineMetrics::OnFinished(const scheduler::Request& request,
                               const scheduler::SequenceEnd& end) {
  device_busy_ns_.Add(end.device_busy_ns);
  energy_nj_.Add(end.energy_nj);
  queue_time_.Observe(Seconds(end.queue_ns));
  inference_time_.Observe(Seconds(end.prefill_ns + end.decode_ns));
  prefill_time_.Observe(Seconds(end.prefill_ns));
  decode_time_.Observe(Seconds(end.decode_ns));
  if (end.output_tokens > 1) {
    time_per_output_token_.Observe(Seconds(end.decode_ns) / (end.output_tokens - 1));
  }
}

void EngineMetrics::OnRejected(const absl::Status& status) {
  if (absl::IsResourceExhausted(status)) {
    rejected_queue_full_.Add();
  } else if (absl::IsUnavailable(status)) {
    rejected_unavailable_.Add();
  } else {
    rejected_invalid_.Add();
  }
}

void EngineMetrics::Collect(const Identity& identity, const DeviceSnapshot& device, int64_t now_ns,
                            FamilySet& families) {
  scheduler::EngineGauges gauges;
  gauges.running = running_.load(std::memory_order_relaxed);
  gauges.waiting = waiting_.load(std::memory_order_relaxed);
  gauges.kv_blocks_total = kv_blocks_total_.load(std::memory_order_relaxed);
  gauges.kv_blocks_used = kv_blocks_used_.load(std::memory_order_relaxed);
  const Labels card = {
      {"device", identity.device}, {"card", identity.card}, {"model_name", identity.model_name}};
  device_.Collect(card, device, gauges, now_ns, families);
  SeriesWriter on_card(families, card);
  on_card.Count(Metric::kDevicePrefixQueries, prefix_cache_queries_.value());
  on_card.Count(Metric::kDevicePrefixHits, prefix_cache_hits_.value());

  SeriesWriter out(families, {{"model_name", identity.model_name}, {"engine", identity.engine}});
  out.Gauge(Metric::kRequestsRunning, gauges.running);
  out.Gauge(Metric::kRequestsWaiting, gauges.waiting);
  out.Gauge(Metric::kRequestsWaitingByReason, gauges.waiting, {{"reason", "capacity"}});
  out.Gauge(Metric::kKvCacheUsage,
            gauges.kv_blocks_total == 0
                ? 0.0
                : static_cast<double>(gauges.kv_blocks_used) / gauges.kv_blocks_total);
  SeriesWriter(families).Gauge(Metric::kCacheConfigInfo, 1,
                               {{"block_size", std::to_string(identity.kv_block_tokens)},
                                {"num_gpu_blocks", std::to_string(gauges.kv_blocks_total)},
                                {"engine", identity.engine}});

  out.Count(Metric::kPrefixCacheQueries, prefix_cache_queries_.value());
  out.Count(Metric::kPrefixCacheHits, prefix_cache_hits_.value());
  out.Count(Metric::kPreemptions, preemptions_.value());
  const uint64_t cached = prompt_tokens_cached_.value();
  const uint64_t prompt = std::max(prompt_tokens_.value(), cached);
  out.Count(Metric::kPromptTokens, prompt);
  out.Count(Metric::kPromptTokensBySource, prompt - cached, {{"source", "local_compute"}});
  out.Count(Metric::kPromptTokensBySource, cached, {{"source", "local_cache_hit"}});
  out.Count(Metric::kPromptTokensCached, cached);
  out.Count(Metric::kGenerationTokens, generation_tokens_.value());
  out.Count(Metric::kEngineRejected, rejected_queue_full_.value(), {{"reason", "queue_full"}});
  out.Count(Metric::kEngineRejected, rejected_unavailable_.value(), {{"reason", "unavailable"}});
  out.Count(Metric::kEngineRejected, rejected_invalid_.value(), {{"reason", "invalid"}});
  out.Count(Metric::kEngineBusy, static_cast<double>(device_busy_ns_.value()) * 1e-9);
  out.Count(Metric::kEngineEnergy, static_cast<double>(energy_nj_.value()) * 1e-9);

  out.Distribution(Metric::kTimeToFirstToken, time_to_first_token_);
  out.Distribution(Metric::kInterTokenLatency, inter_token_latency_);
  out.Distribution(Metric::kTimePerOutputToken, time_per_output_token_);
  out.Distribution(Metric::kQueueTime, queue_time_);
  out.Distribution(Metric::kInferenceTime, inference_time_);
  out.Distribution(Metric::kPrefillTime, prefill_time_);
  out.Distribution(Metric::kDecodeTime, decode_time_);
  out.Distribution(Metric::kIterationTokens, iteration_tokens_);
}

}  // namespace reticle::server
