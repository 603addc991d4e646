// What a scrape costs, and what the probes cost the threads that call them.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
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

// What an I/O thread pays to tell of a request, alone and while another thread scrapes all the
// time.
void Probe(benchmark::State& state) {
  const std::unique_ptr<MetricsExporter> exporter = MakeExporter(10);
  std::atomic<bool> stop{state.range(0) == 0};
  std::thread scraper([&] {
    while (!stop.load(std::memory_order_relaxed)) {
      benchmark::DoNotOptimize(exporter->Render().data());
    }
  });
  std::vector<int64_t> took;
  took.reserve(10'000'000);
  for (auto _ : state) {
    const int64_t start_ns = Clock::Monotonic().NowNanos();
    exporter->OnHttpRequest("/v1/chat/completions", "POST", 200, 3'000'000);
    exporter->OnChoiceFinished("house", Outcome::kStop);
    if (took.size() < took.capacity()) took.push_back(Clock::Monotonic().NowNanos() - start_ns);
  }
  stop.store(true);
  scraper.join();
  std::sort(took.begin(), took.end());
  const auto quantile = [&took](double q) {
    return static_cast<double>(took[static_cast<size_t>(q * static_cast<double>(took.size() - 1))]);
  };
  state.counters["p50_ns"] = quantile(0.5);
  state.counters["p99.9_ns"] = quantile(0.999);
}
BENCHMARK(Probe)->ArgName("scraped")->Arg(0)->Arg(1);

}  // namespace
}  // namespace reticle::server
