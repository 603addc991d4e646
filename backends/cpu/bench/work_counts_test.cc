#include "backends/cpu/bench/work_counts.h"

#include <memory>
#include <vector>

#include "backends/cpu/bench/samples.h"
#include "gtest/gtest.h"
#include "models/synthetic.h"

namespace reticle::backends::cpu::bench {
namespace {

// Two layers, dim 256, 4 query and 2 key heads of 64, ffn 512, vocabulary 320.
struct Model {
  explicit Model(models::TensorType type, bool tied = false) {
    models::SyntheticLlamaOptions options;
    options.config = models::SmallWideLlamaConfig();
    options.config.tied_embeddings = tied;
    options.matrix_type = type;
    bytes = models::MakeSyntheticLlama(options).value();
    file = models::GgufFile::Parse(bytes).value();
    config = models::ReadLlamaConfig(*file).value();
    weights = models::BindLlamaWeights(*file, config).value();
  }
  WorkCounts Count(double kv_element_bytes = 2) const {
    return CountWork(config, weights, kv_element_bytes);
  }

  std::vector<std::byte> bytes;
  std::unique_ptr<models::GgufFile> file;
  models::LlamaConfig config;
  models::LlamaWeights weights;
};

// By hand: q and o 256 x 256, k and v 256 x 128, gate, up and down 256 x 512; two layers.
constexpr uint64_t kLayerMacs = 2 * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 512);
constexpr uint64_t kOutputMacs = 256 * 320;
constexpr uint64_t kNormBytes = 2 * 256 * 4;

TEST(WorkCountsTest, MatricesAreCountedByTheirTypesBytes) {
  const WorkCounts q4 = Model(models::TensorType::kQ4_0).Count();
  EXPECT_EQ(q4.layer_int8_macs, kLayerMacs);
  EXPECT_EQ(q4.layer_float_macs, 0u);
  EXPECT_EQ(q4.output_int8_macs, kOutputMacs);
  EXPECT_EQ(q4.layer_bytes, kLayerMacs / 32 * 18 + 2 * kNormBytes);
  EXPECT_EQ(q4.output_bytes, kOutputMacs / 32 * 18 + 256 * 4);
  EXPECT_EQ(q4.row_bytes, 256u / 32 * 18);

  const WorkCounts f16 = Model(models::TensorType::kF16).Count();
  EXPECT_EQ(f16.layer_float_macs, kLayerMacs);
  EXPECT_EQ(f16.layer_int8_macs, 0u);
  EXPECT_EQ(f16.output_float_macs, kOutputMacs);
  EXPECT_EQ(f16.layer_bytes, kLayerMacs * 2 + 2 * kNormBytes);
}

TEST(WorkCountsTest, TiedEmbeddingsServeAsOutput) {
  const WorkCounts counts = Model(models::TensorType::kQ8_0, true).Count();
  EXPECT_EQ(counts.output_int8_macs, kOutputMacs);
  EXPECT_EQ(counts.output_bytes, kOutputMacs / 32 * 34 + 256 * 4);
}

TEST(WorkCountsTest, KeysAndValuesAreCountedByPosition) {
  const Model model(models::TensorType::kQ4_0);
  // Keys and values of 2 heads of 64 in two layers.
  EXPECT_EQ(model.Count().kv_bytes, 2u * 2 * 128 * 2);
  EXPECT_EQ(model.Count(34.0 / 32).kv_bytes, 2u * 2 * 128 * 34 / 32);
  // Four query heads of 64: a product with a key and one with a value, in two layers.
  EXPECT_EQ(model.Count().attention_macs, 2u * 2 * 256);
}

TEST(WorkCountsTest, ADecodeStepReadsWeightsOnceAndKvOfEverySequence) {
  const WorkCounts counts = Model(models::TensorType::kQ4_0).Count();
  const Work one = DecodeWork(counts, 1, 0);
  EXPECT_EQ(one.bytes, counts.weight_bytes() + counts.row_bytes + counts.kv_bytes);
  EXPECT_EQ(one.int8_ops, 2.0 * (kLayerMacs + kOutputMacs));
  EXPECT_EQ(one.float_ops, 2.0 * counts.attention_macs);
  const Work eight = DecodeWork(counts, 8, 99);
  EXPECT_EQ(eight.bytes, counts.weight_bytes() + 8 * (counts.row_bytes + 100 * counts.kv_bytes));
  EXPECT_EQ(eight.int8_ops, 8 * one.int8_ops);
  EXPECT_EQ(eight.float_ops, 800 * one.float_ops);
}

TEST(WorkCountsTest, APromptLooksBackOnHalfOfItselfAndHasLogitsOnce) {
  const WorkCounts counts = Model(models::TensorType::kQ4_0).Count();
  const Work whole = PrefillWork(counts, 100, 512);
  EXPECT_EQ(whole.bytes, counts.weight_bytes() + 100 * counts.row_bytes + 100 * counts.kv_bytes);
  EXPECT_EQ(whole.int8_ops, 2.0 * (100 * kLayerMacs + kOutputMacs));
  EXPECT_EQ(whole.float_ops, 2.0 * 5050 * counts.attention_macs);
  // In steps of 64 and 36 the weights of the layers are read twice, the operations stay.
  const Work steps = PrefillWork(counts, 100, 64);
  EXPECT_EQ(steps.bytes, whole.bytes + counts.layer_bytes + 64 * counts.kv_bytes);
  EXPECT_EQ(steps.int8_ops, whole.int8_ops);
  EXPECT_EQ(steps.float_ops, whole.float_ops);
}

TEST(SamplesTest, TheMedianIsTheMiddleWhateverTheOrder) {
  Samples samples;
  EXPECT_EQ(samples.median(), 0);
  for (const double value : {5.0, 1.0, 3.0}) samples.Add(value);
  EXPECT_EQ(samples.median(), 3);
  EXPECT_EQ(samples.lowest(), 1);
  EXPECT_EQ(samples.highest(), 5);
  samples.Add(4);
  EXPECT_EQ(samples.median(), 3.5);
}

}  // namespace
}  // namespace reticle::backends::cpu::bench
