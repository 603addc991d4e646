// A model's results against those with another number of threads, with matrices large enough that
// part of every product goes to whoever is done first.
#include "backends/kernels/forward.h"

#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "models/synthetic.h"
#include "models/synthetic_lora.h"

namespace reticle::backends::kernels {
namespace {

using models::TensorType;

models::LlamaConfig LargeMatrices() {
  models::LlamaConfig config = models::SmallWideLlamaConfig();
  config.layers = 1;
  config.ffn_dim = 4096;
  config.vocab_size = 9001;  // no whole panel
  return config;
}

// The logits of one token, then of `tokens` in one step, every one of which has the token before it
// in the sequence.
std::vector<std::vector<float>> Logits(const models::GgufFile& file, int threads, size_t tokens,
                                       const Adapter* adapter) {
  ThreadPool pool(threads);
  const auto model = Model::Load(file, pool).value();
  const KvGeometry kv = {.type = KvType::kF32,
                         .layers = model->config().layers,
                         .kv_heads = model->config().kv_heads,
                         .head_dim = model->config().head_dim,
                         .block_tokens = 64};
  const AlignedMemory kv_memory = AlignedMemory::Allocate(kv.block_bytes()).value();
  const auto forward =
      Forward::Create(*model, pool, kv, kv_memory.data(), {.max_tokens = 64, .cached_bytes = 0})
          .value();
  const uint32_t block = 0;
  std::vector<std::vector<float>> logits;
  const auto run = [&](uint32_t first, size_t count) {
    std::vector<BatchToken> batch;
    for (uint32_t i = first; i < first + count; ++i) {
      batch.push_back({i * 97 + 5, i, &block, true, adapter});
    }
    forward->Run(batch);
    for (size_t row = 0; row < count; ++row) {
      logits.emplace_back(forward->logits(row).begin(), forward->logits(row).end());
    }
  };
  run(0, 1);
  run(1, tokens);
  return logits;
}

TEST(ForwardTest, ResultsDoNotDependOnTheNumberOfThreads) {
  models::SyntheticLlamaOptions options;
  options.config = LargeMatrices();
  options.distinct_rows = 64;
  models::SyntheticLoraOptions lora;
  lora.config = options.config;
  const std::vector<std::byte> lora_bytes = models::MakeSyntheticLora(lora).value();
  const auto lora_file = models::GgufFile::Parse(lora_bytes).value();
  for (const TensorType type : {TensorType::kQ8_0, TensorType::kQ4_K}) {
    options.matrix_type = type;
    const std::vector<std::byte> bytes = models::MakeSyntheticLlama(options).value();
    const auto file = models::GgufFile::Parse(bytes).value();
    const auto adapter = Adapter::Load(*lora_file, options.config, 1.0f).value();
    for (const size_t tokens : {4u, 20u}) {
      for (const Adapter* const of :
           std::initializer_list<const Adapter*>{nullptr, adapter.get()}) {
        const auto expected = Logits(*file, 1, tokens, of);
        for (const int threads : {2, 3}) {
          EXPECT_TRUE(Logits(*file, threads, tokens, of) == expected)
              << models::TensorTypeName(type) << ", " << threads << " threads, " << tokens
              << " tokens, adapter " << (of != nullptr);
        }
      }
    }
  }
}

}  // namespace
}  // namespace reticle::backends::kernels
