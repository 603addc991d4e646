#include "server/http/json_writer.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "server/core/json_value.h"

namespace reticle::server::http {
namespace {

std::string Escaped(std::string_view text) {
  std::string out;
  AppendJsonString(out, text);
  return out;
}

TEST(JsonWriterTest, EscapesWhatJsonForbids) {
  EXPECT_EQ(Escaped("a\"b\\c/\b\f\n\r\t\x01\x7f"), R"("a\"b\\c/\b\f\n\r\t\u0001\u007f")");
  EXPECT_EQ(Escaped("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"),
            "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"");
  EXPECT_EQ(Escaped(std::string_view("\0", 1)), R"("\u0000")");
}

TEST(JsonWriterTest, BytesThatAreNoUtf8AreReplaced) {
  const std::string replaced = "\xef\xbf\xbd";
  EXPECT_EQ(Escaped("a\xff"), "\"a" + replaced + "\"");
  EXPECT_EQ(Escaped("\xc3"), "\"" + replaced + "\"");
  EXPECT_EQ(Escaped("\xed\xa0\x80"), "\"" + replaced + replaced + replaced + "\"");  // surrogate
  EXPECT_EQ(Escaped("\xc0\xaf"), "\"" + replaced + replaced + "\"");                 // overlong
  EXPECT_EQ(Escaped("\xf4\x90\x80\x80").size(), 2 + 4 * replaced.size());
}

TEST(JsonWriterTest, AnyBytesGiveValidJson) {
  std::mt19937 random(3);
  for (int round = 0; round < 2000; ++round) {
    std::string bytes(random() % 20, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    EXPECT_TRUE(ParseJsonValue(Escaped(bytes)).ok());
  }
}

TEST(JsonWriterTest, Numbers) {
  std::string out;
  AppendInt(out, std::numeric_limits<int64_t>::min());
  out += ' ';
  AppendFloat(out, -0.25f);
  out += ' ';
  AppendFloat(out, -std::numeric_limits<float>::infinity());
  out += ' ';
  AppendFloat(out, std::numeric_limits<float>::quiet_NaN());
  out += ' ';
  AppendMillis(out, 1'234'567);
  EXPECT_EQ(out, "-9223372036854775808 -0.25 -9999.0 null 1.235");
}

}  // namespace
}  // namespace reticle::server::http
