#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tokenizer/jinja/json.h"
#include "tokenizer/jinja/repr.h"
#include "tokenizer/jinja/runtime.h"
#include "tokenizer/jinja/strftime.h"
#include "tokenizer/jinja/text.h"
#include "tokenizer/jinja/unicode.h"

namespace reticle::tokenizer::jinja {
namespace {

// "abc" trusted and "DEF" untrusted would be "abc[DEF]".
std::string Marked(const Text& text) {
  std::string out;
  text.ForEachRun(0, text.size(), [&](std::string_view run, bool untrusted) {
    out += untrusted ? "[" + std::string(run) + "]" : std::string(run);
  });
  return out;
}

TEST(TextTest, AppendKeepsMarksAndMergesRuns) {
  Text text("ab");
  text.Append("CD", true);
  text.Append("EF", true);
  text.Append("", false);
  text.Append("gh");
  EXPECT_EQ(Marked(text), "ab[CDEF]gh");
  text.Append(text);
  EXPECT_EQ(Marked(text), "ab[CDEF]ghab[CDEF]gh");
}

TEST(TextTest, SubstrKeepsMarksOfEveryRange) {
  Text text("ab");
  text.Append("CD", true);
  text.Append("e");
  text.Append("F", true);
  std::string bytes = text.str();
  for (size_t begin = 0; begin <= bytes.size(); ++begin) {
    for (size_t end = begin; end <= bytes.size(); ++end) {
      const Text part = text.Substr(begin, end - begin);
      EXPECT_EQ(part.str(), bytes.substr(begin, end - begin));
      std::string expected;
      bool open = false;
      for (size_t i = begin; i < end; ++i) {
        const bool untrusted = bytes[i] >= 'A' && bytes[i] <= 'Z';
        if (untrusted != open) expected += untrusted ? "[" : "]";
        open = untrusted;
        expected += bytes[i];
      }
      EXPECT_EQ(Marked(part), expected + (open ? "]" : ""));
    }
  }
}

TEST(TextTest, EmptyTextIsNeverUntrusted) {
  EXPECT_FALSE(Text("", true).has_untrusted());
  Text empty;
  empty.Taint();
  EXPECT_FALSE(empty.has_untrusted());
  EXPECT_FALSE(Text("ab", true).Substr(1, 0).has_untrusted());
}

TEST(DictTest, FindsByKeyBeforeAndAfterItIsIndexed) {
  Dict dict;
  for (int i = 0; i < 100; ++i) {
    dict.Set(Value("key" + std::to_string(i)), Value(i));
    dict.Set(Value(i), Value(-i));
    EXPECT_EQ(dict.Find(std::string_view("key0"))->integer(), 0);
  }
  dict.Set(Value("key50"), Value(5000));
  ASSERT_EQ(dict.size(), 200u);
  EXPECT_EQ(dict.Find(std::string_view("key50"))->integer(), 5000);
  EXPECT_EQ(dict.items()[100].second.integer(), 5000) << "a replaced value keeps its place";
  EXPECT_EQ(dict.Find(Value(99))->integer(), -99);
  EXPECT_EQ(dict.Find(Value(99.0))->integer(), -99);
  EXPECT_EQ(dict.Find(std::string_view("key100")), nullptr);
  const Dict copy = dict;
  EXPECT_EQ(copy.Find(std::string_view("key99"))->integer(), 99);
}

TEST(FloatReprTest, IsPythons) {
  const std::vector<std::pair<double, std::string>> cases = {{0.0, "0.0"},
                                                             {-0.0, "-0.0"},
                                                             {1.0, "1.0"},
                                                             {0.1, "0.1"},
                                                             {1e15, "1000000000000000.0"},
                                                             {1e16, "1e+16"},
                                                             {1.5e-5, "1.5e-05"},
                                                             {0.0001, "0.0001"},
                                                             {123456.789, "123456.789"},
                                                             {5e-324, "5e-324"},
                                                             {1e100, "1e+100"},
                                                             {-2.5, "-2.5"}};
  for (const auto& [value, expected] : cases) EXPECT_EQ(FloatRepr(value), expected);
}

std::string RoundTrip(std::string_view json) {
  const auto value = ParseJson(json);
  if (!value.ok()) return std::string(value.status().message());
  Runtime runtime(Limits{}, 0);
  Text out;
  const absl::Status status = WriteJson(runtime, *value, JsonFormat{}, out);
  return status.ok() ? out.str() : std::string(status.message());
}

TEST(JsonTest, KeepsOrderAndEveryDigit) {
  EXPECT_EQ(RoundTrip(R"( {"b": 1, "a": [true, null, 1.0, -0.5e3], "b": 2} )"),
            R"({"b": 2, "a": [true, null, 1.0, -500.0]})");
  EXPECT_EQ(RoundTrip("18446744073709551616"), "18446744073709551616");
  EXPECT_EQ(RoundTrip("-9223372036854775808"), "-9223372036854775808");
  EXPECT_EQ(RoundTrip("0.30000000000000004"), "0.30000000000000004");
  EXPECT_EQ(RoundTrip(R"("\ud83d\ude00\u00e9\n\u0001/\/")"), "\"😀é\\n\\u0001//\"");
}

TEST(JsonTest, RefusesWhatIsNotJson) {
  for (const char* text : {"",
                           "{",
                           "[1,]",
                           "{\"a\":1,}",
                           "{a:1}",
                           "01",
                           "1.",
                           ".5",
                           "+1",
                           "1e",
                           "nul",
                           "NaN",
                           "\"\x01\"",
                           "\"\\x\"",
                           "\"\\ud800\"",
                           "\"\\udc00\"",
                           "\"\\ud800\\u0041\"",
                           "\"abc",
                           "1 2",
                           "\"\xFF\"",
                           "[1 2]",
                           "'a'"}) {
    const auto value = ParseJson(text);
    EXPECT_EQ(value.status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
  EXPECT_EQ(RoundTrip("[1, 2"), "JSON, offset 5: expected ',' or ']'");
}

TEST(JsonTest, LimitsDepth) {
  const auto nested = [](int depth) {
    return std::string(static_cast<size_t>(depth), '[') +
           std::string(static_cast<size_t>(depth), ']');
  };
  EXPECT_TRUE(ParseJson(nested(64)).ok());
  EXPECT_FALSE(ParseJson(nested(65)).ok());
  EXPECT_FALSE(ParseJson(std::string(1000000, '[')).ok());
}

TEST(JsonTest, MarksStringsAndKeysUntrustedIfAsked) {
  const auto value = ParseJson(R"({"k": ["v", 1]})", {.untrusted = true});
  ASSERT_TRUE(value.ok());
  EXPECT_TRUE(value->dict().items()[0].first.text().has_untrusted());
  EXPECT_TRUE(value->dict().items()[0].second.items()[0].text().has_untrusted());
  const auto trusted = ParseJson(R"({"k": ["v", 1]})");
  ASSERT_TRUE(trusted.ok());
  EXPECT_FALSE(trusted->dict().items()[0].first.text().has_untrusted());
  const Value marked = MarkUntrusted(*trusted);
  EXPECT_TRUE(marked.dict().items()[0].first.text().has_untrusted());
  EXPECT_TRUE(marked.dict().items()[0].second.items()[0].text().has_untrusted());
}

TEST(StrftimeTest, IsEnglishAndUtc) {
  EXPECT_EQ(FormatTime("%d %b %Y %H:%M:%S %A %j %-d %I%p %%", 951827696),
            "29 Feb 2000 12:34:56 Tuesday 060 29 12PM %");
  EXPECT_EQ(FormatTime("%Y-%m-%d", -1), "1969-12-31");
  EXPECT_EQ(FormatTime("%G-W%V-%u %U %W", 1609459199), "2020-W53-4 52 52");
  EXPECT_EQ(FormatTime("%Q %", 0), "%Q %");
}

TEST(UnicodeTest, CountsAndMovesOverInvalidUtf8WithoutHarm) {
  for (const std::string text : {"a\x80z", "\x80\x80", "\xC3", "\xF0\x9F\x98", "é☃😀"}) {
    const size_t count = CountCharacters(text);
    EXPECT_EQ(SkipCharacters(text, 0, count), text.size());
    EXPECT_EQ(SkipCharactersBack(text, text.size(), count), 0u);
    EXPECT_EQ(SkipCharactersBack(text, text.size(), count + 1), std::string_view::npos);
  }
  EXPECT_TRUE(IsValidUtf8("aé☃😀"));
  EXPECT_FALSE(IsValidUtf8("\xC0\x80"));
  EXPECT_FALSE(IsValidUtf8("\xED\xA0\x80"));
  EXPECT_FALSE(IsValidUtf8("\xF4\x90\x80\x80"));
}

}  // namespace
}  // namespace reticle::tokenizer::jinja
