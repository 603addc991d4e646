#include "loadtest/distribution.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <vector>

#include "loadtest/arrivals.h"

namespace reticle::loadtest {
namespace {

struct Moments {
  double mean = 0;
  double deviation = 0;
  double low = 1e300;
  double high = -1e300;
};

Moments Measure(int count, const std::function<double()>& draw) {
  Moments m;
  double square = 0;
  for (int i = 0; i < count; ++i) {
    const double value = draw();
    m.mean += value;
    square += value * value;
    m.low = std::min(m.low, value);
    m.high = std::max(m.high, value);
  }
  m.mean /= count;
  m.deviation = std::sqrt(std::max(square / count - m.mean * m.mean, 0.0));
  return m;
}

constexpr int kDraws = 200'000;

TEST(RandomTest, HasTheMomentsOfItsDistributions) {
  Random random(1);
  Moments m = Measure(kDraws, [&] { return random.Uniform(); });
  EXPECT_NEAR(m.mean, 0.5, 0.005);
  EXPECT_NEAR(m.deviation, std::sqrt(1.0 / 12), 0.005);
  m = Measure(kDraws, [&] { return random.Exponential(); });
  EXPECT_NEAR(m.mean, 1, 0.01);
  EXPECT_NEAR(m.deviation, 1, 0.02);
  m = Measure(kDraws, [&] { return random.Normal(); });
  EXPECT_NEAR(m.mean, 0, 0.01);
  EXPECT_NEAR(m.deviation, 1, 0.01);
  for (const double shape : {0.0625, 0.5, 1.0, 4.0}) {
    m = Measure(kDraws, [&] { return random.Gamma(shape); });
    EXPECT_NEAR(m.mean, shape, 0.03 * std::max(shape, 0.3)) << shape;
    EXPECT_NEAR(m.deviation, std::sqrt(shape), 0.04 * std::sqrt(shape)) << shape;
  }
}

TEST(RandomTest, IntegersCoverTheirRange) {
  Random random(2);
  std::vector<int> seen(7);
  for (int i = 0; i < 7000; ++i) ++seen.at(static_cast<size_t>(random.Integer(-3, 3) + 3));
  for (const int count : seen) EXPECT_NEAR(count, 1000, 150);
}

TEST(RandomTest, SameSeedSameNumbersOtherStreamOthers) {
  Random a(5, 1);
  Random b(5, 1);
  Random c(5, 2);
  const uint64_t first = a.Next();
  EXPECT_EQ(first, b.Next());
  EXPECT_NE(first, c.Next());
}

Distribution Parse(std::string_view text) {
  const absl::StatusOr<Distribution> parsed = Distribution::Parse(text);
  EXPECT_TRUE(parsed.ok()) << text << ": " << parsed.status();
  return parsed.ok() ? *parsed : Distribution();
}

TEST(DistributionTest, SamplesWhatItSays) {
  Random random(3);
  Moments m = Measure(1000, [&] { return Parse("128").Sample(random); });
  EXPECT_EQ(m.low, 128);
  EXPECT_EQ(m.high, 128);
  const Distribution uniform = Parse("uniform:10:20");
  m = Measure(20'000, [&] { return static_cast<double>(uniform.SampleInteger(random)); });
  EXPECT_EQ(m.low, 10);
  EXPECT_EQ(m.high, 20);
  EXPECT_NEAR(m.mean, 15, 0.1);
  const Distribution normal = Parse("normal:500:50");
  m = Measure(kDraws, [&] { return normal.Sample(random); });
  EXPECT_NEAR(m.mean, 500, 1);
  EXPECT_NEAR(m.deviation, 50, 1);
  const Distribution lognormal = Parse("lognormal:100:0.5");
  m = Measure(kDraws, [&] { return lognormal.Sample(random); });
  EXPECT_NEAR(m.mean, 100 * std::exp(0.125), 1);
  EXPECT_NEAR(lognormal.Mean(), 100 * std::exp(0.125), 1e-9);
  const Distribution clamped = Parse("lognormal:100:2@50-150");
  m = Measure(20'000, [&] { return clamped.Sample(random); });
  EXPECT_EQ(m.low, 50);
  EXPECT_EQ(m.high, 150);
  const Distribution never_negative = Parse("normal:1:50");
  m = Measure(1000, [&] { return never_negative.Sample(random); });
  EXPECT_EQ(m.low, 0);
}

TEST(DistributionTest, TextGoesBothWays) {
  for (const char* text : {"128", "uniform:10:20", "normal:5:2", "lognormal:100:0.5@16-4096",
                           "exponential:2000", "0.5"}) {
    EXPECT_EQ(Parse(text).ToString(), text);
  }
  EXPECT_EQ(Parse("fixed:7").ToString(), "7");
}

TEST(DistributionTest, RefusesWhatItCannotRead) {
  for (const char* text : {"", "x", "-1", "uniform:10", "uniform:20:10", "normal:1:2:3", "zipf:1",
                           "lognormal:0:1", "5@", "5@9-1", "5@1", "nan", "inf", "normal:1:-2"}) {
    EXPECT_FALSE(Distribution::Parse(text).ok()) << text;
  }
}

Scenario Open(ArrivalMode mode, double rate, int64_t seconds) {
  Scenario scenario;
  scenario.mode = mode;
  scenario.rate = rate;
  scenario.duration_ns = seconds * 1'000'000'000;
  return scenario;
}

std::vector<int64_t> All(Arrivals arrivals) {
  std::vector<int64_t> times;
  while (const std::optional<int64_t> at = arrivals.Next()) times.push_back(*at);
  return times;
}

TEST(ArrivalsTest, ConstantIsOneEveryPeriod) {
  const std::vector<int64_t> times = All(Arrivals(Open(ArrivalMode::kConstant, 4, 2), nullptr));
  ASSERT_EQ(times.size(), 8u);
  for (size_t i = 0; i < times.size(); ++i) {
    EXPECT_EQ(times[i], static_cast<int64_t>(i) * 250'000'000);
  }
}

TEST(ArrivalsTest, GapsHaveTheirMeanAndVariation) {
  for (const double cv : {0.25, 1.0, 3.0}) {
    Scenario scenario = Open(cv == 1 ? ArrivalMode::kPoisson : ArrivalMode::kGamma, 1000, 200);
    scenario.cv = cv;
    const std::vector<int64_t> times = All(Arrivals(scenario, nullptr));
    ASSERT_GT(times.size(), 100'000u);
    size_t at = 0;
    const Moments m = Measure(static_cast<int>(times.size()) - 1, [&] {
      ++at;
      return static_cast<double>(times[at] - times[at - 1]) / 1e6;
    });
    EXPECT_GE(m.low, 0);
    EXPECT_NEAR(m.mean, 1, 0.05) << cv;
    EXPECT_NEAR(m.deviation, cv, 0.06 * cv) << cv;
  }
}

TEST(ArrivalsTest, RampGrowsLinearly) {
  Scenario scenario = Open(ArrivalMode::kRamp, 100, 100);
  scenario.rate_end = 900;
  const std::vector<int64_t> times = All(Arrivals(scenario, nullptr));
  EXPECT_NEAR(static_cast<double>(times.size()), 50'000, 1000);
  // In the first half a quarter of the area: (100 + 500) / 2 * 50.
  const auto half = std::lower_bound(times.begin(), times.end(), 50'000'000'000);
  EXPECT_NEAR(static_cast<double>(half - times.begin()), 15'000, 600);
  EXPECT_TRUE(std::is_sorted(times.begin(), times.end()));
}

TEST(ArrivalsTest, RampMayFall) {
  Scenario scenario = Open(ArrivalMode::kRamp, 900, 100);
  scenario.rate_end = 100;
  const std::vector<int64_t> times = All(Arrivals(scenario, nullptr));
  EXPECT_NEAR(static_cast<double>(times.size()), 50'000, 1000);
}

TEST(ArrivalsTest, TraceKeepsItsTimesAtItsSpeed) {
  const Trace trace{{{0, 1, 1, {}}, {500, 1, 1, {}}, {3000, 1, 1, {}}}};
  Scenario scenario = Open(ArrivalMode::kTrace, 1, 1);
  scenario.trace_speed = 2;
  EXPECT_EQ(All(Arrivals(scenario, &trace)), (std::vector<int64_t>{0, 250'000'000}));
}

}  // namespace
}  // namespace reticle::loadtest
