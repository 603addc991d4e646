// Tokens per second of the CPU model: decode of 1 and 8 sequences and prefill of 512 tokens, by
// model and threads.
//
//   cpu_benchmark --benchmark_filter=house
//   RETICLE_BENCH_MODEL=model.gguf cpu_benchmark --benchmark_filter=file
//
// The synthetic models are built in memory: house (dim 256, 4 layers, vocabulary 2048), tiny (dim
// 288, 6 layers, vocabulary 32000) and 1b (the shape of Llama 3.2 1B). GB/s counts the packed
// weights read for a token.
#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "backends/kernels/aligned_memory.h"
#include "backends/kernels/forward.h"
#include "backends/kernels/kernels.h"
#include "backends/kernels/model.h"
#include "backends/kernels/thread_pool.h"
#include "base/check.h"
#include "benchmark/benchmark.h"
#include "models/gguf.h"
#include "models/synthetic.h"

namespace reticle::backends::cpu {
namespace {

using models::LlamaConfig;
using models::TensorType;

constexpr uint32_t kContext = 1024;
constexpr uint32_t kPrompt = 512;

LlamaConfig HouseShape() {
  LlamaConfig config = models::SmallWideLlamaConfig();
  config.layers = 4;
  config.vocab_size = 2048;
  config.context_length = kContext;
  return config;
}

LlamaConfig TinyShape() {
  LlamaConfig config = models::SmallWideLlamaConfig();
  config.dim = 288;
  config.layers = 6;
  config.heads = config.kv_heads = 6;
  config.head_dim = 48;
  config.ffn_dim = 768;
  config.vocab_size = 32000;
  config.context_length = kContext;
  return config;
}

LlamaConfig OneBillionShape() {
  LlamaConfig config = models::Llama31Shape8B();
  config.dim = 2048;
  config.layers = 16;
  config.heads = 32;
  config.kv_heads = 8;
  config.head_dim = 64;
  config.ffn_dim = 8192;
  config.tied_embeddings = true;
  config.context_length = kContext;
  return config;
}

// A model with KV for 32 sequences, rebuilt when the threads change.
struct Setup {
  std::vector<std::byte> bytes;
  std::unique_ptr<models::GgufFile> file;
  std::unique_ptr<kernels::ThreadPool> pool;
  std::unique_ptr<kernels::Model> model;
  kernels::KvGeometry kv;
  kernels::AlignedMemory kv_memory;
  std::unique_ptr<kernels::Forward> forward;
  std::vector<std::vector<uint32_t>> tables;
};

template <typename T>
T ValueOf(absl::StatusOr<T> value) {
  RETICLE_CHECK(value.ok());
  return *std::move(value);
}

Setup& Prepare(const std::string& name, const LlamaConfig& config, TensorType type, int threads) {
  static std::string current;
  static Setup setup;
  if (current != name) {
    setup = {};
    current = name;
    if (name == "file") {
      setup.file = ValueOf(models::GgufFile::Open(std::getenv("RETICLE_BENCH_MODEL")));
    } else {
      models::SyntheticLlamaOptions options;
      options.config = config;
      options.matrix_type = type;
      options.with_tokenizer = false;
      options.distinct_rows = 64;
      setup.bytes = ValueOf(models::MakeSyntheticLlama(options));
      setup.file = ValueOf(models::GgufFile::Parse(setup.bytes));
    }
  }
  if (setup.pool == nullptr || setup.pool->threads() != threads) {
    setup.forward = nullptr;
    setup.model = nullptr;
    setup.pool = std::make_unique<kernels::ThreadPool>(threads);
    setup.model = ValueOf(kernels::Model::Load(*setup.file, *setup.pool));
    const LlamaConfig& shape = setup.model->config();
    setup.kv = {.type = kernels::KvType::kF16,
                .layers = shape.layers,
                .kv_heads = shape.kv_heads,
                .head_dim = shape.head_dim,
                .block_tokens = 16};
    constexpr uint32_t kSequences = 32;
    constexpr uint32_t kBlocks = kContext / 16;
    setup.kv_memory =
        ValueOf(kernels::AlignedMemory::Allocate(kSequences * kBlocks * setup.kv.block_bytes()));
    setup.tables.assign(kSequences, std::vector<uint32_t>(kBlocks));
    uint32_t next = 0;
    for (auto& table : setup.tables) {
      for (uint32_t& block : table) block = next++;
    }
    setup.forward = ValueOf(kernels::Forward::Create(
        *setup.model, *setup.pool, setup.kv, setup.kv_memory.data(), {.max_tokens = kPrompt}));
  }
  return setup;
}

void Decode(benchmark::State& state, const std::string& name, const LlamaConfig& config,
            TensorType type, int threads, uint32_t sequences) {
  Setup& setup = Prepare(name, config, type, threads);
  std::vector<kernels::BatchToken> batch(sequences);
  uint32_t position = 0;
  for (auto _ : state) {
    for (uint32_t s = 0; s < sequences; ++s) {
      batch[s] = {(position * 31 + s * 7) % setup.model->config().vocab_size, position % 256,
                  setup.tables[s].data(), true};
    }
    setup.forward->Run(batch);
    ++position;
  }
  state.counters["tok/s"] = benchmark::Counter(static_cast<double>(sequences),
                                               benchmark::Counter::kIsIterationInvariantRate);
  state.counters["GB/s"] =
      benchmark::Counter(static_cast<double>(setup.model->weight_bytes()) / 1e9,
                         benchmark::Counter::kIsIterationInvariantRate);
  state.SetLabel(kernels::KernelTarget());
}

void Prefill(benchmark::State& state, const std::string& name, const LlamaConfig& config,
             TensorType type, int threads) {
  Setup& setup = Prepare(name, config, type, threads);
  std::vector<kernels::BatchToken> batch(kPrompt);
  for (uint32_t t = 0; t < kPrompt; ++t) {
    batch[t] = {t * 31 % setup.model->config().vocab_size, t, setup.tables[0].data(),
                t + 1 == kPrompt};
  }
  for (auto _ : state) setup.forward->Run(batch);
  state.counters["tok/s"] =
      benchmark::Counter(kPrompt, benchmark::Counter::kIsIterationInvariantRate);
  // Multiply-adds of the matrices.
  const LlamaConfig& shape = setup.model->config();
  const double macs =
      static_cast<double>(shape.parameters()) -
      static_cast<double>(shape.vocab_size) * shape.dim * (shape.tied_embeddings ? 1 : 2);
  state.counters["GMAC/s"] =
      benchmark::Counter(macs * kPrompt / 1e9, benchmark::Counter::kIsIterationInvariantRate);
  state.SetLabel(kernels::KernelTarget());
}

void RegisterModel(const std::string& name, const LlamaConfig& config, TensorType type) {
  for (const int threads : {1, 2}) {
    const auto add = [&](const std::string& what, auto function) {
      benchmark::RegisterBenchmark(
          (name + "/" + what + "/threads:" + std::to_string(threads)).c_str(), function)
          ->UseRealTime()
          ->Unit(benchmark::kMillisecond);
    };
    for (const uint32_t sequences : {1u, 8u, 32u}) {
      add("decode" + std::to_string(sequences),
          [=](benchmark::State& state) { Decode(state, name, config, type, threads, sequences); });
    }
    add("prefill512",
        [=](benchmark::State& state) { Prefill(state, name, config, type, threads); });
  }
}

const bool registered = [] {
  for (const TensorType type : {TensorType::kF16, TensorType::kQ8_0, TensorType::kQ4_0}) {
    const std::string suffix = ":" + std::string(models::TensorTypeName(type));
    RegisterModel("house" + suffix, HouseShape(), type);
  }
  RegisterModel("tiny:Q8_0", TinyShape(), TensorType::kQ8_0);
  for (const TensorType type : {TensorType::kQ4_0, TensorType::kQ8_0, TensorType::kQ4_K}) {
    RegisterModel("1b:" + std::string(models::TensorTypeName(type)), OneBillionShape(), type);
  }
  if (std::getenv("RETICLE_BENCH_MODEL") != nullptr) RegisterModel("file", {}, TensorType::kF32);
  return true;
}();

}  // namespace
}  // namespace reticle::backends::cpu
