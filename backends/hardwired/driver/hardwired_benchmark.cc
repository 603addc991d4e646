// What the card costs and how exactly it keeps its time.
//
//   hardwired_benchmark --benchmark_filter=Wall      one and four streams of 10,000 tokens at the
//                                                    taalas-hc1 profile, on the wall clock: the
//                                                    slowest stream of the median run
//   hardwired_benchmark --benchmark_filter=Replay    the host's cost of a replayed token
#include <benchmark/benchmark.h>

#include <chrono>

#include "backends/hardwired/driver/device_test_util.h"

namespace reticle::backends::hardwired {
namespace {

constexpr uint32_t kTokens = 10'000;

std::unique_ptr<TestHost> OpenOrSkip(benchmark::State& state, const OptionList& options) {
  auto device = OpenCard(options);
  if (!device.ok()) {
    state.SkipWithError(std::string(device.status().message()).c_str());
    return nullptr;
  }
  return std::make_unique<TestHost>(*std::move(device), /*records=*/false);
}

// Tokens a second of each stream between its first and last token, as the host saw them come.
void RunWall(benchmark::State& state, OptionList options, uint32_t streams) {
  options.insert(options.end(),
                 {{"limits.context", "20000"}, {"timing.pipeline_depth", std::to_string(streams)}});
  std::vector<double> rates;  // of the slowest stream of each run
  double modelled = 0;
  for (auto _ : state) {
    const auto host = OpenOrSkip(state, options);
    if (host == nullptr) return;
    for (uint64_t id = 1; id <= streams; ++id) {
      if (!host->Begin(id, 8, kTokens + 1).ok()) state.SkipWithError("a stream is refused");
    }
    using Clock = std::chrono::steady_clock;
    std::vector<Clock::time_point> first(streams + 1), last(streams + 1);
    std::vector<uint32_t> before(streams + 1, 0);
    while (!host->AllEnded() && host->loss().ok()) {
      if (host->Poll() == 0) continue;
      const Clock::time_point now = Clock::now();
      for (uint64_t id = 1; id <= streams; ++id) {
        const uint32_t received = host->stream(id).received;
        if (received == before[id]) continue;
        if (before[id] == 0) first[id] = now;
        last[id] = now;
        before[id] = received;
      }
    }
    double slowest = 1e12;
    for (uint64_t id = 1; id <= streams; ++id) {
      const double seconds = std::chrono::duration<double>(last[id] - first[id]).count();
      slowest = std::min(slowest, kTokens / seconds);
      const TestHost::Stream& stream = host->stream(id);
      modelled = kTokens * 1e9 / static_cast<double>(stream.last_ns - stream.first_ns);
    }
    rates.push_back(slowest);
  }
  std::sort(rates.begin(), rates.end());
  const double median = rates[rates.size() / 2];
  state.counters["tok_per_s"] = median;
  state.counters["off_by_percent"] = (median / 16960 - 1) * 100;
  state.counters["modelled"] = modelled;
}

void BM_WallReplay(benchmark::State& state) {
  RunWall(state, {{"content", "replay"}}, static_cast<uint32_t>(state.range(0)));
}
BENCHMARK(BM_WallReplay)
    ->Arg(1)
    ->Arg(4)
    ->Iterations(5)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

void BM_WallThread(benchmark::State& state) {
  RunWall(state, {{"content", "replay"}, {"card", "thread"}},
          static_cast<uint32_t>(state.range(0)));
}
BENCHMARK(BM_WallThread)
    ->Arg(1)
    ->Arg(4)
    ->Iterations(5)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

// One token of one stream: poll, driver, rings and firmware.
void BM_ReplayToken(benchmark::State& state) {
  const auto host = OpenOrSkip(
      state, {{"content", "replay"}, {"clock", "virtual"}, {"limits.context", "1000000"}});
  if (host == nullptr) return;
  uint64_t id = 0;
  uint64_t tokens = 0;
  for (auto _ : state) {
    if (host->AllEnded() && !host->Begin(++id, 8, 900'000).ok()) break;
    tokens += host->Poll();
  }
  state.SetItemsProcessed(static_cast<int64_t>(tokens));
}
BENCHMARK(BM_ReplayToken);

// A poll that finds nothing, as a spinning host does between two tokens.
void BM_EmptyPoll(benchmark::State& state) {
  const auto host = OpenOrSkip(state, {{"content", "replay"}, {"timing.decode_rate", "0.001"}});
  if (host == nullptr || !host->Begin(1, 8, 100).ok()) return;
  for (auto _ : state) benchmark::DoNotOptimize(host->Poll());
}
BENCHMARK(BM_EmptyPoll);

}  // namespace
}  // namespace reticle::backends::hardwired
