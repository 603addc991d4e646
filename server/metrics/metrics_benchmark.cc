// What a scrape costs, and what the probes cost the threads that call them.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <memory>
#include <string>

#include "server/metrics/metrics_exporter.h"

namespace reticle::server {
namespace {

std::unique_ptr<MetricsExporter> MakeExporter(int64_t engines) {
  auto exporter = std::make_unique<MetricsExporter>("1.2.3");
  for (int64_t i = 0; i < engines; ++i) {
    EngineMetrics& engine = exporter->AddEngine();
    exporter->Publish(
        engine, {"house", std::to_string(i), 16, "taalas-hc1", std::to_string(i)},
        [] { return scheduler::EngineGauges{.running = 3, .kv_blocks_total = 9}; },
        [] {
          DeviceSnapshot device;
          device.stats.emplace();
          device.stats->power_watts = 180.5;
          return device;
        });
    for (int token = 1; token < 2000; ++token) {
      engine.OnStep(3, 5, {});
      engine.OnInterTokenGaps(token * 1000, 1);
      engine.OnFirstToken(token * 7000);
    }
  }
  for (const char* handler : {"/v1/chat/completions", "/v1/completions", "/v1/models"}) {
    for (const int status : {200, 400, 429, 503}) {
      exporter->OnHttpRequest(handler, "POST", status, 3'000'000);
    }
  }
  return exporter;
}

void Scrape(benchmark::State& state) {
  const std::unique_ptr<MetricsExporter> exporter = MakeExporter(state.range(0));
  std::string text;
  for (auto _ : state) {
    text = exporter->Render();
    benchmark::DoNotOptimize(text.data());
  }
  const auto lines = std::count(text.begin(), text.end(), '\n');
  state.counters["lines"] = static_cast<double>(lines);
  state.counters["us_per_1000_lines"] = benchmark::Counter(
      static_cast<double>(lines) * 1e-9,
      benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}
BENCHMARK(Scrape)->Arg(1)->Arg(2)->Arg(10)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace reticle::server
