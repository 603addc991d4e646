#include "tokenizer/unicode.h"

#include <string>

#include "gtest/gtest.h"
#include "unicode/uchar.h"
#include "unicode/utf8.h"
#include "unicode/uversion.h"

namespace reticle::tokenizer {
namespace {

TEST(CharClassesTest, AgreesWithIcuOnEveryCodePoint) {
  const CharClasses& classes = CharClasses::Get();
  UVersionInfo icu_version;
  u_getUnicodeVersion(icu_version);
  const int ours = std::stoi(std::string(CharClasses::unicode_version()));
  int compared = 0;
  for (uint32_t c = 0; c <= 0x10FFFF; ++c) {
    const auto code_point = static_cast<UChar32>(c);
    UVersionInfo age;
    u_charAge(code_point, age);
    if (age[0] > ours || (age[0] == 0 && icu_version[0] < ours)) continue;
    const uint32_t mask = U_GET_GC_MASK(code_point);
    int expected = kOtherClass;
    if (mask & U_GC_L_MASK) expected |= kLetter;
    if (mask & U_GC_N_MASK) expected |= kNumber;
    if (mask & U_GC_P_MASK) expected |= kPunctuation;
    if (u_hasBinaryProperty(code_point, UCHAR_WHITE_SPACE)) expected |= kSpace;
    if (c == '\r' || c == '\n') expected |= kNewline;
    ASSERT_EQ(classes.Of(c), expected) << std::hex << c;
    ++compared;
  }
  EXPECT_GT(compared, 280000);
  EXPECT_EQ(classes.Of(0x110000), kOtherClass);
}

TEST(DecodeUtf8Test, AgreesWithIcuOnEverySequenceOfThreeBytesAndTheirPrefixes) {
  // Every pair of first bytes, with thirds that lie on the borders of the continuation range.
  for (int first = 0; first < 256; ++first) {
    for (int second = 0; second < 256; ++second) {
      for (int third : {0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF}) {
        for (int fourth : {0x41, 0x80, 0xBF, 0xC2}) {
          const char bytes[] = {static_cast<char>(first), static_cast<char>(second),
                                static_cast<char>(third), static_cast<char>(fourth)};
          for (int size = 1; size <= 4; ++size) {
            int32_t next = 0;
            UChar32 expected;
            U8_NEXT(reinterpret_cast<const uint8_t*>(bytes), next, size, expected);
            const Utf8Char c = DecodeUtf8(bytes, bytes + size);
            ASSERT_EQ(c.valid, expected >= 0);
            ASSERT_EQ(int{c.size}, next) << first << " " << second << " " << third;
            if (c.valid) {
              ASSERT_EQ(static_cast<UChar32>(c.code_point), expected);
            }
            ASSERT_TRUE(!c.incomplete || c.size == size);
          }
        }
      }
    }
  }
}

TEST(DecodeUtf8Test, KnowsWhatMoreBytesCouldComplete) {
  for (std::string_view prefix : {"\xC3", "\xE2", "\xE2\x82", "\xF0", "\xF0\x9F", "\xF0\x9F\x98"}) {
    EXPECT_TRUE(DecodeUtf8(prefix.data(), prefix.data() + prefix.size()).incomplete);
  }
  for (std::string_view broken : {"\xC0", "\xFF", "\x80", "\xED\xA0", "\xF5", "\xE0\x80"}) {
    EXPECT_FALSE(DecodeUtf8(broken.data(), broken.data() + broken.size()).incomplete);
  }
}

}  // namespace
}  // namespace reticle::tokenizer
