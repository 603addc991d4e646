#include "server/metrics/metrics_exporter.h"

#include <prometheus/text_serializer.h>

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "base/check.h"
#include "base/clock.h"
#include "server/metrics/process_metrics.h"

namespace reticle::server {
namespace {

double Seconds(int64_t ns) { return static_cast<double>(ns) * 1e-9; }

// What clients send may be any word; a label may not.
std::string_view KnownMethod(std::string_view method) {
  for (const std::string_view known :
       {"GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "-"}) {
    if (method == known) return known;
  }
  return "other";
}

// Names that one comma-separated text holds and the other does not.
void AddNames(std::string& all, const std::string& more) {
  for (size_t at = 0; at < more.size();) {
    const size_t end = std::min(more.find(',', at), more.size());
    const std::string name = more.substr(at, end - at);
    if (("," + all + ",").find("," + name + ",") == std::string::npos) {
      if (!all.empty()) all += ',';
      all += name;
    }
    at = end + 1;
  }
}

std::function<std::unique_ptr<Histogram>()> Maker(const Buckets& buckets, Metric metric) {
  return [bounds = buckets.Of(metric)] { return std::make_unique<Histogram>(bounds); };
}

}  // namespace

MetricsExporter::MetricsExporter(std::string version, Buckets buckets)
    : version_(std::move(version)),
      buckets_(std::move(buckets)),
      start_unix_s_(UnixSeconds()),
      requests_(buckets_),
      http_durations_(Maker(buckets_, Metric::kHttpDuration)),
      grpc_durations_(Maker(buckets_, Metric::kGrpcDuration)) {
  for (const std::string_view kind : {"log_lines", "spans"}) telemetry_lost_.Of({kind});
}

EngineMetrics& MetricsExporter::AddEngine() {
  MutexLock lock(engines_mutex_);
  engines_.push_back({std::make_unique<EngineMetrics>(buckets_), std::nullopt, nullptr, nullptr});
  return *engines_.back().metrics;
}

MetricsExporter::Engine& MetricsExporter::Find(EngineMetrics& engine) {
  const auto found = std::find_if(engines_.begin(), engines_.end(), [&engine](const Engine& entry) {
    return entry.metrics.get() == &engine;
  });
  RETICLE_CHECK(found != engines_.end());
  return *found;
}

void MetricsExporter::Publish(EngineMetrics& engine, EngineMetrics::Identity identity,
                              std::function<scheduler::EngineGauges()> gauges,
                              std::function<DeviceSnapshot()> device) {
  requests_.Expect(identity.model_name);
  MutexLock lock(engines_mutex_);
  Engine& entry = Find(engine);
  entry.identity = std::move(identity);
  entry.gauges = std::move(gauges);
  entry.device = std::move(device);
}

void MetricsExporter::Retire(EngineMetrics& engine) {
  MutexLock lock(engines_mutex_);
  Engine& entry = Find(engine);
  entry.gauges = nullptr;
  entry.device = nullptr;
}

void MetricsExporter::ExpectTiers(std::span<const std::string_view> tiers) {
  for (const std::string_view tier : tiers) requests_.ExpectTier(tier);
}

void MetricsExporter::SetCertificateExpiry(int64_t unix_s) {
  certificate_expiry_s_.store(unix_s, std::memory_order_relaxed);
}

void MetricsExporter::OnHttpRequest(std::string_view handler, std::string_view method, int status,
                                    int64_t duration_ns) {
  const std::array<char, 3> code = {static_cast<char>('0' + status / 100 % 10),
                                    static_cast<char>('0' + status / 10 % 10),
                                    static_cast<char>('0' + status % 10)};
  method = KnownMethod(method);
  http_requests_.Of({handler, method, std::string_view(code.data(), code.size())}).Add();
  http_durations_.Of({handler, method}).Observe(Seconds(duration_ns));
}

void MetricsExporter::OnGrpcRequest(std::string_view method, int code, int64_t duration_ns) {
  grpc_requests_.Of({method, std::to_string(code)}).Add();
  grpc_durations_.Of({method}).Observe(Seconds(duration_ns));
}

void MetricsExporter::OnRequestAdmitted(std::string_view model) { requests_.OnAdmitted(model); }

void MetricsExporter::OnTelemetryLost(std::string_view what, uint64_t count) {
  telemetry_lost_.Of({what}).Add(count);
}

void MetricsExporter::OnChoiceFinished(std::string_view model, Outcome outcome) {
  requests_.OnChoiceFinished(model, outcome);
}

void MetricsExporter::OnRequestFinished(const RequestRecord& record) {
  requests_.OnFinished(record);
}

void MetricsExporter::OnRequestRefused(std::string_view tier, absl::StatusCode code) {
  requests_.OnRefused(tier, code);
}

void MetricsExporter::OnQuotaRefused(std::string_view tier, std::string_view limit) {
  requests_.OnQuotaRefused(tier, limit);
}

void MetricsExporter::OnKeyRefused() { keys_refused_.Add(); }

void MetricsExporter::OnQuotaDegraded(bool degraded) {
  quota_degraded_.store(degraded, std::memory_order_relaxed);
}

void MetricsExporter::OnAccountsStoreFailed(bool failed) {
  store_failed_.store(failed, std::memory_order_relaxed);
}

void MetricsExporter::OnTokensHandedOver(const AddedLatency& added) { latency_.Add(added); }

void MetricsExporter::OnConnectionsChanged(std::string_view front, int64_t open) {
  connections_.Of({front}).store(open, std::memory_order_relaxed);
}

void MetricsExporter::CollectEngines(FamilySet& families) const {
  const int64_t now_ns = Clock::Monotonic().NowNanos();
  // Engines of one model share their adapters, and the info has no label for the engine.
  uint32_t max_adapters = 0;
  std::string adapters;
  bool any = false;
  for (const Engine& engine : engines_) {
    if (!engine.identity.has_value()) continue;
    any = true;
    if (engine.gauges) engine.metrics->SetGauges(engine.gauges());
    const DeviceSnapshot device = engine.device ? engine.device() : DeviceSnapshot();
    engine.metrics->Collect(*engine.identity, device, now_ns, families);
    max_adapters = std::max(max_adapters, device.max_adapters);
    AddNames(adapters, device.adapters);
  }
  if (!any) return;
  SeriesWriter(families).Gauge(Metric::kLoraRequestsInfo, static_cast<double>(UnixSeconds()),
                               {{"max_lora", std::to_string(max_adapters)},
                                {"waiting_lora_adapters", ""},
                                {"running_lora_adapters", adapters}});
}

void MetricsExporter::CollectFronts(FamilySet& families) const {
  SeriesWriter out(families);
  std::map<std::vector<std::string>, uint64_t> classes;
  http_requests_.Each([&](const std::vector<std::string>& key, const Counter& count) {
    out.Count(Metric::kHttpResponses, count.value(),
              {{"handler", key[0]}, {"method", key[1]}, {"code", key[2]}});
    classes[{key[0], key[1], key[2].substr(0, 1) + "xx"}] += count.value();
  });
  for (const auto& [key, count] : classes) {
    out.Count(Metric::kHttpRequests, static_cast<double>(count),
              {{"handler", key[0]}, {"method", key[1]}, {"status", key[2]}});
  }
  http_durations_.Each([&](const std::vector<std::string>& key, const Histogram& duration) {
    out.Distribution(Metric::kHttpDuration, duration, {{"handler", key[0]}, {"method", key[1]}});
  });
  grpc_requests_.Each([&](const std::vector<std::string>& key, const Counter& count) {
    out.Count(Metric::kGrpcRequests, count.value(), {{"method", key[0]}, {"code", key[1]}});
  });
  grpc_durations_.Each([&](const std::vector<std::string>& key, const Histogram& duration) {
    out.Distribution(Metric::kGrpcDuration, duration, {{"method", key[0]}});
  });
  connections_.Each([&](const std::vector<std::string>& key, const std::atomic<int64_t>& open) {
    out.Gauge(Metric::kConnections, static_cast<double>(open.load(std::memory_order_relaxed)),
              {{"front", key[0]}});
  });
  telemetry_lost_.Each([&](const std::vector<std::string>& key, const Counter& count) {
    out.Count(Metric::kTelemetryDropped, count.value(), {{"kind", key[0]}});
  });
}

std::string MetricsExporter::Render() const {
  FamilySet families;
  {
    MutexLock lock(engines_mutex_);
    CollectEngines(families);
  }
  requests_.Collect(families);
  CollectFronts(families);
  latency_.Collect(families);
  SeriesWriter out(families);
  out.Count(Metric::kKeysRefused, keys_refused_.value());
  out.Gauge(Metric::kQuotaDegraded, quota_degraded_.load(std::memory_order_relaxed) ? 1 : 0);
  out.Gauge(Metric::kAccountsStoreFailed, store_failed_.load(std::memory_order_relaxed) ? 1 : 0);
  out.Gauge(Metric::kBuildInfo, 1, {{"version", version_}});
  if (const int64_t expiry_s = certificate_expiry_s_.load(std::memory_order_relaxed);
      expiry_s != 0) {
    out.Gauge(Metric::kCertificateExpiry, static_cast<double>(expiry_s));
  }
  CollectProcess(start_unix_s_, families);
  return prometheus::TextSerializer().Serialize(families.Take());
}

}  // namespace reticle::server
