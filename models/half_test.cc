#include "models/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace reticle::models {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// The value of a half from the definition of the format, in double.
double Definition(uint16_t half) {
  const double sign = half & 0x8000 ? -1.0 : 1.0;
  const int exponent = (half >> 10) & 31;
  const int fraction = half & 1023;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  if (exponent == 31) return fraction == 0 ? sign * kInf : std::nan("");
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

TEST(HalfTest, EveryHalfIsDecodedAndComesBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const uint16_t half = static_cast<uint16_t>(bits);
    const float value = HalfToFloat(half);
    if (std::isnan(Definition(half))) {
      EXPECT_TRUE(std::isnan(value)) << bits;
      EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(value)))) << bits;
      continue;
    }
    ASSERT_EQ(value, Definition(half)) << bits;
    ASSERT_EQ(std::signbit(value), bits >= 0x8000) << bits;
    ASSERT_EQ(FloatToHalf(value), half);
  }
}

// Between each two neighbouring halves: just below, at and just above the middle.
TEST(HalfTest, RoundsToNearestTiesToEven) {
  for (uint16_t low = 0; low < 0x7bff; ++low) {
    const float a = HalfToFloat(low);
    const float b = HalfToFloat(static_cast<uint16_t>(low + 1));
    const float middle = a + (b - a) / 2;
    const uint16_t even = static_cast<uint16_t>(low + (low & 1));
    ASSERT_EQ(FloatToHalf(middle), even) << low;
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, -kInf)), low) << low;
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, kInf)), low + 1) << low;
    ASSERT_EQ(FloatToHalf(-middle), even | 0x8000) << low;
  }
}

TEST(HalfTest, Extremes) {
  EXPECT_EQ(FloatToHalf(kMaxHalf), 0x7bff);
  EXPECT_EQ(FloatToHalf(65519.996f), 0x7bff);
  EXPECT_EQ(FloatToHalf(65520.0f), 0x7c00);
  EXPECT_EQ(FloatToHalf(-kInf), 0xfc00);
  EXPECT_EQ(FloatToHalf(std::numeric_limits<float>::max()), 0x7c00);
  EXPECT_EQ(FloatToHalf(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_EQ(FloatToHalf(-0.0f), 0x8000);
  EXPECT_EQ(FloatToHalf(0x1p-25f), 0);
  EXPECT_EQ(FloatToHalf(std::nextafter(0x1p-25f, 1.0f)), 1);
}

TEST(Bfloat16Test, EveryValueIsDecodedAndComesBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const uint16_t value = static_cast<uint16_t>(bits);
    const float decoded = Bfloat16ToFloat(value);
    if (std::isnan(decoded)) {
      EXPECT_TRUE(std::isnan(Bfloat16ToFloat(FloatToBfloat16(decoded)))) << bits;
    } else {
      ASSERT_EQ(FloatToBfloat16(decoded), value);
    }
  }
}

TEST(Bfloat16Test, RoundsToNearestTiesToEven) {
  EXPECT_EQ(FloatToBfloat16(1.0f), 0x3f80);
  EXPECT_EQ(FloatToBfloat16(1.0f + 0x1p-8f), 0x3f80);
  EXPECT_EQ(FloatToBfloat16(1.0f + 0x1.8p-7f), 0x3f82);
  EXPECT_EQ(FloatToBfloat16(1.0f + 0x1.02p-8f), 0x3f81);
  EXPECT_EQ(FloatToBfloat16(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_EQ(FloatToBfloat16(std::numeric_limits<float>::denorm_min()), 0);
  // A NaN whose payload is in the low bits only must not become infinite.
  EXPECT_TRUE(std::isnan(Bfloat16ToFloat(FloatToBfloat16(std::bit_cast<float>(0x7f800001u)))));
}

}  // namespace
}  // namespace reticle::models
