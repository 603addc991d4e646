#include "tokenizer/special_matcher.h"

#include <random>
#include <string>

#include "gtest/gtest.h"

namespace reticle::tokenizer {
namespace {

using Patterns = std::vector<std::pair<std::string_view, TokenId>>;

struct Found {
  size_t begin;
  size_t size;
  TokenId token;
  friend bool operator==(const Found&, const Found&) = default;
};

std::vector<Found> Find(const Patterns& patterns, std::string_view text) {
  const SpecialMatcher matcher(patterns);
  std::vector<SpecialMatcher::Match> matches;
  matcher.Find(text, matches);
  std::vector<Found> found;
  for (const auto& match : matches) found.push_back({match.begin, match.size, match.token});
  return found;
}

std::vector<Found> FindNaively(const Patterns& patterns, std::string_view text) {
  std::vector<Found> found;
  for (size_t i = 0; i < text.size();) {
    Found best = {i, 0, 0};
    for (const auto& [pattern, token] : patterns) {
      if (pattern.size() > best.size && text.substr(i, pattern.size()) == pattern) {
        best = {i, pattern.size(), token};
      }
    }
    if (best.size > 0) found.push_back(best);
    i += best.size > 0 ? best.size : 1;
  }
  return found;
}

TEST(SpecialMatcherTest, TakesTheLongestOfTheLeftmost) {
  const Patterns patterns = {{"<|a", 1}, {"<|a|>", 2}, {"|><", 3}, {"<|ab|>", 4}};
  EXPECT_EQ(Find(patterns, "x<|a|><|ab|><|ab"),
            (std::vector<Found>{{1, 5, 2}, {6, 6, 4}, {12, 3, 1}}));
  EXPECT_TRUE(Find(patterns, "").empty());
  EXPECT_TRUE(Find({}, "<|a|>").empty());
  EXPECT_TRUE(SpecialMatcher().empty());
}

TEST(SpecialMatcherTest, AgreesWithSearchingOneByOne) {
  std::mt19937 random(1);
  const auto word = [&](size_t longest) {
    std::string text;
    for (size_t size = 1 + random() % longest; size > 0; --size) text += "ab<"[random() % 3];
    return text;
  };
  size_t matched = 0;
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> texts;
    for (size_t i = 1 + random() % 8; i > 0; --i) texts.push_back(word(6));
    Patterns patterns;
    for (const std::string& text : texts) {
      patterns.emplace_back(text, static_cast<TokenId>(patterns.size()));
    }
    const std::string text = word(60);
    const std::vector<Found> expected = FindNaively(patterns, text);
    matched += expected.size();
    ASSERT_EQ(Find(patterns, text), expected) << text;
  }
  EXPECT_GT(matched, 10000u);
}

}  // namespace
}  // namespace reticle::tokenizer
