#include "server/metrics/engine_metrics.h"

#include "base/clock.h"
#include "server/metrics/family_writer.h"

namespace reticle::server {
namespace {

double Seconds(int64_t ns) { return static_cast<double>(ns) * 1e-9; }

}  // namespace

void EngineMetrics::OnStep(uint32_t prefill_tokens, uint32_t decode_tokens,
                           const scheduler::EngineGauges& gauges) {
  prompt_tokens_.Add(prefill_tokens);
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
                            std::vector<prometheus::MetricFamily>& families) {
  device_.Collect({"model_name", identity.model_name}, identity.device, identity.card, device,
                  running_.load(std::memory_order_relaxed), now_ns, families);
  FamilyWriter out(families, {{"model_name", identity.model_name}, {"engine", identity.engine}});
  const double waiting = waiting_.load(std::memory_order_relaxed);
  const uint32_t blocks = kv_blocks_total_.load(std::memory_order_relaxed);
  const uint32_t used = kv_blocks_used_.load(std::memory_order_relaxed);

  out.Gauge("vllm:num_requests_running", "Sequences that run on the device.",
            running_.load(std::memory_order_relaxed));
  out.Gauge("vllm:num_requests_waiting", "Sequences that wait for admission.", waiting);
  out.Gauge("vllm:num_requests_waiting_by_reason", "Sequences that wait, by what they wait for.",
            waiting, {{"reason", "capacity"}});
  out.Gauge("vllm:kv_cache_usage_perc", "Share of KV blocks in use by live sequences, 0 to 1.",
            blocks == 0 ? 0.0 : static_cast<double>(used) / blocks);
  out.Info("vllm:cache_config_info", "KV cache configuration.", 1,
           {{"block_size", std::to_string(identity.kv_block_tokens)},
            {"num_gpu_blocks", std::to_string(blocks)},
            {"engine", identity.engine}});
  out.Info("vllm:lora_requests_info", "Adapters in use; the value is the Unix time.",
           static_cast<double>(UnixSeconds()),
           {{"max_lora", std::to_string(device.max_adapters)},
            {"waiting_lora_adapters", ""},
            {"running_lora_adapters", device.adapters}});

  out.Count("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.",
            prefix_cache_queries_.value());
  out.Count("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache.",
            prefix_cache_hits_.value());
  out.Count("vllm:num_preemptions_total", "Sequences preempted for want of KV blocks.",
            preemptions_.value());
  out.Count("vllm:prompt_tokens_total", "Prompt tokens prefilled.", prompt_tokens_.value());
  out.Count("vllm:prompt_tokens_cached_total", "Prompt tokens taken from the prefix cache.",
            prompt_tokens_cached_.value());
  out.Count("vllm:generation_tokens_total", "Tokens generated.", generation_tokens_.value());
  const char* const rejected = "reticle_requests_rejected_total";
  const char* const rejected_help = "Requests that the scheduler refused, by reason.";
  out.Count(rejected, rejected_help, rejected_queue_full_.value(), {{"reason", "queue_full"}});
  out.Count(rejected, rejected_help, rejected_unavailable_.value(), {{"reason", "unavailable"}});
  out.Count(rejected, rejected_help, rejected_invalid_.value(), {{"reason", "invalid"}});
  out.Count("reticle_device_busy_seconds_total", "Device time spent on sequences that ended.",
            static_cast<double>(device_busy_ns_.value()) * 1e-9);
  out.Count("reticle_energy_joules_total",
            "Energy spent on sequences that ended; 0 when the device does not measure it.",
            static_cast<double>(energy_nj_.value()) * 1e-9);

  out.Distribution("vllm:time_to_first_token_seconds", "Arrival to the first token.",
                   time_to_first_token_);
  out.Distribution("vllm:inter_token_latency_seconds", "Time between tokens of a sequence.",
                   inter_token_latency_);
  out.Distribution("vllm:request_time_per_output_token_seconds",
                   "Mean time per token after the first, by sequence.", time_per_output_token_);
  out.Distribution("vllm:request_queue_time_seconds", "Arrival to admission.", queue_time_);
  out.Distribution("vllm:request_inference_time_seconds", "Admission to the end.", inference_time_);
  out.Distribution("vllm:request_prefill_time_seconds", "Admission to the first token.",
                   prefill_time_);
  out.Distribution("vllm:request_decode_time_seconds", "First to last token.", decode_time_);
  out.Distribution("vllm:iteration_tokens_total", "Tokens fed and generated in one step.",
                   iteration_tokens_);
}

}  // namespace reticle::server
