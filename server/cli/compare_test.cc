#include <algorithm>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/cli/compare_report.h"
#include "server/cli/compare_simulation.h"

namespace reticle::server::cli {
namespace {

namespace hw = backends::hardwired;
using ::testing::HasSubstr;

constexpr Scenario kShort = {"short", "short", 20, 101, 2, 10, 4, 1};

TEST(CompareSimulationTest, OneUserHasTheProfilesRate) {
  const auto measured = Simulate("taalas-hc1", {}, kShort, 1);
  ASSERT_TRUE(measured.ok()) << measured.status();
  EXPECT_EQ(measured->calls, 2u);
  EXPECT_EQ(measured->output_tokens, 202u);
  EXPECT_EQ(measured->prompt_tokens, 20u + 20 + 101 + 10);
  EXPECT_NEAR(measured->per_user, 16960, 1);
  // 1,070 us and 5 us a token, a token to sample, and the link.
  EXPECT_GT(measured->ttft_ms, 1.17);
  EXPECT_GT(measured->session_seconds, 200 / 16960.0);
  EXPECT_GT(measured->joules_per_token, 0.005);
}

TEST(CompareSimulationTest, RunsAreIdentical) {
  for (const char* profile : {"taalas-hc1", "nvidia-h100"}) {
    const auto first = Simulate(profile, {}, kShort, 4);
    const auto second = Simulate(profile, {}, kShort, 4);
    ASSERT_TRUE(first.ok() && second.ok()) << first.status();
    EXPECT_EQ(first->seconds, second->seconds);
    EXPECT_EQ(first->ttft_ms, second->ttft_ms);
    EXPECT_EQ(first->per_user, second->per_user);
    EXPECT_EQ(first->joules_per_token, second->joules_per_token);
  }
}

TEST(CompareSimulationTest, ABatchMakesAGpuSlowerForEachAndFasterInAll) {
  const auto alone = Simulate("nvidia-h100", {}, kShort, 1);
  const auto crowd = Simulate("nvidia-h100", {}, kShort, 64);
  ASSERT_TRUE(alone.ok() && crowd.ok());
  EXPECT_NEAR(alone->per_user, 150, 1);
  EXPECT_LT(crowd->per_user, alone->per_user);
  EXPECT_GT(crowd->aggregate, 10 * alone->aggregate);
  EXPECT_LT(crowd->joules_per_token, alone->joules_per_token / 5);
}

TEST(CompareSimulationTest, ADeeperPipelineServesMoreUsersAtFullSpeed) {
  const auto shallow = Simulate("taalas-hc1", {{"timing.pipeline_depth", "1"}}, kShort, 4);
  const auto deep = Simulate("taalas-hc1", {{"timing.pipeline_depth", "4"}}, kShort, 4);
  ASSERT_TRUE(shallow.ok() && deep.ok()) << deep.status();
  EXPECT_NEAR(deep->per_user, 16960, 1);
  EXPECT_LT(shallow->per_user, 6000);
}

TEST(CompareSimulationTest, SomeProfilesCannotBeSimulated) {
  EXPECT_FALSE(Simulate("no-such-device", {}, kShort, 1).ok());
}

ComparedDevice Compared(const std::string& name, std::optional<double> usd = std::nullopt) {
  const auto profile = hw::LoadProfile(name);
  EXPECT_TRUE(profile.ok());
  ComparedDevice device;
  device.profile = profile->name;
  device.title = profile->title;
  device.users = 4;
  device.alone.per_user = 100;
  device.alone.ttft_ms = 2;
  device.loaded.per_user = 50;
  device.loaded.aggregate = 12345;
  device.loaded.joules_per_token = 0.5;
  Evaluate(*profile, usd, &device);
  return device;
}

TEST(CompareReportTest, LettersAreThoseOfTheWeakestNumber) {
  const ComparedDevice hc1 = Compared("taalas-hc1");
  EXPECT_EQ(hc1.per_user.letter, 'V');
  EXPECT_EQ(hc1.ttft_ms.letter, 'N') << "prefill is inferred";
  EXPECT_EQ(hc1.aggregate.letter, 'N') << "an unknown depth is assumed, which is our inference";
  EXPECT_FALSE(hc1.cost.has_value()) << "nobody knows its price";
  ASSERT_TRUE(hc1.usd_per_million.has_value());
  EXPECT_TRUE(hc1.usd_is_claim);
  EXPECT_EQ(hc1.usd_per_million->letter, 'S');
  const ComparedDevice h100 = Compared("nvidia-h100");
  EXPECT_EQ(h100.per_user.letter, 'S');
  ASSERT_TRUE(h100.cost.has_value());
  EXPECT_EQ(h100.usd_per_million->letter, 'N');
}

TEST(CompareReportTest, APriceGivesACostWithShares) {
  const ComparedDevice hc1 = Compared("taalas-hc1", 5000.0);
  ASSERT_TRUE(hc1.cost.has_value());
  EXPECT_FALSE(hc1.usd_is_claim);
  EXPECT_DOUBLE_EQ(hc1.usd_per_million->value, hc1.cost->total());
  EXPECT_GT(hc1.cost->hardware, hc1.cost->power);
}

TEST(CompareReportTest, AllFormsShowTheFigures) {
  Comparison comparison;
  comparison.utilisation = 0.45;
  ComparedDevice lame;
  lame.profile = "<lame>";
  lame.problem = "it lacks a \"rate\"";
  comparison.scenarios.push_back(
      {&kShort, {Compared("taalas-hc1"), Compared("nvidia-h100"), lame}});
  const std::string table = ComparisonTable(comparison);
  EXPECT_THAT(table, HasSubstr("taalas-hc1"));
  EXPECT_THAT(table, HasSubstr("12,345 N"));
  EXPECT_THAT(table, HasSubstr("0.0075 S*"));
  EXPECT_THAT(table, HasSubstr("<lame>: it lacks a \"rate\""));
  const std::string json = ComparisonJson(comparison);
  EXPECT_THAT(json, HasSubstr(R"("tokens_per_second_in_all":{"value":12345,"provenance":"N"})"));
  EXPECT_THAT(json, HasSubstr(R"("problem":"it lacks a \"rate\"")"));
  EXPECT_THAT(json, HasSubstr(R"("usd_shares":{"hardware":)"));
  EXPECT_EQ(std::count(json.begin(), json.end(), '{'), std::count(json.begin(), json.end(), '}'));
  const std::string svg = ComparisonSvg(comparison);
  EXPECT_THAT(svg, HasSubstr("&lt;lame>"));
  EXPECT_THAT(svg, HasSubstr("unknown"));
  EXPECT_THAT(svg, HasSubstr("</svg>"));
}

}  // namespace
}  // namespace reticle::server::cli
