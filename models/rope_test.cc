#include "models/rope.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numbers>
#include <string>

#include "models/synthetic.h"

namespace reticle::models {
namespace {

using ::testing::HasSubstr;

TEST(RopeTest, Llama31FactorsHaveTheirThreeRegions) {
  const std::vector<float> factors = Llama3RopeFactors(128, 500000.0, {});
  ASSERT_EQ(factors.size(), 64u);
  // Wavelength of pair i: 2 pi 500000^(i / 64). It passes 8192 / 4 = 2048 between pairs 28 and 29
  // and 8192 / 1 between 34 and 35.
  for (int i = 0; i <= 28; ++i) EXPECT_EQ(factors[i], 1.0f) << i;
  for (int i = 35; i < 64; ++i) EXPECT_EQ(factors[i], 8.0f) << i;
  for (int i = 29; i < 35; ++i) {
    EXPECT_GT(factors[i], factors[i - 1]) << i;
    EXPECT_LT(factors[i], 8.0f) << i;
  }
  // By hand for pair 32: wavelength 2 pi sqrt(500000) = 4442.88, smooth = (8192 / 4442.88 - 1) / 3
  // = 0.281283, factor = 1 / (0.718717 / 8 + 0.281283) = 2.69453.
  EXPECT_NEAR(factors[32], 2.69453, 1e-5);
}

TEST(RopeTest, OtherFactorsScaleTheSlowPairs) {
  const std::vector<float> factors = Llama3RopeFactors(64, 500000.0, {.factor = 32.0});
  EXPECT_EQ(factors.front(), 1.0f);
  EXPECT_EQ(factors.back(), 32.0f);
}

struct Model {
  std::vector<std::byte> bytes;
  std::unique_ptr<GgufFile> file;
  LlamaConfig config;
  LlamaWeights weights;
};

Model Make(const SyntheticLlamaOptions& options) {
  Model model;
  model.bytes = MakeSyntheticLlama(options).value();
  model.file = GgufFile::Parse(model.bytes).value();
  model.config = ReadLlamaConfig(*model.file).value();
  model.weights = BindLlamaWeights(*model.file, model.config).value();
  return model;
}

TEST(RopeTest, FrequenciesFallGeometrically) {
  const Model model = Make({});
  const auto frequencies = RopeFrequencies(model.config, model.weights).value();
  ASSERT_EQ(frequencies.size(), 8u);
  EXPECT_EQ(frequencies[0], 1.0);
  EXPECT_NEAR(frequencies[4], 0.01, 1e-15);
  EXPECT_NEAR(frequencies[1], std::pow(10000.0, -0.125), 1e-15);
}

TEST(RopeTest, ScalingsDivide) {
  SyntheticLlamaOptions options;
  options.config.rope_linear_factor = 4.0;
  options.llama3_rope = Llama3RopeScaling{.factor = 8.0, .original_context = 64.0};
  const Model model = Make(options);
  const auto frequencies = RopeFrequencies(model.config, model.weights).value();
  EXPECT_EQ(frequencies[0], 0.25);
  EXPECT_NEAR(frequencies[4], 0.01 / 4 / 8, 1e-15);
}

TEST(RopeTest, FactorsThatCannotDivideAreRefused) {
  SyntheticLlamaOptions options;
  options.llama3_rope = Llama3RopeScaling();
  Model model = Make(options);
  const size_t offset = model.weights.rope_freqs->file_offset + 3 * sizeof(float);
  for (const float bad : {0.0f, -1.0f, std::nanf(""), HUGE_VALF}) {
    std::memcpy(model.bytes.data() + offset, &bad, sizeof(bad));
    const auto frequencies = RopeFrequencies(model.config, model.weights);
    EXPECT_THAT(std::string(frequencies.status().message()), HasSubstr("rope_freqs.weight[3] is"));
  }
}

}  // namespace
}  // namespace reticle::models
