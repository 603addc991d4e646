#include "models/llama_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "models/gguf_writer.h"
#include "models/synthetic.h"

namespace reticle::models {
namespace {

using ::testing::HasSubstr;
using Edit = std::function<void(GgufWriter&)>;

// A synthetic model with some metadata and tensors left out and others added.
class EditedModel {
 public:
  explicit EditedModel(const SyntheticLlamaOptions& options = {}) {
    source_bytes_ = MakeSyntheticLlama(options).value();
    source_ = GgufFile::Parse(source_bytes_).value();
  }

  EditedModel& Without(std::string_view name) {
    const size_t before = left_out_.size();
    left_out_.emplace(name);
    EXPECT_EQ(left_out_.size(), before + 1);
    EXPECT_TRUE(source_->Has(name) || source_->FindTensor(name) != nullptr) << name;
    return *this;
  }
  EditedModel& With(Edit edit) {
    edits_.push_back(std::move(edit));
    return *this;
  }

  const GgufFile& Build() {
    GgufWriter writer;
    for (const std::string_view key : source_->Keys()) {
      if (!left_out_.contains(std::string(key))) {
        writer.AddValue(key, source_->Get(key).value());
      }
    }
    for (const GgufTensor& tensor : source_->tensors()) {
      if (!left_out_.contains(std::string(tensor.name))) {
        writer.AddTensor(tensor.name, tensor.type, tensor.shape, tensor.data);
      }
    }
    for (const Edit& edit : edits_) edit(writer);
    bytes_ = writer.WriteBytes().value();
    file_ = GgufFile::Parse(bytes_).value();
    return *file_;
  }

  absl::Status Config() { return ReadLlamaConfig(Build()).status(); }
  absl::Status Bind() {
    const GgufFile& file = Build();
    const auto config = ReadLlamaConfig(file);
    EXPECT_TRUE(config.ok()) << config.status();
    return BindLlamaWeights(file, *config).status();
  }

 private:
  std::vector<std::byte> source_bytes_;
  std::unique_ptr<GgufFile> source_;
  std::set<std::string> left_out_;
  std::vector<Edit> edits_;
  std::vector<std::byte> bytes_;
  std::unique_ptr<GgufFile> file_;
};

Edit Uint(std::string key, uint32_t value) {
  return [=](GgufWriter& writer) { writer.AddUint32(key, value); };
}
Edit Float(std::string key, float value) {
  return [=](GgufWriter& writer) { writer.AddFloat32(key, value); };
}
Edit Text(std::string key, std::string value) {
  return [=](GgufWriter& writer) { writer.AddString(key, value); };
}
Edit Tensor(std::string name, TensorType type, std::vector<uint64_t> shape) {
  return [=](GgufWriter& writer) {
    writer.AddTensor(name, type, shape, [=](const GgufWriter::Sink& sink) {
      return sink(std::vector<std::byte>(TensorSizeBytes(type, shape).value()));
    });
  };
}

void ExpectStatus(const absl::Status& status, absl::StatusCode code, const std::string& message) {
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(message));
}

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kNotFound = absl::StatusCode::kNotFound;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

TEST(LlamaConfigTest, UneditedModelIsValid) {
  EXPECT_TRUE(EditedModel().Config().ok());
  EXPECT_TRUE(EditedModel().Bind().ok());
}

TEST(LlamaConfigTest, MissingKeysFallBackWhereTheFormatSaysSo) {
  EditedModel model;
  model.Without("llama.vocab_size")
      .Without("llama.attention.key_length")
      .Without("llama.attention.value_length")
      .Without("llama.rope.dimension_count")
      .Without("llama.rope.freq_base")
      .Without("general.name");
  const auto config = ReadLlamaConfig(model.Build());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->head_dim, 16u);
  EXPECT_EQ(config->vocab_size, 320u);
  EXPECT_EQ(config->rope_base, 10000.0);
  EXPECT_EQ(config->name, "");

  SyntheticLlamaOptions all_heads;
  all_heads.config.kv_heads = 4;
  EditedModel without_kv(all_heads);
  EXPECT_EQ(ReadLlamaConfig(without_kv.Without("llama.attention.head_count_kv").Build())->kv_heads,
            4u);
}

TEST(LlamaConfigTest, EveryRequiredKeyIsNamedWhenMissing) {
  for (const char* key : {"general.architecture", "llama.embedding_length", "llama.block_count",
                          "llama.feed_forward_length", "llama.attention.head_count",
                          "llama.context_length", "llama.attention.layer_norm_rms_epsilon"}) {
    ExpectStatus(EditedModel().Without(key).Config(), kNotFound, key);
  }
  ExpectStatus(EditedModel().Without("token_embd.weight").Config(), kNotFound,
               "tensor 'token_embd.weight' is missing");
}

TEST(LlamaConfigTest, LimitsNameFieldValueAndLimit) {
  const auto with_uint = [](const char* key, uint32_t value) {
    return EditedModel().Without(key).With(Uint(key, value)).Config();
  };
  ExpectStatus(with_uint("llama.embedding_length", 0), kInvalid,
               "dim (llama.embedding_length) is 0; it must be 1 to 131072");
  ExpectStatus(with_uint("llama.block_count", 0), kInvalid, "is 0; it must be 1 to 1024");
  ExpectStatus(with_uint("llama.block_count", 4000000000u), kInvalid, "is 4000000000; it must");
  ExpectStatus(with_uint("llama.attention.head_count", 0), kInvalid, "is 0; it must be 1 to 4096");
  ExpectStatus(with_uint("llama.attention.head_count_kv", 0), kInvalid, "it must be 1 to 4");
  ExpectStatus(with_uint("llama.attention.head_count_kv", 3), kInvalid,
               "heads (llama.attention.head_count) is 4; it must be a multiple of kv_heads");
  ExpectStatus(with_uint("llama.feed_forward_length", 0), kInvalid, "ffn_dim");
  ExpectStatus(with_uint("llama.context_length", 0), kInvalid, "context_length");
  ExpectStatus(with_uint("llama.vocab_size", 321), kInvalid,
               "metadata 'llama.vocab_size' is 321; token_embd.weight has 320 rows");
  ExpectStatus(EditedModel()
                   .Without("llama.context_length")
                   .With([](GgufWriter& writer) {
                     writer.AddUint64("llama.context_length", uint64_t{1} << 40);
                   })
                   .Config(),
               kInvalid, "metadata 'llama.context_length' is 1099511627776; the limit is");
  ExpectStatus(
      EditedModel().Without("llama.block_count").With(Text("llama.block_count", "2")).Config(),
      kInvalid, "metadata 'llama.block_count' is of type string");
  const auto with_float = [](const char* key, float value) {
    return EditedModel().Without(key).With(Float(key, value)).Config();
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  for (const float bad : {nan, inf, -1e-5f, 0.2f}) {
    ExpectStatus(with_float("llama.attention.layer_norm_rms_epsilon", bad), kInvalid,
                 "norm_epsilon");
  }
  for (const float bad : {nan, inf, 0.0f, -10000.0f}) {
    ExpectStatus(with_float("llama.rope.freq_base", bad), kInvalid, "rope_base");
  }
  for (const float bad : {nan, inf, 0.0f, -2.0f}) {
    ExpectStatus(EditedModel().With(Float("llama.rope.scaling.factor", bad)).Config(), kInvalid,
                 "rope_linear_factor");
  }
}

TEST(LlamaConfigTest, HeadDimension) {
  const auto with_length = [](uint32_t length) {
    return EditedModel()
        .Without("llama.attention.key_length")
        .Without("llama.attention.value_length")
        .Without("llama.rope.dimension_count")
        .With(Uint("llama.attention.key_length", length))
        .Config();
  };
  EXPECT_TRUE(with_length(32).ok());
  ExpectStatus(with_length(15), kInvalid,
               "head_dim (llama.attention.key_length) is 15; it must be "
               "even");
  ExpectStatus(with_length(0), kInvalid, "it must be 2 to 1024");
  ExpectStatus(EditedModel()
                   .Without("llama.attention.key_length")
                   .Without("llama.attention.head_count")
                   .With(Uint("llama.attention.head_count", 3))
                   .Config(),
               kInvalid, "metadata 'llama.embedding_length' is 64, no multiple of");
  ExpectStatus(EditedModel()
                   .Without("llama.rope.dimension_count")
                   .With(Uint("llama.rope.dimension_count", 8))
                   .Config(),
               kUnimplemented, "metadata 'llama.rope.dimension_count' is 8; only 16 is computed");
  ExpectStatus(EditedModel()
                   .Without("llama.attention.value_length")
                   .With(Uint("llama.attention.value_length", 8))
                   .Config(),
               kUnimplemented, "llama.attention.value_length");
}

TEST(LlamaConfigTest, RopeScaling) {
  const auto linear_factor = [](EditedModel& model) {
    const auto config = ReadLlamaConfig(model.Build());
    EXPECT_TRUE(config.ok()) << config.status();
    return config->rope_linear_factor;
  };
  EditedModel plain, by_default, older, none;
  EXPECT_EQ(linear_factor(plain), 1.0);
  EXPECT_EQ(linear_factor(by_default.With(Float("llama.rope.scaling.factor", 4.0f))), 4.0);
  EXPECT_EQ(linear_factor(older.With(Float("llama.rope.scale_linear", 2.0f))), 2.0);
  EXPECT_EQ(linear_factor(none.With(Text("llama.rope.scaling.type", "none"))
                              .With(Float("llama.rope.scaling.factor", 4.0f))),
            1.0);
  for (const char* type : {"yarn", "longrope", "su"}) {
    ExpectStatus(EditedModel().With(Text("llama.rope.scaling.type", type)).Config(), kUnimplemented,
                 absl::StrFormat("metadata 'llama.rope.scaling.type' is '%s'", type));
  }
  ExpectStatus(EditedModel().With(Text("llama.rope.scaling.type", "llama3")).Config(), kNotFound,
               "rope_freqs.weight");
  SyntheticLlamaOptions options;
  options.llama3_rope = Llama3RopeScaling();
  EXPECT_TRUE(EditedModel(options).With(Text("llama.rope.scaling.type", "llama3")).Config().ok());
}

TEST(LlamaConfigTest, WhatIsNotComputedIsRefusedByName) {
  const auto refused = [](const Edit& edit, const std::string& key) {
    ExpectStatus(EditedModel().With(edit).Config(), kUnimplemented, key);
  };
  refused(Uint("llama.expert_count", 8), "metadata 'llama.expert_count' is 8");
  refused(Uint("llama.attention.sliding_window", 256), "sliding windows are not computed");
  refused(Float("llama.final_logit_softcapping", 30.0f), "llama.final_logit_softcapping");
  refused(Float("llama.residual_scale", 2.0f), "llama.residual_scale");
  refused([](GgufWriter& writer) { writer.AddBool("llama.attention.causal", false); },
          "llama.attention.causal");
  EXPECT_TRUE(EditedModel().With(Uint("llama.expert_count", 0)).Config().ok());
  EXPECT_TRUE(EditedModel().With(Uint("llama.attention.sliding_window", 512)).Config().ok());
  ExpectStatus(EditedModel()
                   .Without("general.architecture")
                   .With(Text("general.architecture", "mamba"))
                   .Config(),
               kUnimplemented, "metadata 'general.architecture' is 'mamba'");
}

TEST(LlamaConfigTest, VocabularyAndEmbeddingsMustAgree) {
  ExpectStatus(EditedModel()
                   .Without("tokenizer.ggml.tokens")
                   .With([](GgufWriter& writer) {
                     writer.AddStringArray("tokenizer.ggml.tokens",
                                           std::vector<std::string>(319, "x"));
                   })
                   .Config(),
               kInvalid,
               "metadata 'tokenizer.ggml.tokens' has 319 entries; token_embd.weight has "
               "320 rows");
}

TEST(LlamaWeightsTest, EveryTensorIsRequired) {
  const auto bytes = MakeSyntheticLlama({}).value();
  const auto file = GgufFile::Parse(bytes).value();
  int checked = 0;
  for (const GgufTensor& tensor : file->tensors()) {
    if (tensor.name == "token_embd.weight" || tensor.name == "output.weight") continue;
    ExpectStatus(EditedModel().Without(tensor.name).Bind(), kNotFound,
                 absl::StrFormat("tensor '%s' is missing", tensor.name));
    ++checked;
  }
  EXPECT_EQ(checked, 19);
}

TEST(LlamaWeightsTest, EveryShapeIsChecked) {
  const auto bytes = MakeSyntheticLlama({}).value();
  const auto file = GgufFile::Parse(bytes).value();
  for (const GgufTensor& tensor : file->tensors()) {
    if (tensor.name == "token_embd.weight") continue;
    std::vector<uint64_t> shape = tensor.shape;
    shape.back() += 32;
    ExpectStatus(EditedModel()
                     .Without(tensor.name)
                     .With(Tensor(std::string(tensor.name), tensor.type, shape))
                     .Bind(),
                 kInvalid, absl::StrFormat("tensor '%s' has shape [", tensor.name));
  }
}

TEST(LlamaWeightsTest, NormsAreFloatsAndNothingElseMayBeThere) {
  ExpectStatus(EditedModel()
                   .Without("output_norm.weight")
                   .With(Tensor("output_norm.weight", TensorType::kF16, {64}))
                   .Bind(),
               kUnimplemented, "tensor 'output_norm.weight' is of type F16; only F32");
  ExpectStatus(EditedModel().With(Tensor("blk.0.attn_q.bias", TensorType::kF32, {64})).Bind(),
               kUnimplemented, "tensor 'blk.0.attn_q.bias' has no place");
  ExpectStatus(EditedModel().With(Tensor("blk.2.attn_norm.weight", TensorType::kF32, {64})).Bind(),
               kUnimplemented, "tensor 'blk.2.attn_norm.weight' has no place");
  EXPECT_TRUE(
      EditedModel().With(Tensor("blk.0.attn_rot_embd.weight", TensorType::kF32, {8})).Bind().ok());
}

TEST(LlamaWeightsTest, WithoutOutputTheEmbeddingsServe) {
  EditedModel model;
  const GgufFile& file = model.Without("output.weight").Build();
  const auto config = ReadLlamaConfig(file);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->tied_embeddings);
  const auto weights = BindLlamaWeights(file, *config);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(weights->output, file.FindTensor("token_embd.weight"));
}

// 8.03 billion, as published for Llama 3.1 8B.
TEST(LlamaConfigTest, ParametersOfTheEightBillionShape) {
  EXPECT_EQ(Llama31Shape8B().parameters(), 8030261248u);
}

}  // namespace
}  // namespace reticle::models
