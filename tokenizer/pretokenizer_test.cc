#include "tokenizer/pretokenizer.h"

#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tokenizer/testing.h"
#include "unicode/regex.h"
#include "unicode/unistr.h"

namespace reticle::tokenizer {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> Split(PreTokenizerKind kind, std::string_view text) {
  std::vector<std::string> pieces;
  PreTokens tokens(kind, text);
  for (std::string_view piece; tokens.Next(piece);) pieces.emplace_back(piece);
  return pieces;
}

// Compiled once: the classes of letters make that slow.
const icu::RegexPattern& Compiled(const char* pattern) {
  static std::map<std::string, std::unique_ptr<icu::RegexPattern>> compiled;
  std::unique_ptr<icu::RegexPattern>& regex = compiled[pattern];
  if (regex == nullptr) {
    UErrorCode error = U_ZERO_ERROR;
    regex.reset(icu::RegexPattern::compile(icu::UnicodeString::fromUTF8(pattern), 0, error));
    EXPECT_TRUE(U_SUCCESS(error)) << pattern;
  }
  return *regex;
}

// Cuts each part into the matches of `pattern` and what lies between them.
std::vector<icu::UnicodeString> SplitBy(const char* pattern,
                                        const std::vector<icu::UnicodeString>& parts) {
  const icu::RegexPattern& regex = Compiled(pattern);
  UErrorCode error = U_ZERO_ERROR;
  std::vector<icu::UnicodeString> result;
  for (const icu::UnicodeString& part : parts) {
    const std::unique_ptr<icu::RegexMatcher> matcher(regex.matcher(part, error));
    int32_t position = 0;
    while (matcher->find(error)) {
      const int32_t begin = matcher->start(error);
      const int32_t end = matcher->end(error);
      if (begin > position) result.push_back(icu::UnicodeString(part, position, begin - position));
      if (end > begin) result.push_back(icu::UnicodeString(part, begin, end - begin));
      position = end;
    }
    if (position < part.length()) result.push_back(icu::UnicodeString(part, position));
  }
  return result;
}

// The published expressions, with \s written as White_Space, which is not ICU's \s.
#define SPACE "\\p{White_Space}"
#define GPT2                                                                                      \
  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" SPACE "\\p{L}\\p{N}]+|" SPACE "+(?![^" SPACE \
  "])|" SPACE "+"
#define LLAMA3(digits)                                                               \
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?[^" SPACE \
  "\\p{L}\\p{N}]+[\\r\\n]*|" SPACE "*[\\r\\n]+|" SPACE "+(?![^" SPACE "])|" SPACE "+"

std::vector<std::string> ReferenceSplit(PreTokenizerKind kind, std::string_view text) {
  std::vector<const char*> patterns;
  switch (kind) {
    case PreTokenizerKind::kLlama3:
      patterns = {LLAMA3("\\p{N}{1,3}")};
      break;
    case PreTokenizerKind::kQwen2:
      patterns = {LLAMA3("\\p{N}")};
      break;
    case PreTokenizerKind::kGpt2:
      patterns = {GPT2};
      break;
    case PreTokenizerKind::kSingleDigitsThenGpt2:
      patterns = {"\\p{N}", GPT2};
      break;
    case PreTokenizerKind::kUnnamed:
      patterns = {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"};
      break;
  }
  std::vector<icu::UnicodeString> parts = {
      icu::UnicodeString::fromUTF8(icu::StringPiece(text.data(), static_cast<int>(text.size())))};
  for (const char* pattern : patterns) parts = SplitBy(pattern, parts);
  std::vector<std::string> result;
  for (const icu::UnicodeString& part : parts) part.toUTF8String(result.emplace_back());
  return result;
}

class PreTokenizerTest : public ::testing::TestWithParam<PreTokenizerKind> {};

TEST_P(PreTokenizerTest, EqualsItsExpressionOnSentences) {
  for (std::string_view sentence : Sentences()) {
    EXPECT_EQ(Split(GetParam(), sentence), ReferenceSplit(GetParam(), sentence)) << sentence;
  }
  EXPECT_EQ(Split(GetParam(), Corpus()), ReferenceSplit(GetParam(), Corpus()));
}

TEST_P(PreTokenizerTest, EqualsItsExpressionOnRandomText) {
  std::mt19937 random(1);
  for (int i = 0; i < 4000; ++i) {
    const std::string text = RandomText(random, 1 + random() % 24);
    ASSERT_EQ(Split(GetParam(), text), ReferenceSplit(GetParam(), text)) << text;
  }
}

TEST_P(PreTokenizerTest, EqualsItsExpressionOnBorderCases) {
  static constexpr std::string_view kParts[] = {
      " ",
      "\n",
      "\r",
      "\t",
      "a",
      "S",
      "'",
      "s",
      "l",
      "1",
      "22",
      "\xC2\xB2",
      "!",
      "$",
      "\xC5\xBF",
      "\xC2\xA0",
      "\xC2\x85",
      "\xEF\xBB\xBF",
      "\xCC\x81",
      "\xE4\xB8\xAD",
      "\xF0\x9F\x98\x80",
      "\x1C",
  };
  std::mt19937 random(2);
  for (int i = 0; i < 12000; ++i) {
    std::string text;
    for (size_t parts = 1 + random() % 9; parts > 0; --parts) {
      text += kParts[random() % std::size(kParts)];
    }
    ASSERT_EQ(Split(GetParam(), text), ReferenceSplit(GetParam(), text)) << text;
  }
}

TEST_P(PreTokenizerTest, KeepsEveryByteOfAnyInput) {
  std::mt19937 random(3);
  for (int i = 0; i < 2000; ++i) {
    const std::string bytes = RandomBytes(random, random() % 40);
    std::string joined;
    for (const std::string& piece : Split(GetParam(), bytes)) {
      ASSERT_FALSE(piece.empty());
      joined += piece;
    }
    ASSERT_EQ(joined, bytes);
  }
}

TEST_P(PreTokenizerTest, LooksAtEachCharacterAFewTimesOnly) {
  std::mt19937 random(4);
  constexpr size_t kSize = 50000;
  std::vector<std::string> texts = {RandomBytes(random, kSize), RandomText(random, kSize)};
  for (std::string_view part : {"a", " ", "\n", " \n", "1", "'", "!", "\xC2\xB2", "1\xC2\xB2", "a ",
                                " 1", "\xC2\xA0", "\xF0\x9F\x98\x80", "\xCC\x81", "$1", "'s"}) {
    std::string text;
    while (text.size() < kSize) text += part;
    texts.push_back(text);
    texts.push_back(text + "x");
  }
  for (const std::string& text : texts) {
    PreTokens tokens(GetParam(), text);
    for (std::string_view piece; tokens.Next(piece);) {
    }
    EXPECT_LE(tokens.characters_scanned(), 6 * text.size()) << text.substr(0, 8);
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, PreTokenizerTest,
                         ::testing::Values(PreTokenizerKind::kLlama3, PreTokenizerKind::kQwen2,
                                           PreTokenizerKind::kGpt2,
                                           PreTokenizerKind::kSingleDigitsThenGpt2,
                                           PreTokenizerKind::kUnnamed));

TEST(PreTokenizerLlama3Test, TreatsIllFormedBytesAsSymbols) {
  EXPECT_THAT(Split(PreTokenizerKind::kLlama3, "ab\xFFgh \xC3 1"),
              ElementsAre("ab", "\xFFgh", " \xC3", " ", "1"));
}

TEST(FindPreTokenizerTest, KnowsTheNamesOfConverters) {
  ASSERT_TRUE(FindPreTokenizer("llama-bpe").has_value());
  EXPECT_TRUE(FindPreTokenizer("llama-bpe")->ignore_merges);
  EXPECT_EQ(FindPreTokenizer("qwen2")->kind, PreTokenizerKind::kQwen2);
  EXPECT_FALSE(FindPreTokenizer("gpt-2")->ignore_merges);
  EXPECT_FALSE(FindPreTokenizer("no-such").has_value());
}

}  // namespace
}  // namespace reticle::tokenizer
