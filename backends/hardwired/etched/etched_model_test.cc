// Etched models against the forward pass that the CPU backend computes on the same weights, and
// their specialised kernels against the generic ones: always the same bits.
#include "backends/hardwired/etched/etched_model.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "backends/hardwired/etched/decode.h"
#include "backends/hardwired/rom/model_run.h"
#include "backends/hardwired/rom/rom_file.h"
#include "backends/hardwired/rom/tapeout.h"
#include "backends/kernels/adapter.h"
#include "backends/kernels/targets.h"
#include "base/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/gguf_writer.h"
#include "models/half.h"
#include "models/quantization.h"
#include "models/synthetic.h"
#include "models/synthetic_lora.h"

namespace reticle::backends::hardwired {
namespace {

using models::LlamaConfig;
using models::TensorType;
using Types = TapeoutOptions::Types;

LlamaConfig HouseShape() {
  LlamaConfig config = models::SmallWideLlamaConfig();
  config.layers = 2;
  config.context_length = 160;
  return config;
}

// A shape that has no kernels of its own, with rows of no whole panel and a head of 32.
LlamaConfig OddShape() {
  LlamaConfig config = models::SmallLlamaConfig();
  config.dim = 96;
  config.heads = 3;
  config.kv_heads = 1;
  config.head_dim = 32;
  config.ffn_dim = 160;
  config.vocab_size = 331;
  config.context_length = 160;
  return config;
}

std::vector<uint32_t> Tokens(uint32_t count, uint32_t vocab, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<uint32_t> tokens(count);
  for (uint32_t& token : tokens) token = random() % vocab;
  return tokens;
}

// A synthetic model, its GGUF file in memory and an image of it.
class Etching {
 public:
  Etching(const LlamaConfig& config, TensorType type, Types types, bool tied) {
    models::SyntheticLlamaOptions options;
    options.config = config;
    options.config.tied_embeddings = tied;
    options.matrix_type = type;
    bytes_ = models::MakeSyntheticLlama(options).value();
    file_ = models::GgufFile::Parse(bytes_).value();
    path_ = testing::TempDir() + "etched_model_test." + std::to_string(getpid()) + ".rom";
    TapeoutOptions tapeout;
    tapeout.types = types;
    tapeout.bits_per_weight = 5.0;
    TokenText text{Tokens(40, config.vocab_size, 3), std::vector<bool>(40, true)};
    tapeout.calibration.push_back(text);
    const auto report = TapeOut(*file_, path_, tapeout);
    EXPECT_TRUE(report.ok()) << report.status();
  }
  ~Etching() { std::remove(path_.c_str()); }

  const models::GgufFile& file() const { return *file_; }
  const std::string& path() const { return path_; }

  std::unique_ptr<Compute> Open(EtchedOptions options = {}) const {
    auto model = OpenEtchedModel(path_, options);
    EXPECT_TRUE(model.ok()) << model.status();
    return *std::move(model);
  }

 private:
  std::vector<std::byte> bytes_;
  std::unique_ptr<models::GgufFile> file_;
  std::string path_;
};

std::vector<float> FeedAll(Compute& model, uint32_t slot, const std::vector<uint32_t>& tokens,
                           size_t chunk) {
  std::vector<float> logits(model.vocab_size());
  for (size_t first = 0; first < tokens.size(); first += chunk) {
    const size_t count = std::min(chunk, tokens.size() - first);
    const bool last = first + count == tokens.size();
    model.Feed(slot, static_cast<uint32_t>(first), std::span(tokens).subspan(first, count), 0,
               last ? std::span<float>(logits) : std::span<float>());
  }
  return logits;
}

TEST(EtchedModelTest, EightBitImagesOfQ8ModelsGiveTheBitsOfTheCpuBackend) {
  for (const LlamaConfig& config : {HouseShape(), OddShape()}) {
    for (const bool tied : {false, true}) {
      const Etching etching(config, TensorType::kQ8_0, Types::k8, tied);
      const std::vector<uint32_t> tokens = Tokens(70, config.vocab_size, 4);
      for (const kernels::Target& target : kernels::SupportedTargets()) {
        if (!target.fused) continue;  // slow; kernels_test covers them
        const kernels::ScopedTarget scoped(target);
        kernels::ThreadPool pool(1);
        const auto model = kernels::Model::Load(etching.file(), pool).value();
        const auto run = ModelRun::Create(*model, pool, tokens.size()).value();
        const auto etched = etching.Open();
        std::vector<float> logits(config.vocab_size);
        for (size_t i = 0; i < tokens.size(); ++i) {
          run->Feed(tokens, i, 1);
          etched->Feed(0, static_cast<uint32_t>(i), std::span(tokens).subspan(i, 1), 0, logits);
          ASSERT_THAT(logits, testing::ElementsAreArray(run->logits(0))) << i;
        }
      }
    }
  }
}

TEST(EtchedModelTest, SpecialisedKernelsGiveTheBitsOfTheGenericOnes) {
  const LlamaConfig config = HouseShape();
  for (const Types types : {Types::k3And6, Types::k8}) {
    const Etching etching(config, TensorType::kF16, types, types == Types::k8);
    const std::vector<uint32_t> tokens = Tokens(70, config.vocab_size, 5);
    for (const kernels::Target& target : kernels::SupportedTargets()) {
      const kernels::ScopedTarget scoped(target);
      if (FindShape(config) == EtchedShape::kNone) continue;  // no vectors worth it
      for (const EtchedKvType kv : {EtchedKvType::kF16, EtchedKvType::kInt8}) {
        const auto fast = etching.Open({.kv_type = kv});
        const auto generic = etching.Open({.kv_type = kv, .generic_kernels = true});
        std::vector<float> a(config.vocab_size), b(config.vocab_size);
        for (uint32_t i = 0; i < tokens.size(); ++i) {
          fast->Feed(0, i, std::span(tokens).subspan(i, 1), 0, a);
          generic->Feed(0, i, std::span(tokens).subspan(i, 1), 0, b);
          ASSERT_EQ(a, b) << TypesName(types) << " position " << i;
        }
      }
    }
  }
}

TEST(EtchedModelTest, ResultsDependOnNeitherChunksNorSlotsNorThreads) {
  for (const LlamaConfig& config : {HouseShape(), OddShape()}) {
    const Etching etching(config, TensorType::kF32, Types::k3And6, false);
    const std::vector<uint32_t> tokens = Tokens(150, config.vocab_size, 6);
    const std::vector<float> want = FeedAll(*etching.Open(), 0, tokens, 1);
    for (const size_t chunk : {2u, 15u, 64u, 65u}) {
      ASSERT_EQ(FeedAll(*etching.Open(), 0, tokens, chunk), want) << chunk;
    }
    EXPECT_EQ(FeedAll(*etching.Open({.threads = 2}), 0, tokens, 150), want);
    // Others in between, in slots on both sides, and what the slot held before.
    const auto shared = etching.Open({.slots = 3, .context_limit = 151});
    FeedAll(*shared, 1, Tokens(151, config.vocab_size, 7), 64);
    std::vector<float> logits(config.vocab_size);
    for (uint32_t i = 0; i < tokens.size(); ++i) {
      const uint32_t other = tokens[tokens.size() - 1 - i];
      shared->Feed(0, i, {&other, 1}, 0, {});
      shared->Feed(1, i, {&tokens[i], 1}, 0, logits);
      shared->Feed(2, i, {&other, 1}, 0, {});
    }
    EXPECT_EQ(logits, want);
    // Going back and on again with other tokens forgets what was behind.
    FeedAll(*shared, 2, tokens, 33);
    shared->Feed(2, 149, {&tokens[149], 1}, 0, logits);
    EXPECT_EQ(logits, want);
  }
}

// The house model with its matrices as Q8_0.
std::vector<std::byte> HouseInQ8() {
  const auto house = models::GgufFile::Open("models/house/house.gguf").value();
  models::GgufWriter writer;
  for (const std::string_view key : house->Keys()) writer.AddValue(key, house->Get(key).value());
  std::vector<std::vector<models::BlockQ8_0>> kept;
  for (const models::GgufTensor& tensor : house->tensors()) {
    if (tensor.type == TensorType::kF32) {
      writer.AddTensor(tensor.name, tensor.type, tensor.shape, tensor.data);
      continue;
    }
    std::vector<float> values(tensor.elements());
    models::Dequantize(tensor.type, tensor.data, values);
    std::vector<models::BlockQ8_0>& blocks = kept.emplace_back(values.size() / 32);
    for (size_t b = 0; b < blocks.size(); ++b) {
      const std::span<const float> block = std::span(values).subspan(32 * b, 32);
      float largest = 0.0f;
      for (const float value : block) largest = std::max(largest, std::fabs(value));
      blocks[b].scale = models::FloatToHalf(largest / 127.0f);
      for (size_t i = 0; i < 32; ++i) {
        blocks[b].quants[i] =
            static_cast<int8_t>(largest > 0.0f ? std::lround(block[i] / largest * 127.0f) : 0);
      }
    }
    writer.AddTensor(tensor.name, TensorType::kQ8_0, tensor.shape,
                     std::as_bytes(std::span(blocks)));
  }
  return writer.WriteBytes().value();
}

TEST(EtchedModelTest, TheHouseModelSaysWhatTheCpuBackendSays) {
  const std::vector<std::byte> bytes = HouseInQ8();
  const auto file = models::GgufFile::Parse(bytes).value();
  const std::string path =
      testing::TempDir() + "etched_model_test.house." + std::to_string(getpid()) + ".rom";
  ASSERT_TRUE(TapeOut(*file, path, {.types = Types::k8}).ok());
  kernels::ThreadPool pool(1);
  const auto cpu = kernels::Model::Load(*file, pool).value();
  const auto run = ModelRun::Create(*cpu, pool, 80).value();
  const auto etched = OpenEtchedModel(path, {}).value();
  std::vector<uint32_t> tokens = Tokens(4, cpu->config().vocab_size, 9);
  std::vector<float> logits(cpu->config().vocab_size);
  std::set<uint32_t> said;
  for (uint32_t i = 0; i < 80; ++i) {
    run->Feed(tokens, i, 1);
    etched->Feed(0, i, {&tokens[i], 1}, 0, logits);
    ASSERT_THAT(logits, testing::ElementsAreArray(run->logits(0))) << i;
    if (i + 1 < tokens.size()) continue;
    // Half of the time an odd token, so that it does not say one thing over and over.
    const auto best = std::ranges::max_element(logits) - logits.begin();
    tokens.push_back(static_cast<uint32_t>(i % 2 == 0 ? best : best * 31 % logits.size()));
    said.insert(static_cast<uint32_t>(best));
  }
  EXPECT_GT(said.size(), 5u);
  std::remove(path.c_str());
}

TEST(EtchedModelTest, AdaptersChangeTheirSequencesOnly) {
  for (const LlamaConfig& config : {HouseShape(), OddShape()}) {
    const Etching etching(config, TensorType::kQ8_0, Types::k8, false);
    models::SyntheticLoraOptions lora;
    lora.config = config;
    const std::string path = etching.path() + ".lora";
    ASSERT_TRUE(models::WriteSyntheticLora(lora, path).ok());
    const std::vector<uint32_t> tokens = Tokens(40, config.vocab_size, 8);
    const std::vector<float> plain = FeedAll(*etching.Open(), 0, tokens, 1);
    const auto model = etching.Open({.slots = 2});
    ASSERT_TRUE(model->LoadAdapter(5, path, 0.5f).ok());
    std::vector<float> with(config.vocab_size), without(config.vocab_size);
    for (uint32_t i = 0; i < tokens.size(); ++i) {
      model->Feed(0, i, {&tokens[i], 1}, 5, with);
      model->Feed(1, i, {&tokens[i], 1}, 0, without);
    }
    EXPECT_EQ(without, plain);
    EXPECT_NE(with, plain);
    std::vector<float> whole(config.vocab_size);
    model->Feed(1, 0, tokens, 5, whole);
    EXPECT_EQ(whole, with);
    // The bits of the CPU backend on the same weights, whose adapters are tested against merged
    // weights.
    kernels::ThreadPool pool(1);
    const auto cpu = kernels::Model::Load(etching.file(), pool).value();
    const auto adapter = kernels::Adapter::Open(path, config, 0.5f).value();
    const auto run = ModelRun::Create(*cpu, pool, tokens.size()).value();
    for (uint32_t i = 0; i < tokens.size(); ++i) run->Feed(tokens, i, 1, adapter.get());
    EXPECT_THAT(with, testing::ElementsAreArray(run->logits(0)));
    EXPECT_TRUE(model->UnloadAdapter(5).ok());
    EXPECT_EQ(model->UnloadAdapter(5).code(), absl::StatusCode::kNotFound);
    std::remove(path.c_str());
  }
}

TEST(EtchedModelTest, SaysWhatItIs) {
  const Etching etching(HouseShape(), TensorType::kQ8_0, Types::k8, false);
  const auto model = etching.Open({.slots = 2, .context_limit = 100});
  EXPECT_EQ(model->slots(), 2u);
  EXPECT_EQ(model->context_limit(), 100u);
  EXPECT_EQ(model->vocab_size(), HouseShape().vocab_size);
  // 2 layers, 2 KV heads of 64, keys and values of 2 bytes.
  EXPECT_EQ(model->kv_bytes_per_token(), 2u * 2 * 64 * 2 * 2);
  EXPECT_EQ(model->image_hash().size(), 64u);
  EXPECT_EQ(model->image_hash(), ReadRomInfo(etching.path()).value().image_hash);
}

TEST(EtchedModelTest, RefusesOptionsOutOfTheirLimits) {
  const Etching etching(OddShape(), TensorType::kQ8_0, Types::k8, false);
  const auto message = [&](const EtchedOptions& options) {
    return std::string(OpenEtchedModel(etching.path(), options).status().message());
  };
  EXPECT_THAT(message({.slots = 0}), testing::HasSubstr("slots is 0; it must be 1 to"));
  EXPECT_THAT(message({.context_limit = 161}),
              testing::HasSubstr("context_limit is 161; the model was trained for 160"));
  EXPECT_THAT(message({.threads = 0}), testing::HasSubstr("threads is 0"));
}

}  // namespace
}  // namespace reticle::backends::hardwired
