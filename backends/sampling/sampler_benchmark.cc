// Time of one token over a vocabulary of 128,256, by parameters and shape of the logits.
#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "backends/sampling/sampler.h"

namespace reticle::backends::sampling {
namespace {

constexpr uint32_t kVocab = 128'256;

// Argument 0: spread of the logits (8: peaked as those of a model, 1: flat).
std::vector<float> Logits(const benchmark::State& state) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, static_cast<float>(state.range(0)) / 2);
  std::vector<float> logits(kVocab);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

void Run(benchmark::State& state, void (*change)(reticle_sampling&)) {
  const std::vector<float> logits = Logits(state);
  reticle_sampling params{};
  params.top_p = 1;
  params.repetition_penalty = 1;
  change(params);
  const std::vector<uint32_t> history(1000, 5);
  params.history = history.data();
  params.history_count = 1000;
  SequenceSampling sequence;
  sequence.Set(params);
  Sampler sampler(kVocab);
  uint32_t position = 1000;
  for (auto _ : state) {
    benchmark::DoNotOptimize(sampler.Sample(logits, sequence, position++)->token);
  }
}

void Greedy(benchmark::State& state) {
  Run(state, [](reticle_sampling&) {});
}
void Temperature(benchmark::State& state) {
  Run(state, [](reticle_sampling& p) { p.temperature = 1; });
}
void TopK(benchmark::State& state) {
  Run(state, [](reticle_sampling& p) {
    p.temperature = 1;
    p.top_k = 40;
  });
}
void TopP(benchmark::State& state) {
  Run(state, [](reticle_sampling& p) {
    p.temperature = 1;
    p.top_p = 0.95f;
  });
}
void Penalties(benchmark::State& state) {
  Run(state, [](reticle_sampling& p) { p.frequency_penalty = 0.5f; });
}
void Logprobs(benchmark::State& state) {
  Run(state, [](reticle_sampling& p) { p.logprobs = 21; });
}

BENCHMARK(Greedy)->Arg(8);
BENCHMARK(Temperature)->Arg(8);
BENCHMARK(TopK)->Arg(8)->Arg(1);
BENCHMARK(TopP)->Arg(8)->Arg(1);
BENCHMARK(Penalties)->Arg(8);
BENCHMARK(Logprobs)->Arg(8);

}  // namespace
}  // namespace reticle::backends::sampling
