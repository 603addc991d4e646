// Adapters against the same change merged into the weights by plain arithmetic.
#include "backends/kernels/adapter.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backends/kernels/forward.h"
#include "backends/kernels/targets.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/gguf_writer.h"
#include "models/synthetic.h"
#include "models/synthetic_lora.h"

namespace reticle::backends::kernels {
namespace {

using models::GgufFile;
using models::GgufTensor;
using models::TensorType;

struct Gguf {
  std::vector<std::byte> bytes;
  std::unique_ptr<GgufFile> file;
  explicit Gguf(std::vector<std::byte> content)
      : bytes(std::move(content)), file(GgufFile::Parse(bytes).value()) {}
};

models::LlamaConfig Shape() {
  models::LlamaConfig config = models::SmallLlamaConfig();
  config.vocab_size = 331;  // no whole panel
  return config;
}

Gguf Base(TensorType type) {
  models::SyntheticLlamaOptions options;
  options.config = Shape();
  options.matrix_type = type;
  return Gguf(models::MakeSyntheticLlama(options).value());
}

models::SyntheticLoraOptions LoraOptions(uint64_t seed) {
  models::SyntheticLoraOptions options;
  options.config = Shape();
  options.rank = 5;
  options.seed = seed;
  return options;
}

float At(const GgufTensor& tensor, uint64_t row, uint64_t column) {
  float value;
  std::memcpy(&value, tensor.data.data() + (row * tensor.shape[0] + column) * 4, 4);
  return value;
}

// The F32 model with the adapter's change added to its matrices in double precision.
Gguf Merge(const GgufFile& base, const GgufFile& lora, double scale) {
  models::GgufWriter writer;
  for (const std::string_view key : base.Keys()) writer.AddValue(key, base.Get(key).value());
  const double alpha = lora.GetFloat("adapter.lora.alpha").value();
  std::vector<std::vector<float>> kept;
  kept.reserve(base.tensors().size());
  for (const GgufTensor& tensor : base.tensors()) {
    const std::string name(tensor.name);
    const GgufTensor* a = lora.FindTensor(name + ".lora_a");
    const GgufTensor* b = lora.FindTensor(name + ".lora_b");
    std::vector<float>& merged = kept.emplace_back(tensor.elements());
    for (uint64_t i = 0; i < merged.size(); ++i) {
      const uint64_t row = i / tensor.shape[0];
      const uint64_t column = i % tensor.shape[0];
      double value = At(tensor, row, column);
      for (uint64_t r = 0; a != nullptr && r < a->shape[1]; ++r) {
        value +=
            scale * alpha / static_cast<double>(a->shape[1]) * At(*b, row, r) * At(*a, r, column);
      }
      merged[i] = static_cast<float>(value);
    }
    writer.AddTensor(name, TensorType::kF32, tensor.shape, std::as_bytes(std::span(merged)));
  }
  return Gguf(writer.WriteBytes().value());
}

// A model with KV for some sequences.
class Rig {
 public:
  explicit Rig(const GgufFile& file, int threads = 1) : pool_(threads) {
    model_ = Model::Load(file, pool_).value();
    kv_ = {.type = KvType::kF32,
           .layers = model_->config().layers,
           .kv_heads = model_->config().kv_heads,
           .head_dim = model_->config().head_dim,
           .block_tokens = 64};
    kv_memory_ = AlignedMemory::Allocate(4 * kv_.block_bytes()).value();
    forward_ = Forward::Create(*model_, pool_, kv_, kv_memory_.data(), {.max_tokens = 64}).value();
  }

  // Feeds each token of `tokens` to all sequences, one adapter each; the last logits of each.
  std::vector<std::vector<float>> Run(const std::vector<uint32_t>& tokens,
                                      const std::vector<const Adapter*>& adapters) {
    static constexpr uint32_t kBlocks[] = {0, 1, 2, 3};
    for (uint32_t i = 0; i < tokens.size(); ++i) {
      std::vector<BatchToken> batch;
      for (size_t s = 0; s < adapters.size(); ++s) {
        batch.push_back({tokens[i], i, &kBlocks[s], i + 1 == tokens.size(), adapters[s]});
      }
      forward_->Run(batch);
    }
    std::vector<std::vector<float>> logits;
    for (size_t s = 0; s < adapters.size(); ++s) {
      logits.emplace_back(forward_->logits(s).begin(), forward_->logits(s).end());
    }
    return logits;
  }

 private:
  ThreadPool pool_;
  std::unique_ptr<Model> model_;
  KvGeometry kv_;
  AlignedMemory kv_memory_;
  std::unique_ptr<Forward> forward_;
};

double RelativeError(const std::vector<float>& got, const std::vector<float>& want) {
  double error = 0.0, size = 0.0;
  for (size_t i = 0; i < got.size(); ++i) {
    error += std::pow(double{got[i]} - want[i], 2);
    size += std::pow(double{want[i]}, 2);
  }
  return std::sqrt(error / size);
}

std::vector<uint32_t> SomeTokens(uint32_t count = 24) {
  std::vector<uint32_t> tokens;
  for (uint32_t i = 0; i < count; ++i) tokens.push_back((i * 97 + 5) % Shape().vocab_size);
  return tokens;
}

TEST(AdapterTest, ComputesWhatMergedWeightsCompute) {
  const Gguf base = Base(TensorType::kF32);
  const Gguf lora(models::MakeSyntheticLora(LoraOptions(3)).value());
  constexpr float kScale = 0.7f;
  const auto adapter = Adapter::Load(*lora.file, Shape(), kScale).value();
  const Gguf merged = Merge(*base.file, *lora.file, kScale);
  const std::vector<uint32_t> tokens = SomeTokens();
  for (const Target& target : SupportedTargets()) {
    const ScopedTarget scoped(target);
    const auto plain = Rig(*base.file).Run(tokens, {nullptr})[0];
    const auto got = Rig(*base.file).Run(tokens, {adapter.get()})[0];
    const auto want = Rig(*merged.file).Run(tokens, {nullptr})[0];
    EXPECT_LT(RelativeError(got, want), 1e-5);
    EXPECT_GT(RelativeError(plain, want), 0.3);
  }
}

TEST(AdapterTest, QuantisedWeightsStayAsCloseAsWithoutAdapter) {
  const Gguf base = Base(TensorType::kF32);
  const Gguf quantised = Base(TensorType::kQ8_0);
  const Gguf lora(models::MakeSyntheticLora(LoraOptions(4)).value());
  const auto adapter = Adapter::Load(*lora.file, Shape(), 1.0f).value();
  const Gguf merged = Merge(*base.file, *lora.file, 1.0);
  const auto got = Rig(*quantised.file).Run(SomeTokens(), {adapter.get()})[0];
  const auto want = Rig(*merged.file).Run(SomeTokens(), {nullptr})[0];
  EXPECT_LT(RelativeError(got, want), 0.03);
}

TEST(AdapterTest, SequencesOfOneBatchDoNotTouchEachOther) {
  const auto one =
      Adapter::Load(*Gguf(models::MakeSyntheticLora(LoraOptions(5)).value()).file, Shape(), 1.0f)
          .value();
  models::SyntheticLoraOptions options = LoraOptions(6);
  options.rank = 17;
  options.type = TensorType::kF16;
  options.targets = {"attn_v.weight", "1.ffn_up.weight", "output.weight"};
  const auto two =
      Adapter::Load(*Gguf(models::MakeSyntheticLora(options).value()).file, Shape(), -0.5f).value();
  for (const TensorType type : {TensorType::kF16, TensorType::kQ8_0}) {
    const Gguf base = Base(type);
    const std::vector<const Adapter*> all = {one.get(), nullptr, two.get(), one.get()};
    std::vector<std::vector<float>> alone;
    for (const Adapter* adapter : all) {
      alone.push_back(Rig(*base.file).Run(SomeTokens(6), {adapter})[0]);
    }
    for (const int threads : {1, 2}) {
      EXPECT_EQ(Rig(*base.file, threads).Run(SomeTokens(6), all), alone) << threads;
    }
    EXPECT_NE(alone[0], alone[1]);
    EXPECT_NE(alone[2], alone[1]);
    EXPECT_EQ(alone[0], alone[3]);
  }
}

TEST(AdapterTest, TableKeepsTheRulesOfTheDeviceAbi) {
  const std::string path = testing::TempDir() + "adapter_test.gguf";
  ASSERT_TRUE(models::WriteSyntheticLora(LoraOptions(7), path).ok());
  AdapterTable table;
  EXPECT_EQ(table.Find(0).value(), nullptr);
  EXPECT_EQ(table.Load(0, path, Shape(), 1.0f, 2).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(table.Load(1, path, Shape(), 1.0f, 2).ok());
  EXPECT_EQ(table.Load(1, path, Shape(), 1.0f, 2).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(table.Load(2, path + ".none", Shape(), 1.0f, 2).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(table.Find(2).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(table.Load(2, path, Shape(), std::nanf(""), 2).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(table.Load(2, path, Shape(), 1.0f, 2).ok());
  EXPECT_EQ(table.Load(3, path, Shape(), 1.0f, 2).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(table.Find(1).value(), table.Find(2).value());
  EXPECT_TRUE(table.Unload(1).ok());
  EXPECT_EQ(table.Unload(1).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(table.Find(1).status().code(), absl::StatusCode::kNotFound);
  std::remove(path.c_str());
}

}  // namespace
}  // namespace reticle::backends::kernels
