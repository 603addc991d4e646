// What one token of the fake device costs its host through the C table: the floor under every
// measurement of the server's overhead.
#include <benchmark/benchmark.h>

#include <vector>

#include "backends/abi/device.h"
#include "backends/fake/fake_device.h"

namespace reticle::backends::fake {
namespace {

// Argument 0: sequences; argument 1: credits of a top-up.
void FastTokens(benchmark::State& state) {
  const auto sequences = static_cast<uint64_t>(state.range(0));
  const auto credits = static_cast<uint32_t>(state.range(1));
  DeviceConfig config;
  config.options = {{"content", "fast"},   {"mode", "slots"},         {"vocab", "128256"},
                    {"credits", "1024"},   {"max_sequences", "1024"}, {"context", "16777216"},
                    {"blocks", "4194304"}, {"block_tokens", "64"}};
  const auto device = *Device::Open(*Driver::FromApi(FakeDeviceApi()), config);
  reticle_sampling params{};
  params.struct_size = sizeof(params);
  params.temperature = 1;
  params.top_p = 1;
  params.repetition_penalty = 1;
  const uint32_t prompt[] = {1, 2, 3};
  absl::Status refusal;
  std::vector<reticle_work> top_ups;
  for (uint64_t id = 1; id <= sequences; ++id) {
    reticle_work work{};
    work.struct_size = sizeof(work);
    work.sequence = id;
    work.tokens = prompt;
    work.token_count = 3;
    work.decode_credits = credits;
    work.sampling = &params;
    device->Submit({&work, 1}, &refusal);
    work.tokens = nullptr;
    work.token_count = 0;
    work.sampling = nullptr;
    top_ups.push_back(work);
  }
  std::vector<reticle_completion> completions(256);
  uint64_t tokens = 0;
  for (auto _ : state) {
    const size_t count = *device->Poll(completions);
    for (size_t i = 0; i < count; ++i) {
      if (completions[i].kind != RETICLE_COMPLETION_TOKEN) continue;
      ++tokens;
      if (completions[i].credits_left == 0) {
        device->Submit({&top_ups[completions[i].sequence - 1], 1}, &refusal);
      }
    }
  }
  if (!refusal.ok()) state.SkipWithError(refusal.ToString().c_str());
  state.SetItemsProcessed(static_cast<int64_t>(tokens));
}
BENCHMARK(FastTokens)->Args({1, 1})->Args({1, 64})->Args({64, 1})->Args({64, 64});

}  // namespace
}  // namespace reticle::backends::fake
