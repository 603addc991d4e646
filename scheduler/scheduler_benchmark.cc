// What the scheduler itself costs.
//   build/release/bin/scheduler_benchmark
#include <memory>
#include <vector>

#include "benchmark/benchmark.h"
#include "scheduler/block_pool.h"
#include "scheduler/dispatcher.h"
#include "scheduler/engine_test_util.h"
#include "scheduler/policy.h"

namespace reticle::scheduler {
namespace {

// Tokens through engine and streams, with as many streams as arg 0, over a fake device that costs
// next to nothing and may run ahead by arg 1 tokens. The device's own cost is in the figure; the
// time is that of one thread that steps the engine and empties the streams.
void BM_EngineToken(benchmark::State& state) {
  const uint32_t sequences = static_cast<uint32_t>(state.range(0));
  const std::string count = std::to_string(sequences);
  absl::StatusOr<std::unique_ptr<Engine>> made =
      Engine::Create(OpenFake({{"content", "fast"},
                               {"max_sequences", count},
                               {"blocks", std::to_string(sequences * 80)},
                               {"context", "1100"},
                               {"credits", std::to_string(state.range(1))}}),
                     {.max_waiting = sequences}, Clock::Monotonic(), /*probe=*/nullptr);
  RETICLE_CHECK(made.ok());
  Engine& engine = **made;
  struct Slot {
    std::shared_ptr<TokenStream> stream;
  };
  std::vector<Slot> slots(sequences);
  uint32_t salt = 0;
  const auto begin = [&](Slot* slot) {
    slot->stream = std::make_shared<TokenStream>(256, nullptr);
    Request request = MakeRequest(MakePrompt(16, ++salt), 1000);
    request.sampling.temperature = 0;
    request.outputs = {slot->stream};
    RETICLE_CHECK(engine.Submit(std::move(request)).ok());
  };
  for (Slot& slot : slots) begin(&slot);
  std::vector<TokenEvent> events(256);
  int64_t tokens = 0;
  for (auto _ : state) {
    engine.Step();
    for (Slot& slot : slots) {
      tokens += static_cast<int64_t>(slot.stream->Pop(events));
      if (slot.stream->end() != nullptr) begin(&slot);
    }
  }
  state.SetItemsProcessed(tokens);
  state.counters["per_token"] = benchmark::Counter(
      static_cast<double>(tokens), benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(BM_EngineToken)->ArgsProduct({{1, 8, 64, 512}, {1, 64}});

// The same device alone, driven by hand: what to take off the figure above.
void BM_FakeDeviceToken(benchmark::State& state) {
  const uint32_t sequences = static_cast<uint32_t>(state.range(0));
  std::unique_ptr<backends::Device> device = OpenFake({{"content", "fast"},
                                                       {"mode", "slots"},
                                                       {"max_sequences", std::to_string(sequences)},
                                                       {"blocks", "1000000"},
                                                       {"context", "16777216"}});
  std::vector<reticle_work> work(sequences);
  reticle_sampling sampling{};
  sampling.struct_size = sizeof(sampling);
  sampling.top_p = 1;
  sampling.repetition_penalty = 1;
  sampling.prompt_tokens = 1;
  const uint32_t token = 1;
  for (uint32_t i = 0; i < sequences; ++i) {
    work[i].struct_size = sizeof(reticle_work);
    work[i].sequence = i + 1;
    work[i].tokens = &token;
    work[i].token_count = 1;
    work[i].decode_credits = 1;
    work[i].next_token = RETICLE_NO_TOKEN;
    work[i].sampling = &sampling;
  }
  std::vector<reticle_completion> completions(256);
  int64_t tokens = 0;
  absl::Status refusal;
  RETICLE_CHECK(device->Submit(work, &refusal) == sequences);
  for (reticle_work& item : work) {
    item.token_count = 0;
    item.sampling = nullptr;
  }
  for (auto _ : state) {
    while (true) {
      const absl::StatusOr<size_t> count = device->Poll(completions);
      for (size_t i = 0; i < *count; ++i) {
        if (completions[i].kind == RETICLE_COMPLETION_TOKEN) ++tokens;
      }
      if (*count < completions.size()) break;
    }
    device->Submit(work, &refusal);
  }
  state.SetItemsProcessed(tokens);
  state.counters["per_token"] = benchmark::Counter(
      static_cast<double>(tokens), benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(BM_FakeDeviceToken)->Arg(1)->Arg(8)->Arg(64)->Arg(512);

// A whole short request: 32 tokens of prompt, cached, and one token out.
void BM_EngineRequest(benchmark::State& state) {
  absl::StatusOr<std::unique_ptr<Engine>> made =
      Engine::Create(OpenFake({{"content", "fast"}}), {}, Clock::Monotonic(), /*probe=*/nullptr);
  RETICLE_CHECK(made.ok());
  Engine& engine = **made;
  const auto prompt = std::make_shared<const std::vector<TokenId>>(MakePrompt(32));
  std::vector<TokenEvent> events(4);
  for (auto _ : state) {
    Request request;
    request.prompt = prompt;
    request.max_tokens = 1;
    request.sampling.temperature = 0;
    request.outputs = {std::make_shared<TokenStream>(4, nullptr)};
    const std::shared_ptr<TokenStream> stream = request.outputs[0];
    RETICLE_CHECK(engine.Submit(std::move(request)).ok());
    while (stream->end() == nullptr) {
      engine.Step();
      stream->Pop(events);
    }
  }
}
BENCHMARK(BM_EngineRequest);

// Nothing to do: what one turn of a spinning engine thread costs.
void BM_EngineIdleStep(benchmark::State& state) {
  absl::StatusOr<std::unique_ptr<Engine>> made =
      Engine::Create(OpenFake({}), {}, Clock::Monotonic(), /*probe=*/nullptr);
  RETICLE_CHECK(made.ok());
  for (auto _ : state) benchmark::DoNotOptimize((*made)->Step());
}
BENCHMARK(BM_EngineIdleStep);

void BM_StreamPushPop(benchmark::State& state) {
  TokenStream stream(256, nullptr);
  TokenEvent out;
  for (auto _ : state) {
    TokenEvent event;
    event.token = 1;
    stream.Push(std::move(event));
    stream.Flush();
    benchmark::DoNotOptimize(stream.Pop({&out, 1}));
  }
}
BENCHMARK(BM_StreamPushPop);

void BM_Policy(benchmark::State& state) {
  PolicySnapshot snapshot;
  snapshot.limits = {.step_tokens = 2048,
                     .max_running = 1024,
                     .max_chunk = 512,
                     .run_ahead = 1,
                     .unit_tokens = 16,
                     .reserve_units = 100};
  snapshot.free_units = 10'000;
  for (int64_t i = 0; i < state.range(0); ++i) {
    snapshot.running.push_back({.pending = 1,
                                .positions = static_cast<uint32_t>(100 + i),
                                .units = static_cast<uint32_t>((115 + i) / 16),
                                .output_room = 100,
                                .event_room = 100});
  }
  snapshot.waiting.push_back({.tokens = 300, .output_room = 100, .event_room = 100});
  Plan plan;
  for (auto _ : state) {
    MakePlan(snapshot, &plan);
    benchmark::DoNotOptimize(plan.work.data());
  }
  state.counters["per_sequence"] = benchmark::Counter(
      static_cast<double>(state.range(0)),
      benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}
BENCHMARK(BM_Policy)->Arg(1)->Arg(8)->Arg(64)->Arg(512);

// A table of 64 blocks taken, named and given back, over and over: with hits or with evictions.
void BM_BlockPoolTable(benchmark::State& state) {
  const bool hits = state.range(0) != 0;
  BlockPool pool({.block_count = 1024, .block_tokens = 16});
  const Hash128 root = pool.Root(0, 0);
  std::vector<TokenId> tokens = MakePrompt(1024);
  std::vector<Hash128> names;
  for (auto _ : state) {
    if (!hits) ++tokens[0];
    names.clear();
    pool.NamePrefix(root, tokens, 64, &names);
    BlockTable table = pool.NewTable(root);
    const uint32_t found = pool.Acquire(names, &table);
    pool.Extend(&table, 64 - found);
    pool.Publish(&table, tokens, 1024);
  }
  state.SetItemsProcessed(state.iterations() * 64);
}
BENCHMARK(BM_BlockPoolTable)->ArgName("hits")->Arg(0)->Arg(1);

void BM_MatchHint(benchmark::State& state) {
  BlockPool pool({.block_count = 1024, .block_tokens = 16});
  const Hash128 root = pool.Root(0, 0);
  const std::vector<TokenId> tokens = MakePrompt(1024);
  BlockTable table = pool.NewTable(root);
  pool.Extend(&table, 64);
  pool.Publish(&table, tokens, 1024);
  for (auto _ : state) benchmark::DoNotOptimize(pool.MatchHint(root, tokens));
  state.SetItemsProcessed(state.iterations() * 64);
}
BENCHMARK(BM_MatchHint);

}  // namespace
}  // namespace reticle::scheduler
