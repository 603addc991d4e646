// Everything behind GET /metrics: the metrics of the engines and of the server itself in
// Prometheus' text format. Their names are metric.h's.
#ifndef RETICLE_SERVER_METRICS_METRICS_EXPORTER_H_
#define RETICLE_SERVER_METRICS_METRICS_EXPORTER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "scheduler/engine_probe.h"
#include "server/core/server_probe.h"
#include "server/metrics/buckets.h"
#include "server/metrics/engine_metrics.h"
#include "server/metrics/family_set.h"
#include "server/metrics/histogram.h"
#include "server/metrics/labelled.h"
#include "server/metrics/latency_metrics.h"
#include "server/metrics/request_metrics.h"

namespace reticle::server {

// Thread-safe. The calls of ServerProbe take short locks, once a request and never once a token; a
// scrape holds none of these while it formats.
class MetricsExporter final : public ServerProbe {
 public:
  // `version`: for reticle_build_info.
  explicit MetricsExporter(std::string version, Buckets buckets = Buckets());

  // Adds an engine; the result is its probe and lives as long as this. Its series appear with
  // Publish, when the model behind it is known.
  EngineMetrics& AddEngine();
  // `gauges` and `device` are called at each scrape, so that an idle engine, which takes no steps,
  // shows its present state. They must stay callable until Retire.
  void Publish(EngineMetrics& engine, EngineMetrics::Identity identity,
               std::function<scheduler::EngineGauges()> gauges,
               std::function<DeviceSnapshot()> device);
  // The engine is going; its counts stay visible. Waits for a scrape that runs.
  void Retire(EngineMetrics& engine);
  // Tiers whose series are to be there, at zero, before their first request: rates then see it.
  void ExpectTiers(std::span<const std::string_view> tiers);
  // When the certificate that is served ends, seconds since the Unix epoch.
  void SetCertificateExpiry(int64_t unix_s);

  // Prometheus exposition format 0.0.4. Takes about half a millisecond for 1,000 series, so not on
  // a thread that serves streams.
  std::string Render() const;

  void OnHttpRequest(std::string_view handler, std::string_view method, int status,
                     int64_t duration_ns) override;
  void OnGrpcRequest(std::string_view method, int code, int64_t duration_ns) override;
  void OnRequestAdmitted(std::string_view model) override;
  void OnChoiceFinished(std::string_view model, Outcome outcome) override;
  void OnRequestFinished(const RequestRecord& record) override;
  void OnRequestRefused(std::string_view tier, absl::StatusCode code) override;
  void OnKeyRefused() override;
  void OnQuotaRefused(std::string_view tier, std::string_view limit) override;
  void OnQuotaDegraded(bool degraded) override;
  void OnAccountsStoreFailed(bool failed) override;
  void OnTokensHandedOver(const AddedLatency& added) override;
  void OnTelemetryLost(std::string_view what, uint64_t count) override;
  void OnConnectionsChanged(std::string_view front, int64_t open) override;

 private:
  struct Engine {
    std::unique_ptr<EngineMetrics> metrics;
    std::optional<EngineMetrics::Identity> identity;
    std::function<scheduler::EngineGauges()> gauges;
    std::function<DeviceSnapshot()> device;
  };

  Engine& Find(EngineMetrics& engine) RETICLE_REQUIRES(engines_mutex_);
  void CollectEngines(FamilySet& families) const RETICLE_REQUIRES(engines_mutex_);
  void CollectFronts(FamilySet& families) const;

  const std::string version_;
  const Buckets buckets_;
  const int64_t start_unix_s_;

  mutable Mutex engines_mutex_;  // also keeps scrapes apart
  std::vector<Engine> engines_ RETICLE_GUARDED_BY(engines_mutex_);

  RequestMetrics requests_;
  LatencyMetrics latency_;
  Labelled<Counter> http_requests_;     // by handler, method, status
  Labelled<Histogram> http_durations_;  // by handler, method
  Labelled<Counter> grpc_requests_;     // by method, code
  Labelled<Histogram> grpc_durations_;  // by method
  Labelled<std::atomic<int64_t>> connections_;
  Labelled<Counter> telemetry_lost_;  // by kind
  Counter keys_refused_;
  std::atomic<bool> quota_degraded_{false};
  std::atomic<bool> store_failed_{false};
  std::atomic<int64_t> certificate_expiry_s_{0};  // 0: no TLS
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_METRICS_METRICS_EXPORTER_H_
