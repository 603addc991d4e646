#include "models/synthetic.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "models/gguf.h"
#include "models/llama_config.h"
#include "models/quantization.h"
#include "models/rope.h"

namespace reticle::models {
namespace {

using ::testing::HasSubstr;

struct Model {
  std::vector<std::byte> bytes;
  std::unique_ptr<GgufFile> file;
  LlamaConfig config;
  LlamaWeights weights;
};

Model Make(const SyntheticLlamaOptions& options) {
  Model model;
  auto bytes = MakeSyntheticLlama(options);
  EXPECT_TRUE(bytes.ok()) << bytes.status();
  model.bytes = *std::move(bytes);
  auto file = GgufFile::Parse(model.bytes);
  EXPECT_TRUE(file.ok()) << file.status();
  model.file = *std::move(file);
  auto config = ReadLlamaConfig(*model.file);
  EXPECT_TRUE(config.ok()) << config.status();
  model.config = *config;
  auto weights = BindLlamaWeights(*model.file, model.config);
  EXPECT_TRUE(weights.ok()) << weights.status();
  model.weights = *std::move(weights);
  return model;
}

TEST(SyntheticTest, EveryTypeGivesAModelThatBinds) {
  for (const TensorType type : AllTensorTypes()) {
    SCOPED_TRACE(TensorTypeName(type));
    SyntheticLlamaOptions options;
    options.config = SmallWideLlamaConfig();
    options.matrix_type = type;
    const Model model = Make(options);
    EXPECT_EQ(model.weights.layers[1].ffn_down->type, type);
    EXPECT_EQ(model.weights.layers[1].ffn_norm->type, TensorType::kF32);
    std::vector<float> values(model.weights.output->elements());
    Dequantize(type, model.weights.output->data, values);
    double square = 0;
    for (const float value : values) square += value * value;
    const double deviation = std::sqrt(square / values.size());
    EXPECT_NEAR(deviation * std::sqrt(256.0), 3.0, 0.1);
  }
}

TEST(SyntheticTest, ConfigurationSurvivesTheFile) {
  SyntheticLlamaOptions options;
  options.config.tied_embeddings = true;
  options.config.rope_linear_factor = 2.0;
  options.config.heads = 8;
  options.llama3_rope = Llama3RopeScaling();
  options.embedding_type = TensorType::kQ8_0;
  const Model model = Make(options);
  EXPECT_EQ(model.config.dim, 64u);
  EXPECT_EQ(model.config.heads, 8u);
  EXPECT_EQ(model.config.kv_heads, 2u);
  EXPECT_EQ(model.config.group_size(), 4u);
  EXPECT_EQ(model.config.head_dim, 16u);
  EXPECT_EQ(model.config.q_dim(), 128u);
  EXPECT_EQ(model.config.context_length, 512u);
  EXPECT_EQ(model.config.rope_linear_factor, 2.0);
  EXPECT_TRUE(model.config.tied_embeddings);
  EXPECT_TRUE(model.config.has_rope_factors);
  EXPECT_EQ(model.weights.output, model.weights.token_embd);
  EXPECT_EQ(model.weights.token_embd->type, TensorType::kQ8_0);
  ASSERT_NE(model.weights.rope_freqs, nullptr);
  EXPECT_EQ(model.weights.rope_freqs->elements(), 8u);
  uint64_t elements = 0;
  for (const GgufTensor& tensor : model.file->tensors()) elements += tensor.elements();
  EXPECT_EQ(model.config.parameters(), elements - 8);
}

TEST(SyntheticTest, SameOptionsGiveTheSameBytesAndAnotherSeedOthers) {
  SyntheticLlamaOptions options;
  const auto first = MakeSyntheticLlama(options);
  const auto second = MakeSyntheticLlama(options);
  options.seed = 2;
  const auto other = MakeSyntheticLlama(options);
  ASSERT_TRUE(first.ok() && second.ok() && other.ok());
  EXPECT_EQ(*first, *second);
  EXPECT_EQ(first->size(), other->size());
  EXPECT_NE(*first, *other);
}

// Guards the promise that files are the same on every machine and stay so.
TEST(SyntheticTest, HashOfTheDefaultModelIsPinned) {
  SyntheticLlamaOptions options;
  options.matrix_type = TensorType::kQ4_0;
  const Model model = Make(options);
  EXPECT_EQ(HexOf(model.file->FileSha256()),
            "f9391145c1afb7054947da47b1f8fc604164b38836f8a305e7096ec6140640c3");
}

TEST(SyntheticTest, DistinctRowsRepeat) {
  SyntheticLlamaOptions options;
  options.distinct_rows = 2;
  const Model model = Make(options);
  const GgufTensor& tensor = *model.weights.layers[0].ffn_up;
  std::vector<std::string> seen;
  const size_t row_bytes = tensor.data.size() / tensor.rows();
  for (uint64_t row = 0; row < tensor.rows(); ++row) {
    const auto bytes = tensor.data.subspan(row * row_bytes, row_bytes);
    std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (std::find(seen.begin(), seen.end(), text) == seen.end()) seen.push_back(text);
  }
  EXPECT_EQ(seen.size(), 2u);
}

TEST(SyntheticTest, TokenizerMetadataAreConsistent) {
  SyntheticLlamaOptions options;
  options.config.vocab_size = 1200;
  const Model model = Make(options);
  const auto tokens = model.file->GetStringArray("tokenizer.ggml.tokens").value();
  const auto merges = model.file->GetStringArray("tokenizer.ggml.merges").value();
  EXPECT_EQ(tokens.size(), 1200u);
  EXPECT_EQ(merges.size(), 1200u - 256 - 4);
  EXPECT_EQ(tokens['a'], "a");
  EXPECT_EQ(tokens[' '], "\xc4\xa0");
  EXPECT_EQ(tokens[0], "\xc4\x80");
  EXPECT_EQ(tokens[0xad], "\xc5\x83");
  EXPECT_EQ(tokens[0xff], "\xc3\xbf");
  EXPECT_EQ(std::set<std::string_view>(tokens.begin(), tokens.end()).size(), tokens.size());
  for (size_t i = 0; i < merges.size(); ++i) {
    std::string merged(merges[i]);
    merged.erase(merged.find(' '), 1);
    EXPECT_EQ(tokens[256 + i], merged);
  }
  EXPECT_EQ(model.file->GetUint("tokenizer.ggml.bos_token_id").value(), 1196u);
  EXPECT_EQ(tokens[1199], "<|im_end|>");
}

TEST(SyntheticTest, RefusesWhatCannotBe) {
  SyntheticLlamaOptions options;
  options.matrix_type = TensorType::kQ4_K;
  EXPECT_THAT(std::string(MakeSyntheticLlama(options).status().message()),
              HasSubstr("has rows of 64 elements, no multiple of the 256 of a Q4_K block"));
  options = {};
  options.config.vocab_size = 259;
  EXPECT_THAT(std::string(MakeSyntheticLlama(options).status().message()),
              HasSubstr("vocab_size is 259; a tokenizer needs at least 260"));
  options = {};
  options.config.kv_heads = 3;
  EXPECT_EQ(MakeSyntheticLlama(options).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace reticle::models
