// Quantisation and the report.
#include "backends/hardwired/rom/tapeout.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "backends/hardwired/rom/quantizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/quantization.h"
#include "models/synthetic.h"

namespace reticle::backends::hardwired {
namespace {

using kernels::PackedMatrix;
using models::GgufTensor;
using models::TensorType;
using testing::HasSubstr;
using Types = TapeoutOptions::Types;

constexpr size_t kRows = 21;
constexpr size_t kColumns = 288;  // a block of 256 and one of 32

// A matrix of some type and what becomes of it.
struct Matrix {
  std::vector<float> weights;
  std::vector<std::byte> bytes;
  GgufTensor tensor{};

  explicit Matrix(TensorType type) : weights(kRows * kColumns) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (float& w : weights) w = 0.1f * normal(random);
    bytes = models::Quantize(type, weights).value();
    tensor = {"m", type, {kColumns, kRows}, bytes, 0};
  }

  // The weights that an image of it stands for.
  absl::StatusOr<std::vector<float>> Through(RomEncoding encoding,
                                             const InputStatistics* inputs) const {
    kernels::ThreadPool pool(2);
    std::vector<std::byte> memory(kernels::PackedBytes(PackedFormatOf(encoding), kRows, kColumns));
    const PackedMatrix packed =
        kernels::LayOutMatrix(PackedFormatOf(encoding), kRows, kColumns, memory.data());
    const absl::Status status = QuantizeMatrix(tensor, encoding, inputs, pool, packed);
    if (!status.ok()) return status;
    std::vector<float> out(kRows * kColumns);
    for (size_t r = 0; r < kRows; ++r) UnpackRow(packed, r, &out[r * kColumns]);
    return out;
  }
};

TEST(QuantizerTest, EightBitsKeepCodesAndScalesOfTypesThatHaveThem) {
  for (const TensorType type : {TensorType::kQ8_0, TensorType::kQ5_0, TensorType::kQ4_0}) {
    const Matrix matrix(type);
    std::vector<float> want(matrix.weights.size());
    models::Dequantize(type, matrix.bytes, want);
    EXPECT_EQ(matrix.Through(RomEncoding::kInt8, nullptr).value(), want);
  }
}

TEST(QuantizerTest, ErrorsAreAsSmallAsTheBitsAllow) {
  const Matrix matrix(TensorType::kF32);
  const auto error = [&](RomEncoding encoding) {
    const std::vector<float> got = matrix.Through(encoding, nullptr).value();
    double sum = 0.0, size = 0.0;
    for (size_t i = 0; i < got.size(); ++i) {
      sum += std::pow(got[i] - matrix.weights[i], 2);
      size += std::pow(matrix.weights[i], 2);
    }
    return std::sqrt(sum / size);
  };
  // An optimal uniform quantiser of a normal distribution loses 0.19 with 8 levels
  // (https://doi.org/10.1109/TIT.1960.1057548); here scales for 32 weights help and codes of 8 bits
  // for them cost a little.
  EXPECT_LT(error(RomEncoding::kThreeBit), 0.2);
  EXPECT_GT(error(RomEncoding::kThreeBit), 0.05);
  EXPECT_LT(error(RomEncoding::kSixBit), 0.025);
  EXPECT_LT(error(RomEncoding::kInt8), 0.008);
}

TEST(QuantizerTest, WhatMattersToTheInputsIsKept) {
  const Matrix matrix(TensorType::kF32);
  // Inputs of few directions and of very different sizes.
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  std::vector<float> mix(kColumns * 24);
  for (size_t i = 0; i < mix.size(); ++i) {
    mix[i] = normal(random) * (i % kColumns % 7 == 0 ? 4.0f : 0.5f);
  }
  const auto input = [&] {
    std::vector<float> x(kColumns);
    for (size_t d = 0; d < 24; ++d) {
      const float part = normal(random);
      for (size_t k = 0; k < kColumns; ++k) x[k] += part * mix[d * kColumns + k];
    }
    return x;
  };
  InputStatistics inputs(kColumns);
  for (int t = 0; t < 400; ++t) inputs.Add(input().data());
  EXPECT_EQ(inputs.tokens(), 400u);
  const std::vector<float> blind = matrix.Through(RomEncoding::kThreeBit, nullptr).value();
  const std::vector<float> seeing = matrix.Through(RomEncoding::kThreeBit, &inputs).value();
  double of_blind = 0.0, of_seeing = 0.0;
  for (int t = 0; t < 50; ++t) {
    const std::vector<float> x = input();
    for (size_t r = 0; r < kRows; ++r) {
      double a = 0.0, b = 0.0;
      for (size_t k = 0; k < kColumns; ++k) {
        a += (blind[r * kColumns + k] - matrix.weights[r * kColumns + k]) * x[k];
        b += (seeing[r * kColumns + k] - matrix.weights[r * kColumns + k]) * x[k];
      }
      of_blind += a * a;
      of_seeing += b * b;
    }
  }
  EXPECT_LT(of_seeing, 0.3 * of_blind);
}

TEST(QuantizerTest, RefusesWhatIsNotFinite) {
  for (const RomEncoding encoding : {RomEncoding::kInt8, RomEncoding::kThreeBit}) {
    Matrix matrix(TensorType::kF32);
    const float bad = std::numeric_limits<float>::infinity();
    std::memcpy(&matrix.bytes[(17 * kColumns + 5) * 4], &bad, 4);
    EXPECT_THAT(std::string(matrix.Through(encoding, nullptr).status().message()),
                HasSubstr("row 17 of tensor 'm'"));
  }
}

class TapeoutTest : public testing::Test {
 protected:
  TapeoutTest() {
    models::SyntheticLlamaOptions options;
    options.matrix_type = TensorType::kQ8_0;
    options.config.tied_embeddings = true;
    bytes_ = models::MakeSyntheticLlama(options).value();
    file_ = models::GgufFile::Parse(bytes_).value();
    TokenText text;
    for (uint32_t i = 0; i < 60; ++i) text.tokens.push_back(i * 37 % 320);
    text.counts.assign(60, true);
    options_.calibration.push_back(text);
    for (size_t i = 0; i < 20; ++i) text.counts[i] = false;
    options_.held_out.push_back(text);
  }
  ~TapeoutTest() override { std::remove(path_.c_str()); }

  absl::StatusOr<TapeoutReport> Run() { return TapeOut(*file_, path_, options_); }

  std::vector<std::byte> bytes_;
  std::unique_ptr<models::GgufFile> file_;
  TapeoutOptions options_;
  const std::string path_ =
      testing::TempDir() + "tapeout_test." + std::to_string(getpid()) + ".rom";
};

TEST_F(TapeoutTest, AFaithfulImageLosesNothing) {
  options_.types = Types::k8;
  const TapeoutReport report = Run().value();
  EXPECT_EQ(report.quality.tokens, 40u);
  EXPECT_EQ(report.quality.kl_divergence, 0.0);
  EXPECT_EQ(report.quality.image_perplexity, report.quality.source_perplexity);
  EXPECT_EQ(report.quality.same_top_token, 1.0);
  EXPECT_EQ(report.calibration_tokens, 0u);
}

TEST_F(TapeoutTest, TheSplitKeepsToItsBitsAndFollowsTheSensitivities) {
  options_.bits_per_weight = 5.0;
  const TapeoutReport report = Run().value();
  double bits = 0.0, weights = 0.0;
  int six = 0, three = 0;
  const TapeoutReport::Tensor* best = nullptr;
  const auto gain = [](const TapeoutReport::Tensor& t) {
    return (t.kl_at_3 - t.kl_at_6) / static_cast<double>(t.weights);
  };
  for (const TapeoutReport::Tensor& tensor : report.tensors) {
    EXPECT_DOUBLE_EQ(tensor.bits_per_weight,
                     8.0 * static_cast<double>(tensor.bytes) / static_cast<double>(tensor.weights));
    if (tensor.encoding == RomEncoding::kFloat32) continue;
    EXPECT_GT(tensor.kl_at_3, tensor.kl_at_6);
    EXPECT_GT(tensor.kl_at_6, 0.0);
    bits += 8.0 * static_cast<double>(tensor.bytes);
    weights += static_cast<double>(tensor.weights);
    (tensor.encoding == RomEncoding::kSixBit ? six : three) += 1;
    if (best == nullptr || gain(tensor) > gain(*best)) best = &tensor;
  }
  EXPECT_LE(bits, 5.0 * weights);
  EXPECT_GT(bits, 4.0 * weights);
  EXPECT_GT(six, 0);
  EXPECT_GT(three, 0);
  EXPECT_EQ(best->encoding, RomEncoding::kSixBit) << best->name;
  EXPECT_EQ(report.calibration_tokens, 60u);
}

TEST_F(TapeoutTest, MoreBitsLoseLess) {
  std::vector<double> lost;
  for (const Types types : {Types::k8, Types::k6, Types::k3And6, Types::k3}) {
    options_.types = types;
    options_.bits_per_weight = 4.5;
    const TapeoutReport report = Run().value();
    lost.push_back(report.quality.kl_divergence);
    EXPECT_EQ(report.types, TypesName(types));
  }
  EXPECT_TRUE(std::ranges::is_sorted(lost)) << testing::PrintToString(lost);
  EXPECT_LT(lost[0], lost[3]);
}

TEST_F(TapeoutTest, SaysWhatIsWrong) {
  const auto message = [&] { return std::string(Run().status().message()); };
  options_.calibration[0].tokens[3] = 320;
  EXPECT_THAT(message(), HasSubstr("calibration text 0 holds token 320; the model has 320"));
  options_.calibration.clear();
  options_.held_out.clear();
  EXPECT_THAT(message(), HasSubstr("types 3/6 need calibration text"));
  EXPECT_THAT(std::string(ParseTypes("4").status().message()), HasSubstr("types is \"4\""));
  models::SyntheticLlamaOptions odd;
  odd.config.ffn_dim = 100;
  odd.with_tokenizer = false;
  bytes_ = models::MakeSyntheticLlama(odd).value();
  file_ = models::GgufFile::Parse(bytes_).value();
  options_.types = Types::k8;
  EXPECT_THAT(message(), HasSubstr("'blk.0.ffn_down.weight' have 100 weights"));
}

}  // namespace
}  // namespace reticle::backends::hardwired
