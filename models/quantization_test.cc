#include "models/quantization.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <string>

#include "models/half.h"

namespace reticle::models {
namespace {

using ::testing::HasSubstr;

constexpr uint16_t kHalfOne = 0x3c00;
constexpr uint16_t kHalfQuarter = 0x3400;
constexpr uint16_t kHalfMinusTwo = 0xc000;

template <typename Block>
std::vector<float> DecodeOne(TensorType type, const Block& block) {
  std::vector<float> values(Traits(type).elements);
  Dequantize(type, std::as_bytes(std::span(&block, 1)), values);
  return values;
}

std::vector<float> RandomValues(size_t n, uint32_t seed, float deviation) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> values(n);
  for (float& value : values) value = normal(generator);
  return values;
}

double RelativeError(TensorType type, const std::vector<float>& values) {
  const auto encoded = Quantize(type, values);
  EXPECT_TRUE(encoded.ok()) << encoded.status();
  std::vector<float> decoded(values.size());
  Dequantize(type, *encoded, decoded);
  double error = 0;
  double norm = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    error += (values[i] - decoded[i]) * (values[i] - decoded[i]);
    norm += values[i] * values[i];
  }
  return std::sqrt(error / norm);
}

TEST(BlockLayoutTest, Q4_0) {
  BlockQ4_0 block = {kHalfQuarter, {}};
  block.quants[0] = 0x1f;   // 15 in place 0, 1 in place 16
  block.quants[15] = 0x80;  // 0 in place 15, 8 in place 31
  const auto x = DecodeOne(TensorType::kQ4_0, block);
  EXPECT_EQ(x[0], 0.25f * 7);
  EXPECT_EQ(x[16], 0.25f * -7);
  EXPECT_EQ(x[15], 0.25f * -8);
  EXPECT_EQ(x[31], 0.0f);
  EXPECT_EQ(x[1], -2.0f);
}

TEST(BlockLayoutTest, Q4_1) {
  BlockQ4_1 block = {kHalfQuarter, kHalfMinusTwo, {}};
  block.quants[3] = 0x9f;
  const auto x = DecodeOne(TensorType::kQ4_1, block);
  EXPECT_EQ(x[3], 0.25f * 15 - 2);
  EXPECT_EQ(x[19], 0.25f * 9 - 2);
  EXPECT_EQ(x[4], -2.0f);
}

TEST(BlockLayoutTest, Q5_0) {
  BlockQ5_0 block = {kHalfOne, {}, {}};
  block.quants[0] = 0x21;
  block.quants[9] = 0xf0;
  block.high_bits[0] = 0x01;  // value 0
  block.high_bits[3] = 0x02;  // value 25
  const auto x = DecodeOne(TensorType::kQ5_0, block);
  EXPECT_EQ(x[0], 1 + 16 - 16.0f);
  EXPECT_EQ(x[16], 2 - 16.0f);
  EXPECT_EQ(x[9], -16.0f);
  EXPECT_EQ(x[25], 15 + 16 - 16.0f);
}

TEST(BlockLayoutTest, Q5_1) {
  BlockQ5_1 block = {kHalfQuarter, kHalfMinusTwo, {}, {}};
  block.quants[15] = 0xa5;
  block.high_bits[1] = 0x80;  // value 15
  block.high_bits[2] = 0x01;  // value 16
  const auto x = DecodeOne(TensorType::kQ5_1, block);
  EXPECT_EQ(x[15], 0.25f * (5 + 16) - 2);
  EXPECT_EQ(x[31], 0.25f * 10 - 2);
  EXPECT_EQ(x[16], 0.25f * 16 - 2);
}

TEST(BlockLayoutTest, Q8_0) {
  BlockQ8_0 block = {kHalfQuarter, {}};
  block.quants[0] = -128;
  block.quants[31] = 127;
  const auto x = DecodeOne(TensorType::kQ8_0, block);
  EXPECT_EQ(x[0], -32.0f);
  EXPECT_EQ(x[31], 31.75f);
}

TEST(BlockLayoutTest, ScalesOfQ4KAreScatteredOverTwelveBytes) {
  const uint8_t packed[12] = {0x7f, 0x80, 0x03, 0xc4, 0x41, 0x92,
                              0xd3, 0x3f, 0x21, 0x43, 0x65, 0x87};
  const ScalesK4 scales = UnpackScalesK4(packed);
  EXPECT_THAT(scales.scales, ::testing::ElementsAre(63, 0, 3, 4, 0x11, 0x23, 0x05, 0x37));
  EXPECT_THAT(scales.mins, ::testing::ElementsAre(1, 0x12, 0x13, 63, 0x12, 0x24, 0x36, 0x08));
  uint8_t repacked[12];
  PackScalesK4(scales, repacked);
  EXPECT_TRUE(std::ranges::equal(packed, repacked));
}

TEST(BlockLayoutTest, Q4_K) {
  BlockQ4_K block = {};
  block.scale = kHalfQuarter;
  block.min_scale = kHalfOne;
  ScalesK4 scales = {{1, 2, 3, 4, 5, 6, 7, 63}, {0, 1, 2, 3, 4, 5, 6, 50}};
  PackScalesK4(scales, block.scales);
  block.quants[0] = 0x3c;    // sub-block 0 value 0, sub-block 1 value 0
  block.quants[127] = 0xe5;  // sub-block 6 value 31, sub-block 7 value 31
  const auto x = DecodeOne(TensorType::kQ4_K, block);
  EXPECT_EQ(x[0], 0.25f * 1 * 12 - 0);
  EXPECT_EQ(x[32], 0.25f * 2 * 3 - 1);
  EXPECT_EQ(x[6 * 32 + 31], 0.25f * 7 * 5 - 6);
  EXPECT_EQ(x[255], 0.25f * 63 * 14 - 50);
  EXPECT_EQ(x[7 * 32], -50.0f);
}

TEST(BlockLayoutTest, Q5_K) {
  BlockQ5_K block = {};
  block.scale = kHalfQuarter;
  block.min_scale = kHalfOne;
  ScalesK4 scales = {{1, 2, 3, 4, 5, 6, 7, 8}, {0, 1, 2, 3, 4, 5, 6, 7}};
  PackScalesK4(scales, block.scales);
  block.quants[32 + 5] = 0x9a;       // sub-blocks 2 and 3, value 5
  block.high_bits[5] = 0b0000'1000;  // the fifth bit of sub-block 3 only
  const auto x = DecodeOne(TensorType::kQ5_K, block);
  EXPECT_EQ(x[2 * 32 + 5], 0.25f * 3 * 10 - 2);
  EXPECT_EQ(x[3 * 32 + 5], 0.25f * 4 * (9 + 16) - 3);
  EXPECT_EQ(x[4 * 32 + 5], -4.0f);
}

TEST(BlockLayoutTest, Q6_K) {
  BlockQ6_K block = {};
  block.scale = kHalfQuarter;
  for (int b = 0; b < 16; ++b) block.scales[b] = static_cast<int8_t>(b - 8);
  block.low_bits[17] = 0x5b;         // values 17 and 81 of the first half
  block.low_bits[32 + 17] = 0x2d;    // values 49 and 113
  block.high_bits[17] = 0b11100100;  // 0, 1, 2, 3 for values 17, 49, 81, 113
  block.low_bits[64 + 63] = 0xf0;    // values 63 and 127 of the second half
  block.high_bits[32 + 31] = 0b11000000;
  const auto x = DecodeOne(TensorType::kQ6_K, block);
  EXPECT_EQ(x[17], 0.25f * -7 * (11 - 32));
  EXPECT_EQ(x[49], 0.25f * -5 * (13 + 16 - 32));
  EXPECT_EQ(x[81], 0.25f * -3 * (5 + 32 - 32));
  EXPECT_EQ(x[113], 0.25f * -1 * (2 + 48 - 32));
  EXPECT_EQ(x[128 + 63], 0.25f * 3 * (0 - 32));
  EXPECT_EQ(x[255], 0.25f * 7 * (15 + 48 - 32));
}

// What can be said of any round trip: relative L2 error of normally distributed values. The bounds
// are a few per cent above what the encoders reach, so that a loss of quality shows.
TEST(QuantizeTest, ErrorIsWithinTheBoundOfTheType) {
  const struct {
    TensorType type;
    double bound;
  } kBounds[] = {
      {TensorType::kF32, 0.0},     {TensorType::kF16, 2.2e-4},  {TensorType::kBF16, 1.8e-3},
      {TensorType::kQ8_0, 5.6e-3}, {TensorType::kQ4_0, 0.084},  {TensorType::kQ4_1, 0.072},
      {TensorType::kQ5_0, 0.042},  {TensorType::kQ5_1, 0.035},  {TensorType::kQ4_K, 0.073},
      {TensorType::kQ5_K, 0.037},  {TensorType::kQ6_K, 0.0172},
  };
  ASSERT_EQ(std::size(kBounds), AllTensorTypes().size());
  for (const float deviation : {0.02f, 3.0f}) {
    const std::vector<float> values = RandomValues(1 << 15, 7, deviation);
    for (const auto& [type, bound] : kBounds) {
      const double error = RelativeError(type, values);
      EXPECT_LE(error, bound) << TensorTypeName(type) << " at deviation " << deviation;
      RecordProperty(std::string(TensorTypeName(type)), std::to_string(error));
    }
  }
}

// 0 and multiples of 1/4 from -2 to 1.75 lie on the grid of these types once the least occurs.
TEST(QuantizeTest, ValuesOnTheGridAreExact) {
  for (const TensorType type : {TensorType::kF32, TensorType::kF16, TensorType::kBF16,
                                TensorType::kQ4_0, TensorType::kQ4_1, TensorType::kQ5_0}) {
    SCOPED_TRACE(TensorTypeName(type));
    std::mt19937 generator(3);
    std::vector<float> values(256);
    for (size_t i = 0; i < values.size(); ++i) {
      const int step = i % 16 == 0 ? 0 : i % 16 == 1 ? 15 : static_cast<int>(generator() % 16);
      values[i] = 0.25f * static_cast<float>(step - 8);
    }
    const auto encoded = Quantize(type, values);
    ASSERT_TRUE(encoded.ok());
    std::vector<float> decoded(values.size());
    Dequantize(type, *encoded, decoded);
    EXPECT_EQ(decoded, values);
  }
}

TEST(QuantizeTest, ZerosConstantsAndOutliersSurvive) {
  for (const TensorType type : AllTensorTypes()) {
    SCOPED_TRACE(TensorTypeName(type));
    const size_t n = 256;
    std::vector<float> decoded(n);
    auto encoded = Quantize(type, std::vector<float>(n, 0.0f));
    ASSERT_TRUE(encoded.ok());
    Dequantize(type, *encoded, decoded);
    EXPECT_THAT(decoded, ::testing::Each(0.0f));
    for (const float constant : {1.0f, -1.0f, 1e-3f, -300.0f}) {
      EXPECT_LT(RelativeError(type, std::vector<float>(n, constant)), 0.01) << constant;
    }
    std::vector<float> spike(n, 1e-4f);
    spike[100] = -50.0f;
    EXPECT_LT(RelativeError(type, spike), 0.01);
    std::vector<float> tiny(n, 1e-42f);
    tiny[3] = -1e-41f;
    encoded = Quantize(type, tiny);
    ASSERT_TRUE(encoded.ok());
    Dequantize(type, *encoded, decoded);
    for (const float value : decoded) EXPECT_LE(std::fabs(value), 1e-7f);
  }
}

TEST(QuantizeTest, RefusesWhatAFormatCannotHold) {
  for (const TensorType type : AllTensorTypes()) {
    SCOPED_TRACE(TensorTypeName(type));
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
          -std::numeric_limits<float>::infinity()}) {
      std::vector<float> values(256, 1.0f);
      values[77] = bad;
      const auto encoded = Quantize(type, values);
      EXPECT_EQ(encoded.status().code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(std::string(encoded.status().message()), HasSubstr("value 77 is"));
    }
  }
  EXPECT_FALSE(Quantize(TensorType::kF16, std::vector<float>{65505.0f}).ok());
  EXPECT_TRUE(Quantize(TensorType::kF16, std::vector<float>{65504.0f}).ok());
  EXPECT_FALSE(Quantize(TensorType::kQ8_0, std::vector<float>(32, 1e7f)).ok());
  EXPECT_FALSE(Quantize(TensorType::kQ4_0, std::vector<float>(31, 1.0f)).ok());
}

TEST(QuantizeTest, LargeMagnitudesThatAreAcceptedStayFinite) {
  for (const TensorType type : AllTensorTypes()) {
    SCOPED_TRACE(TensorTypeName(type));
    std::vector<float> values(256, -1.0f);
    values[5] = 60000.0f;
    values[200] = -60000.0f;
    EXPECT_LT(RelativeError(type, values), 0.05);
  }
}

TEST(DequantizeTest, AnyBitsDecodeAndSourcesNeedNoAlignment) {
  std::mt19937 generator(11);
  for (const TensorType type : AllTensorTypes()) {
    std::vector<std::byte> buffer(Traits(type).bytes * 16 + 1);
    for (std::byte& byte : buffer) byte = static_cast<std::byte>(generator());
    std::vector<float> odd(Traits(type).elements * 16);
    std::vector<float> even(odd.size());
    Dequantize(type, std::span(buffer).subspan(1), odd);
    std::copy(buffer.begin() + 1, buffer.end(), buffer.begin());
    Dequantize(type, std::span(buffer).first(buffer.size() - 1), even);
    for (size_t i = 0; i < odd.size(); ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(odd[i]), std::bit_cast<uint32_t>(even[i]));
    }
  }
}

}  // namespace
}  // namespace reticle::models
