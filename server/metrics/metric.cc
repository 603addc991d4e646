#include "server/metrics/metric.h"

#include <algorithm>
#include <array>

#include "server/metrics/buckets.h"

namespace reticle::server {
namespace {

using enum Metric;
constexpr MetricKind kG = MetricKind::kGauge;
constexpr MetricKind kC = MetricKind::kCounter;
constexpr MetricKind kH = MetricKind::kHistogram;
constexpr char kEngine[] = "model_name,engine";
constexpr char kCard[] = "device,card,model_name";

constexpr std::array<MetricInfo, static_cast<size_t>(kCount)> kCatalogue = {{
    {kRequestsRunning, "vllm:num_requests_running", kG, "requests", kEngine,
     "Sequences that run on the device."},
    {kRequestsWaiting, "vllm:num_requests_waiting", kG, "requests", kEngine,
     "Sequences that wait for admission."},
    {kRequestsWaitingByReason, "vllm:num_requests_waiting_by_reason", kG, "requests",
     "model_name,engine,reason", "Sequences that wait, by what they wait for (capacity)."},
    {kKvCacheUsage, "vllm:kv_cache_usage_perc", kG, "ratio", kEngine,
     "Share of KV blocks in use by live sequences, 0 to 1."},
    {kCacheConfigInfo, "vllm:cache_config_info", kG, "-", "block_size,num_gpu_blocks,engine",
     "KV cache configuration; the value is 1."},
    {kLoraRequestsInfo, "vllm:lora_requests_info", kG, "-",
     "max_lora,waiting_lora_adapters,running_lora_adapters",
     "Adapters that the devices can apply without a swap; the value is the Unix time."},
    {kPrefixCacheQueries, "vllm:prefix_cache_queries_total", kC, "tokens", kEngine,
     "Prompt tokens looked up in the prefix cache."},
    {kPrefixCacheHits, "vllm:prefix_cache_hits_total", kC, "tokens", kEngine,
     "Prompt tokens found in the prefix cache."},
    {kPreemptions, "vllm:num_preemptions_total", kC, "requests", kEngine,
     "Sequences preempted for want of KV blocks."},
    {kPromptTokens, "vllm:prompt_tokens_total", kC, "tokens", kEngine,
     "Prompt tokens of admitted sequences, the cached ones included."},
    {kPromptTokensBySource, "vllm:prompt_tokens_by_source_total", kC, "tokens",
     "model_name,engine,source",
     "The same by where they came from: local_compute or local_cache_hit."},
    {kPromptTokensCached, "vllm:prompt_tokens_cached_total", kC, "tokens", kEngine,
     "Prompt tokens taken from the prefix cache."},
    {kGenerationTokens, "vllm:generation_tokens_total", kC, "tokens", kEngine, "Tokens generated."},
    {kRequestSuccess, "vllm:request_success_total", kC, "requests",
     "model_name,engine,finished_reason",
     "Choices ended, by reason: stop, length, abort, deadline, error."},
    {kTimeToFirstToken, "vllm:time_to_first_token_seconds", kH, "seconds", kEngine,
     "Arrival, before tokenising, to the first token."},
    {kInterTokenLatency, "vllm:inter_token_latency_seconds", kH, "seconds", kEngine,
     "Time between two tokens of a sequence."},
    {kTimePerOutputToken, "vllm:request_time_per_output_token_seconds", kH, "seconds", kEngine,
     "Mean time per token after the first, by sequence."},
    {kE2eRequestLatency, "vllm:e2e_request_latency_seconds", kH, "seconds", kEngine,
     "Arrival to the end of a request."},
    {kQueueTime, "vllm:request_queue_time_seconds", kH, "seconds", kEngine,
     "Arrival to admission."},
    {kInferenceTime, "vllm:request_inference_time_seconds", kH, "seconds", kEngine,
     "Admission to the end."},
    {kPrefillTime, "vllm:request_prefill_time_seconds", kH, "seconds", kEngine,
     "Admission to the first token."},
    {kDecodeTime, "vllm:request_decode_time_seconds", kH, "seconds", kEngine,
     "First to last token."},
    {kRequestPromptTokens, "vllm:request_prompt_tokens", kH, "tokens", kEngine,
     "Prompt tokens of a request."},
    {kRequestGenerationTokens, "vllm:request_generation_tokens", kH, "tokens", kEngine,
     "Generated tokens of a request."},
    {kRequestMaxGenerationTokens, "vllm:request_max_num_generation_tokens", kH, "tokens", kEngine,
     "Generated tokens of a request's longest choice."},
    {kRequestParamsN, "vllm:request_params_n", kH, "choices", kEngine, "Choices asked for."},
    {kRequestParamsMaxTokens, "vllm:request_params_max_tokens", kH, "tokens", kEngine,
     "max_tokens asked for."},
    {kIterationTokens, "vllm:iteration_tokens_total", kH, "tokens", kEngine,
     "Tokens fed and generated in one step of the engine."},
    {kHttpRequests, "http_requests_total", kC, "requests", "handler,method,status",
     "HTTP requests answered, by class of status (2xx ...), as vLLM has it."},
    {kHttpDuration, "http_request_duration_seconds", kH, "seconds", "handler,method",
     "First byte in to last byte out."},

    {kDeviceState, "reticle_device_state", kG, "-", "device,card,model_name,state",
     "1 for the state that the card is in: ready, lost or fenced."},
    {kDeviceHealthy, "reticle_device_healthy", kG, "-", kCard,
     "What the card says of itself: 1 ready, 0.5 degraded, 0 failed."},
    {kDeviceRunning, "reticle_device_requests_running", kG, "requests", kCard,
     "Sequences on the card."},
    {kDeviceWaiting, "reticle_device_requests_waiting", kG, "requests", kCard,
     "Sequences in the card's queue."},
    {kDeviceOccupancy, "reticle_device_occupancy", kG, "ratio", kCard,
     "Sequences on the card per sequence that it serves at full speed."},
    {kDeviceKvUsage, "reticle_device_kv_usage_ratio", kG, "ratio", kCard,
     "Share of the card's KV memory in use by live sequences, 0 to 1."},
    {kDeviceTokensPerSecond, "reticle_device_tokens_per_second", kG, "tokens per second", kCard,
     "Tokens generated a second since the last look that is at least a second old."},
    {kDeviceTokens, "reticle_device_tokens_total", kC, "tokens", "device,card,model_name,kind",
     "Tokens that the card counts: kind prefill (fed) or decode (generated)."},
    {kDeviceTime, "reticle_device_time_seconds_total", kC, "seconds", kCard,
     "The card's own clock."},
    {kDeviceWork, "reticle_device_work_seconds_total", kC, "seconds", kCard, "Card time at work."},
    {kDeviceUtilization, "reticle_device_utilization", kG, "ratio", kCard,
     "Share of the last second or so at work, 0 to 1."},
    {kDevicePower, "reticle_device_power_watts", kG, "watts", kCard,
     "Power now; 0 when not measured."},
    {kDeviceEnergy, "reticle_device_energy_joules_total", kC, "joules", kCard,
     "Energy used; 0 when not measured."},
    {kDeviceTemperature, "reticle_device_temperature_celsius", kG, "degrees Celsius", kCard,
     "Temperature; 0 when not measured."},
    {kDevicePrefixQueries, "reticle_device_prefix_queries_total", kC, "tokens", kCard,
     "Prompt tokens looked up in the card's prefix cache."},
    {kDevicePrefixHits, "reticle_device_prefix_hits_total", kC, "tokens", kCard,
     "Prompt tokens found in the card's prefix cache."},
    {kDeviceAdapterSwaps, "reticle_device_adapter_swaps_total", kC, "swaps", kCard,
     "Changes of the current adapter."},
    {kDeviceLosses, "reticle_device_losses_total", kC, "faults", "device,card,model_name,kind",
     "Faults that lost the card: kind failed (it said so) or hung (the watchdog said so)."},
    {kDeviceErrors, "reticle_device_errors_total", kC, "faults", "device,card,model_name,kind",
     "Faults that the card counted: kind memory_corrected, memory_uncorrected or link."},
    {kDeviceResets, "reticle_device_resets_total", kC, "resets", "device,card,model_name,result",
     "Resets after a loss, by result: ok or failed."},
    {kDeviceFailovers, "reticle_device_failovers_total", kC, "requests", kCard,
     "Sequences that left the card because it was lost, and went on at another."},
    {kEmulationSlowdown, "reticle_emulation_slowdown_ratio", kG, "ratio", kCard,
     "Host time per device time of an emulated card, at least 1; 1 for others."},
    {kDeviceAddedLatency, "reticle_device_added_latency_seconds", kH, "seconds", "device",
     "reticle_server_added_latency_seconds by the group of cards, in coarser buckets."},

    {kRequestsAdmitted, "reticle_requests_admitted_total", kC, "requests", kEngine,
     "Requests handed to a device's queue; each ends once in reticle_tier_requests_total."},
    {kEngineRejected, "reticle_requests_rejected_total", kC, "requests", "model_name,engine,reason",
     "Sequences that one engine would not take (another may have): queue_full, unavailable, "
     "invalid."},
    {kEngineBusy, "reticle_device_busy_seconds_total", kC, "seconds", kEngine,
     "Device time spent on sequences that ended."},
    {kEngineEnergy, "reticle_energy_joules_total", kC, "joules", kEngine,
     "Energy spent on sequences that ended; 0 when the device does not measure it."},

    {kAddedLatency, "reticle_server_added_latency_seconds", kH, "seconds", "",
     "Time from the device having a streamed token to its bytes being handed to the socket."},
    {kAddedLatencyStage, "reticle_server_added_latency_stage_seconds_total", kC, "seconds", "stage",
     "The sum of reticle_server_added_latency_seconds by where the time went: poll, wake, "
     "hand_over, frame, write."},
    {kHttpResponses, "reticle_http_responses_total", kC, "requests", "handler,method,code",
     "HTTP requests answered, by status; 499: the client went away."},
    {kGrpcRequests, "reticle_grpc_requests_total", kC, "requests", "method,code",
     "gRPC calls ended, by status code."},
    {kGrpcDuration, "reticle_grpc_request_duration_seconds", kH, "seconds", "method",
     "Duration of gRPC calls."},
    {kConnections, "reticle_connections", kG, "connections", "front", "Connections open now."},
    {kTelemetryDropped, "reticle_telemetry_dropped_total", kC, "-", "kind",
     "Log lines and trace spans that could not be written or sent: kind log_lines or spans."},

    {kTierRequests, "reticle_tier_requests_total", kC, "requests", "tier,outcome",
     "Admitted requests that ended, by outcome: stop, length, abort, deadline, error."},
    {kTierTokens, "reticle_tier_tokens_total", kC, "tokens", "tier,outcome,kind",
     "Their tokens: kind prompt (not cached), cached or output."},
    {kTierRejections, "reticle_tier_rejections_total", kC, "requests", "tier,reason",
     "Requests refused: by the limit of the tier that stood in the way (requests_per_minute ...), "
     "or "
     "queue_full, unavailable, invalid, not_found, not_allowed, deadline, other."},
    {kTierTimeToFirstToken, "reticle_tier_time_to_first_token_seconds", kH, "seconds", "tier",
     "Arrival to the first token, by tier."},
    {kTierTokensPerSecond, "reticle_tier_tokens_per_second", kH, "tokens per second", "tier",
     "Output tokens a second of a whole request's longest choice, after its first token."},
    {kKeysRefused, "reticle_keys_refused_total", kC, "requests", "",
     "Requests without a key that is good."},
    {kQuotaDegraded, "reticle_quota_degraded", kG, "-", "",
     "1: quotas should be shared, but this process counts alone."},
    {kAccountsStoreFailed, "reticle_accounts_store_failed", kG, "-", "",
     "1: the store of keys and usage does not answer. Known keys stay good, usage waits."},

    {kBuildInfo, "reticle_build_info", kG, "-", "version",
     "The version that runs; the value is 1."},
    {kCertificateExpiry, "reticle_tls_certificate_expiry_timestamp_seconds", kG, "seconds", "",
     "When the TLS certificate chain in use expires, since the Unix epoch; absent without TLS."},
    {kProcessCpu, "process_cpu_seconds_total", kC, "seconds", "", "CPU time used."},
    {kProcessMemory, "process_resident_memory_bytes", kG, "bytes", "", "Memory resident."},
    {kProcessOpenFds, "process_open_fds", kG, "descriptors", "", "File descriptors open."},
    {kProcessMaxFds, "process_max_fds", kG, "descriptors", "",
     "File descriptors that may be open."},
    {kProcessStart, "process_start_time_seconds", kG, "seconds", "",
     "Start, since the Unix epoch."},
}};

constexpr bool InOrder() {
  for (size_t i = 0; i < kCatalogue.size(); ++i) {
    if (static_cast<size_t>(kCatalogue[i].id) != i || kCatalogue[i].name == nullptr) return false;
  }
  return true;
}
static_assert(InOrder());

struct Group {
  Metric first;
  const char* title;
};
constexpr Group kGroups[] = {
    {kRequestsRunning, "Under vLLM's names"},
    {kDeviceState, "Cards"},
    {kRequestsAdmitted, "Engines"},
    {kAddedLatency, "The server"},
    {kTierRequests, "Tiers"},
    {kBuildInfo, "The process"},
};

std::string Code(std::string_view text) { return "`" + std::string(text) + "`"; }

std::string LabelCell(std::string_view labels) {
  std::string cell;
  for (size_t at = 0; at < labels.size();) {
    const size_t end = std::min(labels.find(',', at), labels.size());
    if (!cell.empty()) cell += ", ";
    cell += Code(labels.substr(at, end - at));
    at = end + 1;
  }
  return cell.empty() ? "-" : cell;
}

}  // namespace

std::string_view MetricKindName(MetricKind kind) {
  switch (kind) {
    case MetricKind::kGauge:
      return "gauge";
    case MetricKind::kCounter:
      return "counter";
    case MetricKind::kHistogram:
      return "histogram";
  }
  return "gauge";
}

std::span<const MetricInfo> MetricCatalogue() { return kCatalogue; }

const MetricInfo& InfoOf(Metric metric) { return kCatalogue[static_cast<size_t>(metric)]; }

std::optional<Metric> FindMetric(std::string_view name) {
  for (const MetricInfo& info : kCatalogue) {
    if (name == info.name) return info.id;
  }
  return std::nullopt;
}

std::string CatalogueMarkdown() {
  std::string text;
  const Buckets buckets;
  for (const MetricInfo& info : kCatalogue) {
    for (const Group& group : kGroups) {
      if (group.first != info.id) continue;
      text += "\n## " + std::string(group.title) +
              "\n| name | type | unit | labels | meaning |\n|---|---|---|---|---|\n";
    }
    text += "| " + Code(info.name) + " | " + std::string(MetricKindName(info.kind)) + " | " +
            info.unit + " | " + LabelCell(info.labels) + " | " + info.help + " |\n";
  }
  text +=
      "\n## Buckets\nUpper bounds by default; `--metrics-buckets` replaces those of a metric.\n\n";
  text += "| histogram | bounds |\n|---|---|\n";
  for (const MetricInfo& info : kCatalogue) {
    if (!Buckets::Configurable(info.id)) continue;
    text += "| " + Code(info.name) + " | " + Buckets::ToText(buckets.Of(info.id)) + " |\n";
  }
  return text;
}

}  // namespace reticle::server
