// Everything behind GET /metrics: the metrics of the engines and of the server itself in
// Prometheus' text format.
#ifndef RETICLE_SERVER_METRICS_METRICS_EXPORTER_H_
#define RETICLE_SERVER_METRICS_METRICS_EXPORTER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "scheduler/engine_probe.h"
#include "server/core/server_probe.h"
#include "server/metrics/engine_metrics.h"
#include "server/metrics/family_writer.h"
#include "server/metrics/histogram.h"

namespace reticle::server {

// Thread-safe. The calls of ServerProbe take a short lock once a request, never once a token.
class MetricsExporter final : public ServerProbe {
 public:
  // `version`: for reticle_build_info.
  explicit MetricsExporter(std::string version);

  // Adds an engine; the result is its probe and lives as long as this. Its series appear with
  // Publish, when the model behind it is known.
  EngineMetrics& AddEngine();
  // `gauges` and `device` are called at each scrape, so that an idle engine, which takes no steps,
  // shows its present state. They must stay callable until Retire.
  void Publish(EngineMetrics& engine, EngineMetrics::Identity identity,
               std::function<scheduler::EngineGauges()> gauges,
               std::function<DeviceSnapshot()> device);
  // The engine is going; its counts stay visible.
  void Retire(EngineMetrics& engine);

  // Prometheus exposition format 0.0.4.
  std::string Render() const;

  void OnHttpRequest(std::string_view handler, std::string_view method, int status,
                     int64_t duration_ns) override;
  void OnGrpcRequest(std::string_view method, int code, int64_t duration_ns) override;
  void OnChoiceFinished(std::string_view model, Outcome outcome) override;
  void OnRequestAdmitted(std::string_view model) override;
  void OnRequestFinished(const RequestRecord& record) override;
  void OnTelemetryLost(std::string_view what, uint64_t count) override;
  void OnRequestRefused(std::string_view model, int code) override;
  void OnKeyRefused() override;
  void OnQuotaRefused(std::string_view tier, std::string_view limit) override;
  void OnQuotaDegraded(bool degraded) override;
  void OnTokensHandedOver(const AddedLatency& added) override;
  void OnConnectionsChanged(std::string_view front, int64_t open) override;

 private:
  struct Engine {
    std::unique_ptr<EngineMetrics> metrics;
    std::optional<EngineMetrics::Identity> identity;
    std::function<scheduler::EngineGauges()> gauges;
    std::function<DeviceSnapshot()> device;
  };
  // Histograms of one model's requests.
  struct ModelMetrics {
    Histogram params_n{{1, 2, 5, 10, 20}};
    Histogram params_max_tokens{TokenCountBounds()};
    Histogram prompt_tokens{TokenCountBounds()};
    Histogram generation_tokens{TokenCountBounds()};
    Histogram e2e_latency{RequestSecondsBounds()};
    Counter finished[5];
    Counter admitted;
  };
  using HttpKey = std::tuple<std::string, std::string, std::string>;  // handler, method, status

  using Models = std::map<std::string, std::unique_ptr<ModelMetrics>>;

  Engine& Find(EngineMetrics& engine) RETICLE_REQUIRES(mutex_);
  ModelMetrics& ForModel(std::string_view model) RETICLE_REQUIRES(mutex_);
  static void CollectModels(const Models& models, FamilyWriter& out);
  std::vector<prometheus::MetricFamily> CollectServer() const RETICLE_REQUIRES(mutex_);

  // What the server added to each streamed token.
  struct AddedLatencyTotals {
    Counter buckets[AddedLatency::kBuckets];
    Counter total_ns;
    Counter stage_ns[kLatencyStages];
  };
  void CollectAddedLatency(std::vector<prometheus::MetricFamily>& families) const;

  const std::string version_;
  AddedLatencyTotals added_;
  const int64_t start_unix_s_;

  mutable Mutex mutex_;
  std::vector<Engine> engines_ RETICLE_GUARDED_BY(mutex_);
  std::map<HttpKey, uint64_t> http_requests_ RETICLE_GUARDED_BY(mutex_);
  std::map<std::pair<std::string, std::string>, std::unique_ptr<Histogram>> http_durations_
      RETICLE_GUARDED_BY(mutex_);  // by handler, method
  std::map<std::pair<std::string, int>, uint64_t> grpc_requests_ RETICLE_GUARDED_BY(mutex_);
  std::map<std::string, std::unique_ptr<Histogram>> grpc_durations_ RETICLE_GUARDED_BY(mutex_);
  Models models_ RETICLE_GUARDED_BY(mutex_);
  std::map<std::pair<std::string, int>, uint64_t> refused_ RETICLE_GUARDED_BY(mutex_);
  std::map<std::string, uint64_t> telemetry_lost_ RETICLE_GUARDED_BY(mutex_);
  std::map<std::string, int64_t> connections_ RETICLE_GUARDED_BY(mutex_);
  std::atomic<uint64_t> keys_refused_{0};
  std::atomic<bool> quota_degraded_{false};
  std::map<std::pair<std::string, std::string>, uint64_t> quota_refused_
      RETICLE_GUARDED_BY(mutex_);  // by tier, limit
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_METRICS_METRICS_EXPORTER_H_
