#include "server/core/stop_matcher.h"

#include <gtest/gtest.h>

#include <optional>
#include <random>

namespace reticle::server {
namespace {

struct Match {
  size_t end = 0;
  size_t length = 0;
};

// The first end at which any string is complete, and the longest that is complete there.
std::optional<Match> FindNaively(const std::vector<std::string>& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0) {
        longest = std::max(longest, stop.size());
      }
    }
    if (longest > 0) return Match{end, longest};
  }
  return std::nullopt;
}

// The longest end of `text` that is a beginning of a stop string.
size_t HeldNaively(const std::vector<std::string>& stops, const std::string& text) {
  for (size_t held = text.size(); held > 0; --held) {
    for (const std::string& stop : stops) {
      if (held < stop.size() && stop.compare(0, held, text, text.size() - held, held) == 0) {
        return held;
      }
    }
  }
  return 0;
}

TEST(StopMatcherTest, AgreesWithNaiveSearchHoweverTheTextIsCut) {
  std::mt19937 random(7);
  const auto word = [&](size_t longest) {
    std::string text(1 + random() % longest, 'a');
    for (char& c : text) c = static_cast<char>('a' + random() % 2);
    return text;
  };
  int matches = 0;
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::string> stops;
    for (size_t i = 0, count = 1 + random() % 3; i < count; ++i) stops.push_back(word(6));
    const std::string text = word(24);
    const std::optional<Match> expected = FindNaively(stops, text);
    const StopSet set(stops);
    StopMatcher matcher(set);
    size_t fed = 0;
    bool matched = false;
    while (fed < text.size()) {
      const size_t piece = std::min<size_t>(random() % 5, text.size() - fed);
      const StopMatcher::Result result = matcher.Feed(std::string_view(text).substr(fed, piece));
      fed += result.end;
      if (result.matched) {
        ASSERT_TRUE(expected.has_value()) << text;
        EXPECT_EQ(fed, expected->end);
        EXPECT_EQ(stops[result.index].size(), expected->length);
        matched = true;
        ++matches;
        break;
      }
      EXPECT_EQ(matcher.held(), HeldNaively(stops, text.substr(0, fed)));
    }
    EXPECT_EQ(matched, expected.has_value());
  }
  EXPECT_GT(matches, 1000);
}

TEST(StopMatcherTest, WithoutStringsNothingIsHeld) {
  const StopSet none;
  StopMatcher matcher(none);
  const StopMatcher::Result result = matcher.Feed("text");
  EXPECT_FALSE(result.matched);
  EXPECT_EQ(result.end, 4u);
  EXPECT_EQ(matcher.held(), 0u);
}

TEST(StopMatcherTest, ResetForgetsAPartialMatch) {
  const StopSet set({"ab"});
  StopMatcher matcher(set);
  matcher.Feed("a");
  EXPECT_EQ(matcher.held(), 1u);
  matcher.Reset();
  EXPECT_EQ(matcher.held(), 0u);
  EXPECT_FALSE(matcher.Feed("b").matched);
}

}  // namespace
}  // namespace reticle::server
