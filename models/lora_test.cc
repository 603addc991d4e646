#include "models/lora.h"

#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/gguf_writer.h"
#include "models/synthetic.h"
#include "models/synthetic_lora.h"

namespace reticle::models {
namespace {

using testing::HasSubstr;

// The status of reading a file with these metadata and tensors (name, shape).
absl::Status ReadOf(const std::function<void(GgufWriter&)>& metadata,
                    const std::vector<std::pair<std::string, std::vector<uint64_t>>>& tensors) {
  static const std::vector<float> zeros(1 << 16);
  GgufWriter writer;
  metadata(writer);
  for (const auto& [name, shape] : tensors) {
    uint64_t size = 1;
    for (const uint64_t length : shape) size *= length;
    writer.AddTensor(name, TensorType::kF32, shape, std::as_bytes(std::span(zeros).first(size)));
  }
  const std::vector<std::byte> bytes = writer.WriteBytes().value();
  const auto file = GgufFile::Parse(bytes).value();
  return ReadLora(*file, SmallLlamaConfig()).status();
}

void Lora(GgufWriter& writer) {
  writer.AddString("general.type", "adapter");
  writer.AddString("general.architecture", "llama");
  writer.AddString("adapter.type", "lora");
  writer.AddFloat32("adapter.lora.alpha", 16.0f);
}

TEST(LoraTest, FindsThePairsOfAllMatrices) {
  SyntheticLoraOptions options;
  options.config = SmallLlamaConfig();
  options.rank = 3;
  options.alpha = 6.0f;
  const std::vector<std::byte> bytes = MakeSyntheticLora(options).value();
  const auto file = GgufFile::Parse(bytes).value();
  const LoraWeights weights = ReadLora(*file, options.config).value();
  ASSERT_EQ(weights.layers.size(), options.config.layers);
  for (const LoraLayer& layer : weights.layers) {
    for (const LoraPair* pair : {&layer.attn_q, &layer.attn_k, &layer.attn_v, &layer.attn_output,
                                 &layer.ffn_gate, &layer.ffn_up, &layer.ffn_down}) {
      EXPECT_EQ(pair->rank(), 3u);
    }
  }
  EXPECT_EQ(weights.layers[1].ffn_down.a->name, "blk.1.ffn_down.weight.lora_a");
  EXPECT_EQ(weights.output.b->shape[1], options.config.vocab_size);
  EXPECT_FLOAT_EQ(weights.ScaleOf(weights.output, 0.5f), 1.0f);
}

TEST(LoraTest, TakesSomeMatricesOnlyAndNoAlpha) {
  SyntheticLoraOptions options;
  options.config = SmallLlamaConfig();
  options.alpha = 0.0f;
  options.targets = {"0.attn_q.weight"};
  const std::vector<std::byte> bytes = MakeSyntheticLora(options).value();
  const auto file = GgufFile::Parse(bytes).value();
  const LoraWeights weights = ReadLora(*file, options.config).value();
  EXPECT_NE(weights.layers[0].attn_q.a, nullptr);
  EXPECT_EQ(weights.layers[0].attn_k.a, nullptr);
  EXPECT_EQ(weights.layers[1].attn_q.a, nullptr);
  EXPECT_FLOAT_EQ(weights.ScaleOf(weights.layers[0].attn_q, 0.5f), 0.5f);
}

TEST(LoraTest, SaysWhatIsWrong) {
  const auto message = [](const absl::Status& status) { return std::string(status.message()); };
  const std::string q = "blk.0.attn_q.weight";
  EXPECT_THAT(message(ReadOf([](GgufWriter& w) { w.AddString("general.architecture", "llama"); },
                             {{q + ".lora_a", {64, 2}}})),
              HasSubstr("'general.type' is missing"));
  EXPECT_THAT(message(ReadOf(
                  [](GgufWriter& w) {
                    w.AddString("general.type", "adapter");
                    w.AddString("general.architecture", "gpt2");
                  },
                  {})),
              HasSubstr("'general.architecture' is 'gpt2'"));
  EXPECT_THAT(message(ReadOf(Lora, {})), HasSubstr("holds no tensors"));
  EXPECT_THAT(message(ReadOf(Lora, {{q + ".lora_a", {64, 2}}})),
              HasSubstr("'blk.0.attn_q.weight.lora_b' is missing"));
  EXPECT_THAT(message(ReadOf(Lora, {{q + ".lora_a", {32, 2}}, {q + ".lora_b", {2, 64}}})),
              HasSubstr("has rows of 32; the model's 'blk.0.attn_q.weight' has 64"));
  EXPECT_THAT(message(ReadOf(Lora, {{q + ".lora_a", {64, 2}}, {q + ".lora_b", {3, 64}}})),
              HasSubstr("is 3 x 64; rank and model ask for 2 x 64"));
  EXPECT_THAT(message(ReadOf(Lora, {{q + ".lora_a", {64}}, {q + ".lora_b", {2, 64}}})),
              HasSubstr("has 1 dimensions"));
  EXPECT_THAT(message(ReadOf(Lora, {{q, {64, 64}}})), HasSubstr("no part of a low-rank pair"));
  EXPECT_THAT(message(ReadOf(Lora, {{"token_embd.weight.lora_a", {64, 2}}})),
              HasSubstr("cannot be adapted"));
}

}  // namespace
}  // namespace reticle::models
