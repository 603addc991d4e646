// Every metric that the server exports: the registry behind /metrics and docs/metrics.md.
#ifndef RETICLE_SERVER_METRICS_METRIC_H_
#define RETICLE_SERVER_METRICS_METRIC_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace reticle::server {

enum class Metric : uint8_t {
  // Under vLLM's names.
  kRequestsRunning,
  kRequestsWaiting,
  kRequestsWaitingByReason,
  kKvCacheUsage,
  kCacheConfigInfo,
  kLoraRequestsInfo,
  kPrefixCacheQueries,
  kPrefixCacheHits,
  kPreemptions,
  kPromptTokens,
  kPromptTokensBySource,
  kPromptTokensCached,
  kGenerationTokens,
  kRequestSuccess,
  kTimeToFirstToken,
  kInterTokenLatency,
  kTimePerOutputToken,
  kE2eRequestLatency,
  kQueueTime,
  kInferenceTime,
  kPrefillTime,
  kDecodeTime,
  kRequestPromptTokens,
  kRequestGenerationTokens,
  kRequestMaxGenerationTokens,
  kRequestParamsN,
  kRequestParamsMaxTokens,
  kIterationTokens,
  kHttpRequests,
  kHttpDuration,
  // Of each card.
  kDeviceState,
  kDeviceHealthy,
  kDeviceRunning,
  kDeviceWaiting,
  kDeviceOccupancy,
  kDeviceKvUsage,
  kDeviceTokensPerSecond,
  kDeviceTokens,
  kDeviceTime,
  kDeviceWork,
  kDeviceUtilization,
  kDevicePower,
  kDeviceEnergy,
  kDeviceTemperature,
  kDevicePrefixQueries,
  kDevicePrefixHits,
  kDeviceAdapterSwaps,
  kDeviceLosses,
  kDeviceErrors,
  kDeviceResets,
  kDeviceFailovers,
  kEmulationSlowdown,
  kDeviceAddedLatency,
  // Of each engine, beyond vLLM's.
  kRequestsAdmitted,
  kEngineRejected,
  kEngineBusy,
  kEngineEnergy,
  // Of the server.
  kAddedLatency,
  kAddedLatencyStage,
  kHttpResponses,
  kGrpcRequests,
  kGrpcDuration,
  kConnections,
  kTelemetryDropped,
  // By tier.
  kTierRequests,
  kTierTokens,
  kTierRejections,
  kTierTimeToFirstToken,
  kTierTokensPerSecond,
  kKeysRefused,
  kQuotaDegraded,
  kAccountsStoreFailed,
  // Of the process.
  kBuildInfo,
  kCertificateExpiry,
  kProcessCpu,
  kProcessMemory,
  kProcessOpenFds,
  kProcessMaxFds,
  kProcessStart,
  kCount,
};

enum class MetricKind : uint8_t { kGauge, kCounter, kHistogram };
// "gauge", "counter", "histogram".
std::string_view MetricKindName(MetricKind kind);

struct MetricInfo {
  Metric id;
  const char* name;
  MetricKind kind;
  const char* unit;    // what a value counts: "seconds", "tokens", "ratio", ...; of an info "-"
  const char* labels;  // names in their order, with commas between; without "le"
  const char* help;    // one line
};

// In the order of Metric.
std::span<const MetricInfo> MetricCatalogue();
const MetricInfo& InfoOf(Metric metric);
// By its name in the exposition.
std::optional<Metric> FindMetric(std::string_view name);

// The body of docs/metrics.md: a table for each group of metrics.
std::string CatalogueMarkdown();

}  // namespace reticle::server

#endif  // RETICLE_SERVER_METRICS_METRIC_H_
