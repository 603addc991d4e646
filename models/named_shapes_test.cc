#include "models/named_shapes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace reticle::models {
namespace {

using ::testing::HasSubstr;

std::string Refusal(std::string_view text) {
  return std::string(ParseSyntheticModel(text).status().message());
}

TEST(NamedShapesTest, ShapesHaveTheParametersOfTheirModels) {
  // Parameters as published; those of stories15M and the house model counted by hand.
  const std::pair<std::string, uint64_t> kParameters[] = {{"llama-3.1-8b", 8'030'261'248},
                                                          {"llama-3.2-3b", 3'212'749'824},
                                                          {"llama-3.2-1b", 1'235'814'400},
                                                          {"tiny", 15'191'712},
                                                          {"house", 2'885'888}};
  ASSERT_EQ(std::size(kParameters), NamedShapes().size());
  for (const auto& [name, parameters] : kParameters) {
    const auto options = ParseSyntheticModel(name + ":q8_0");
    ASSERT_TRUE(options.ok()) << options.status();
    EXPECT_EQ(options->config.parameters(), parameters) << name;
    EXPECT_TRUE(options->config.Validate().ok()) << name;
  }
}

TEST(NamedShapesTest, EveryTypeFitsEveryShape) {
  for (const NamedShape& shape : NamedShapes()) {
    for (const TensorType type : AllTensorTypes()) {
      const std::string name = std::string(shape.name) + ":" + std::string(TensorTypeName(type));
      auto options = ParseSyntheticModel(name);
      ASSERT_TRUE(options.ok()) << options.status();
      options->with_tokenizer = false;
      EXPECT_TRUE(SyntheticLlama(*options).ok()) << name;
    }
  }
}

TEST(NamedShapesTest, TheOutputIsAsInFilesInCirculationUnlessNamed) {
  const auto mixed = ParseSyntheticModel("llama-3.1-8b:Q4_0");
  ASSERT_TRUE(mixed.ok());
  EXPECT_EQ(mixed->matrix_type, TensorType::kQ4_0);
  EXPECT_EQ(mixed->embedding_type, TensorType::kQ4_0);
  EXPECT_EQ(mixed->output_type, TensorType::kQ6_K);
  const auto tied = ParseSyntheticModel("llama-3.2-1b:q4_k");
  ASSERT_TRUE(tied.ok());
  EXPECT_EQ(tied->embedding_type, TensorType::kQ6_K);
  const auto pure = ParseSyntheticModel("llama-3.1-8b:q4_0+q4_0");
  ASSERT_TRUE(pure.ok());
  EXPECT_EQ(pure->output_type, TensorType::kQ4_0);
  EXPECT_EQ(ParseSyntheticModel("llama-3.1-8b:q8_0")->output_type, TensorType::kQ8_0);
  EXPECT_EQ(ParseSyntheticModel("llama-3.1-8b:f16")->output_type, TensorType::kF16);
}

TEST(NamedShapesTest, ShortRowsTakeTheNextTypeWithSmallBlocks) {
  EXPECT_EQ(ParseSyntheticModel("tiny:q4_k")->matrix_type, TensorType::kQ5_0);
  EXPECT_EQ(ParseSyntheticModel("tiny:q6_k")->matrix_type, TensorType::kQ8_0);
  EXPECT_EQ(ParseSyntheticModel("tiny:q4_0")->output_type, TensorType::kQ8_0);
  EXPECT_EQ(ParseSyntheticModel("house:q4_k")->matrix_type, TensorType::kQ4_K);
}

TEST(NamedShapesTest, RefusalsSayWhatThereIs) {
  EXPECT_THAT(Refusal("llama-3.2-1b"), HasSubstr("names no type"));
  EXPECT_THAT(Refusal("llama-9:q4_0"), HasSubstr("llama-3.1-8b, llama-3.2-3b"));
  EXPECT_THAT(Refusal("tiny:q3_k"), HasSubstr("type \"q3_k\" is not known; there are f32, f16"));
  EXPECT_THAT(Refusal("tiny:q4_0+"), HasSubstr("type \"\" is not known"));
}

}  // namespace
}  // namespace reticle::models
