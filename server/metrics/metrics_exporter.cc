#include "server/metrics/metrics_exporter.h"

#include <prometheus/text_serializer.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <limits>
#include <utility>

#include "base/check.h"
#include "base/clock.h"

namespace reticle::server {
namespace {

using Families = std::vector<prometheus::MetricFamily>;

constexpr Outcome kOutcomes[] = {Outcome::kStop, Outcome::kLength, Outcome::kAbort,
                                 Outcome::kDeadline, Outcome::kError};

double Seconds(int64_t ns) { return static_cast<double>(ns) * 1e-9; }

// Bytes resident, from /proc/self/statm (proc(5)); 0 when it cannot be read.
double ResidentBytes() {
  std::FILE* file = std::fopen("/proc/self/statm", "re");
  if (file == nullptr) return 0;
  unsigned long long total = 0, resident = 0;
  const int fields = std::fscanf(file, "%llu %llu", &total, &resident);
  std::fclose(file);
  return fields == 2 ? static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE))
                     : 0;
}

double CpuSeconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// The exposition format wants all series of a family together; several engines bring the same
// families.
Families Merge(Families families) {
  Families merged;
  std::map<std::string, size_t> index;
  for (prometheus::MetricFamily& family : families) {
    const auto [found, added] = index.emplace(family.name, merged.size());
    if (added) {
      merged.push_back(std::move(family));
    } else {
      std::vector<prometheus::ClientMetric>& into = merged[found->second].metric;
      std::move(family.metric.begin(), family.metric.end(), std::back_inserter(into));
    }
  }
  return merged;
}

template <typename Key>
Histogram& FindOrAdd(std::map<Key, std::unique_ptr<Histogram>>& histograms, const Key& key) {
  std::unique_ptr<Histogram>& histogram = histograms[key];
  if (histogram == nullptr) histogram = std::make_unique<Histogram>(RequestSecondsBounds());
  return *histogram;
}

}  // namespace

MetricsExporter::MetricsExporter(std::string version)
    : version_(std::move(version)), start_unix_s_(UnixSeconds()) {}

EngineMetrics& MetricsExporter::AddEngine() {
  MutexLock lock(mutex_);
  engines_.push_back({std::make_unique<EngineMetrics>(), std::nullopt, nullptr, nullptr});
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
  MutexLock lock(mutex_);
  // So that a model's series are there, at zero, before its first request.
  ForModel(identity.model_name);
  Engine& entry = Find(engine);
  entry.identity = std::move(identity);
  entry.gauges = std::move(gauges);
  entry.device = std::move(device);
}

void MetricsExporter::Retire(EngineMetrics& engine) {
  MutexLock lock(mutex_);
  Engine& entry = Find(engine);
  entry.gauges = nullptr;
  entry.device = nullptr;
}

MetricsExporter::ModelMetrics& MetricsExporter::ForModel(std::string_view model) {
  std::unique_ptr<ModelMetrics>& metrics = models_[std::string(model)];
  if (metrics == nullptr) metrics = std::make_unique<ModelMetrics>();
  return *metrics;
}

void MetricsExporter::OnHttpRequest(std::string_view handler, std::string_view method, int status,
                                    int64_t duration_ns) {
  MutexLock lock(mutex_);
  ++http_requests_[{std::string(handler), std::string(method), std::to_string(status)}];
  FindOrAdd(http_durations_, {std::string(handler), std::string(method)})
      .Observe(Seconds(duration_ns));
}

void MetricsExporter::OnGrpcRequest(std::string_view method, int code, int64_t duration_ns) {
  MutexLock lock(mutex_);
  ++grpc_requests_[{std::string(method), code}];
  FindOrAdd(grpc_durations_, std::string(method)).Observe(Seconds(duration_ns));
}

void MetricsExporter::OnChoiceFinished(std::string_view model, Outcome outcome) {
  MutexLock lock(mutex_);
  ForModel(model).finished[static_cast<size_t>(outcome)].Add();
}

void MetricsExporter::OnRequestFinished(const RequestRecord& record) {
  MutexLock lock(mutex_);
  ModelMetrics& model = ForModel(record.model);
  model.params_n.Observe(record.n);
  model.params_max_tokens.Observe(record.max_tokens);
  model.prompt_tokens.Observe(static_cast<double>(record.prompt_tokens));
  model.generation_tokens.Observe(static_cast<double>(record.output_tokens));
  model.e2e_latency.Observe(Seconds(record.e2e_ns));
}

void MetricsExporter::OnRequestAdmitted(std::string_view model) {
  MutexLock lock(mutex_);
  ForModel(model).admitted.Add();
}

void MetricsExporter::OnTelemetryLost(std::string_view what, uint64_t count) {
  MutexLock lock(mutex_);
  telemetry_lost_[std::string(what)] += count;
}

void MetricsExporter::OnRequestRefused(std::string_view model, int code) {
  MutexLock lock(mutex_);
  ++refused_[{std::string(model), code}];
}

void MetricsExporter::OnTokensHandedOver(const AddedLatency& added) {
  for (size_t i = 0; i < AddedLatency::kBuckets; ++i) {
    if (added.buckets[i] != 0) added_.buckets[i].Add(added.buckets[i]);
  }
  added_.total_ns.Add(static_cast<uint64_t>(added.total_ns));
  for (size_t i = 0; i < kLatencyStages; ++i) {
    added_.stage_ns[i].Add(static_cast<uint64_t>(added.stage_ns[i]));
  }
}

void MetricsExporter::CollectAddedLatency(Families& families) const {
  prometheus::ClientMetric metric;
  uint64_t cumulative = 0;
  for (size_t i = 0; i < AddedLatency::kBuckets; ++i) {
    cumulative += added_.buckets[i].value();
    prometheus::ClientMetric::Bucket bucket;
    bucket.cumulative_count = cumulative;
    bucket.upper_bound = i + 1 < AddedLatency::kBuckets
                             ? static_cast<double>(AddedLatency::UpperBound(i)) * 1e-9
                             : std::numeric_limits<double>::infinity();
    metric.histogram.bucket.push_back(bucket);
  }
  metric.histogram.sample_count = cumulative;
  metric.histogram.sample_sum = static_cast<double>(added_.total_ns.value()) * 1e-9;
  prometheus::MetricFamily family;
  family.name = "reticle_server_added_latency_seconds";
  family.help =
      "Time from the device having a streamed token to its bytes being handed to the socket.";
  family.type = prometheus::MetricType::Histogram;
  family.metric.push_back(std::move(metric));
  families.push_back(std::move(family));
  FamilyWriter out(families, {});
  for (size_t i = 0; i < kLatencyStages; ++i) {
    out.Count("reticle_server_added_latency_stage_seconds_total",
              "The sum of reticle_server_added_latency_seconds by where the time went.",
              static_cast<double>(added_.stage_ns[i].value()) * 1e-9,
              {{"stage", std::string(LatencyStageName(static_cast<LatencyStage>(i)))}});
  }
}

void MetricsExporter::OnConnectionsChanged(std::string_view front, int64_t open) {
  MutexLock lock(mutex_);
  connections_[std::string(front)] = open;
}

void MetricsExporter::CollectModels(const Models& models, FamilyWriter& out) {
  // One family at a time, over all its label values, as the writer wants it.
  const auto each_model = [&models](auto&& write) {
    for (const auto& [name, metrics] : models) {
      write(FamilyWriter::Labels{{"model_name", name}, {"engine", "0"}}, *metrics);
    }
  };
  each_model([&out](FamilyWriter::Labels labels, const ModelMetrics& metrics) {
    for (Outcome outcome : kOutcomes) {
      FamilyWriter::Labels extra = labels;
      extra.push_back({"finished_reason", std::string(OutcomeName(outcome))});
      out.Count("vllm:request_success_total", "Choices ended, by reason.",
                static_cast<double>(metrics.finished[static_cast<size_t>(outcome)].value()), extra);
    }
  });
  each_model([&out](FamilyWriter::Labels labels, const ModelMetrics& metrics) {
    out.Count("reticle_requests_admitted_total", "Requests handed to a device's queue.",
              static_cast<double>(metrics.admitted.value()), labels);
  });
  const auto each_distribution = [&](const char* name, const char* help,
                                     Histogram ModelMetrics::*histogram) {
    each_model([&](FamilyWriter::Labels labels, const ModelMetrics& metrics) {
      out.Distribution(name, help, metrics.*histogram, labels);
    });
  };
  each_distribution("vllm:e2e_request_latency_seconds", "Arrival to the end of a request.",
                    &ModelMetrics::e2e_latency);
  each_distribution("vllm:request_prompt_tokens", "Prompt tokens of a request.",
                    &ModelMetrics::prompt_tokens);
  each_distribution("vllm:request_generation_tokens", "Generated tokens of a request.",
                    &ModelMetrics::generation_tokens);
  each_distribution("vllm:request_params_n", "Choices asked for.", &ModelMetrics::params_n);
  each_distribution("vllm:request_params_max_tokens", "max_tokens asked for.",
                    &ModelMetrics::params_max_tokens);
}

Families MetricsExporter::CollectServer() const {
  Families families;
  FamilyWriter out(families, {});
  CollectModels(models_, out);
  for (const auto& [key, count] : refused_) {
    out.Count("reticle_requests_refused_total",
              "Requests refused before or at admission, by status code (numbered as gRPC's).",
              static_cast<double>(count),
              {{"model_name", key.first}, {"code", std::to_string(key.second)}});
  }
  for (const auto& [key, count] : http_requests_) {
    const auto& [handler, method, status] = key;
    out.Count("http_requests_total", "HTTP requests answered; 499: the client went away.",
              static_cast<double>(count),
              {{"handler", handler}, {"method", method}, {"status", status}});
  }
  for (const auto& [key, duration] : http_durations_) {
    out.Distribution("http_request_duration_seconds", "First byte in to last byte out.", *duration,
                     {{"handler", key.first}, {"method", key.second}});
  }
  for (const auto& [key, count] : grpc_requests_) {
    out.Count("reticle_grpc_requests_total", "gRPC calls ended, by status code.",
              static_cast<double>(count),
              {{"method", key.first}, {"code", std::to_string(key.second)}});
  }
  for (const auto& [method, duration] : grpc_durations_) {
    out.Distribution("reticle_grpc_request_duration_seconds", "Duration of gRPC calls.", *duration,
                     {{"method", method}});
  }
  for (const char* const what : {"log_lines", "spans"}) {
    const auto found = telemetry_lost_.find(what);
    out.Count("reticle_telemetry_dropped_total",
              "Log lines and trace spans that could not be written or sent.",
              found == telemetry_lost_.end() ? 0 : static_cast<double>(found->second),
              {{"kind", what}});
  }
  for (const auto& [front, open] : connections_) {
    out.Gauge("reticle_connections", "Connections open now.", static_cast<double>(open),
              {{"front", front}});
  }
  CollectAddedLatency(families);
  out.Count("reticle_keys_refused_total", "Requests without a key that is good.",
            static_cast<double>(keys_refused_.load(std::memory_order_relaxed)));
  for (const auto& [key, count] : quota_refused_) {
    out.Count("reticle_quota_refused_total", "Requests beyond a limit of their tier.",
              static_cast<double>(count), {{"tier", key.first}, {"limit", key.second}});
  }
  out.Gauge("reticle_quota_degraded", "1: quotas should be shared, but this process counts alone.",
            quota_degraded_.load(std::memory_order_relaxed) ? 1 : 0);
  out.Gauge("reticle_build_info", "The version that runs.", 1, {{"version", version_}});
  out.Count("process_cpu_seconds_total", "CPU time used.", CpuSeconds());
  out.Gauge("process_resident_memory_bytes", "Memory resident.", ResidentBytes());
  out.Gauge("process_start_time_seconds", "Start, since the Unix epoch.",
            static_cast<double>(start_unix_s_));
  return families;
}

void MetricsExporter::OnKeyRefused() { keys_refused_.fetch_add(1, std::memory_order_relaxed); }

void MetricsExporter::OnQuotaRefused(std::string_view tier, std::string_view limit) {
  MutexLock lock(mutex_);
  ++quota_refused_[{std::string(tier), std::string(limit)}];
}

void MetricsExporter::OnQuotaDegraded(bool degraded) {
  quota_degraded_.store(degraded, std::memory_order_relaxed);
}

std::string MetricsExporter::Render() const {
  Families families;
  {
    MutexLock lock(mutex_);
    for (const Engine& engine : engines_) {
      if (!engine.identity.has_value()) continue;
      if (engine.gauges) engine.metrics->SetGauges(engine.gauges());
      engine.metrics->Collect(*engine.identity, engine.device ? engine.device() : DeviceSnapshot(),
                              Clock::Monotonic().NowNanos(), families);
    }
    Families server = CollectServer();
    std::move(server.begin(), server.end(), std::back_inserter(families));
  }
  return prometheus::TextSerializer().Serialize(Merge(std::move(families)));
}

}  // namespace reticle::server
