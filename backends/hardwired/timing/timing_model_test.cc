#include "backends/hardwired/timing/timing_model.h"

#include <gtest/gtest.h>

#include <cmath>

#include "backends/hardwired/timing/energy_meter.h"

namespace reticle::backends::hardwired {
namespace {

Profile Load(const std::string& name) {
  auto profile = LoadProfile(name);
  EXPECT_TRUE(profile.ok()) << profile.status();
  return *std::move(profile);
}

TimingModel ModelOf(const Profile& profile) {
  auto model = TimingModel::Create(profile);
  EXPECT_TRUE(model.ok()) << model.status();
  return *model;
}

TEST(DeviceTimeTest, FractionsAddUp) {
  DeviceTime sum;
  for (int i = 0; i < 3; ++i) sum += DeviceTime::FromNanos(1.0L / 3);
  EXPECT_EQ(sum.nanos(), 1);
  EXPECT_EQ(DeviceTime::FromNanos(0.5L).nanos(), 1);
  EXPECT_EQ(DeviceTime::FromNanos(0.49L).nanos(), 0);
  EXPECT_EQ(DeviceTime::FromNanos(int64_t{1} << 62).nanos(), int64_t{1} << 62);
  EXPECT_EQ((DeviceTime::FromNanos(int64_t{7}) * 3 / 2).nanos(), 11);
}

// 1 / 16,960 s is no whole number of nanoseconds; the n-th token is still at round(n / 16,960 s).
TEST(TimingModelTest, TokensAddUpToTheNanosecond) {
  const TimingModel model = ModelOf(Load("taalas-hc1"));
  DeviceTime now;
  for (int64_t n = 1; n <= 1'000'000; ++n) {
    now += model.DecodeInterval({1, 0, 0}, 0);
    if (n % 9999 != 0 && n != 10'000 && n != 1'000'000) continue;
    // round(n * 1e9 / 16960) in whole numbers
    EXPECT_EQ(now.nanos(), (n * 1'000'000'000 * 2 + 16960) / (2 * 16960)) << n;
  }
}

TEST(TimingModelTest, StreamsBeyondThePipelineShare) {
  Profile profile = Load("taalas-hc1");
  ASSERT_TRUE(OverrideQuantity("timing.pipeline_depth", "4", &profile).ok());
  const TimingModel model = ModelOf(profile);
  const double alone = model.PerUserRate(1);
  EXPECT_NEAR(alone, 16960, 1e-6);
  EXPECT_DOUBLE_EQ(model.PerUserRate(4), alone);
  EXPECT_NEAR(model.PerUserRate(8), alone / 2, 1e-6);
  EXPECT_NEAR(model.AggregateRate(4), 4 * alone, 1e-5);
  EXPECT_NEAR(model.AggregateRate(32), 4 * alone, 1e-4);
  EXPECT_EQ(model.PrefillTime({0, 8, 0}, 0, 100).nanos(), 2 * (1'070'000 + 500'000));
}

TEST(TimingModelTest, PromptsTakeAFixedTimeAndEachTokenIts) {
  const TimingModel model = ModelOf(Load("taalas-hc1"));
  EXPECT_EQ(model.PrefillTime({0, 1, 0}, 0, 22).nanos(), 1'070'000 + 22 * 5'000);
  EXPECT_EQ(model.PrefillTime({0, 1, 0}, 512, 22).nanos(), 22 * 5'000);
  // A host that feeds tokens one by one pays for decode steps.
  EXPECT_EQ(model.PrefillTime({0, 1, 0}, 7, 1).nanos(), 58'962);
}

TEST(TimingModelTest, ThePublishedFirstTokenIsMet) {
  for (const auto& [name, prompt] :
       {std::pair{"taalas-hc1", 18}, {"groq-lpu", 18}, {"cerebras-wse3", 12}}) {
    const Profile profile = Load(name);
    const double ttft_ms =
        ModelOf(profile).PrefillTime({0, 1, 0}, 0, prompt).nanos_as_double() / 1e6;
    EXPECT_NEAR(ttft_ms, *profile[Key::kTtft].value, 0.02) << name;
  }
}

TEST(TimingModelTest, ContextCosts) {
  Profile profile = Load("taalas-hc1");
  ASSERT_TRUE(OverrideQuantity("timing.context_term", "2.5", &profile).ok());
  const TimingModel model = ModelOf(profile);
  EXPECT_EQ((model.DecodeInterval({1, 0, 0}, 6000) - model.DecodeInterval({1, 0, 0}, 0)).nanos(),
            15'000);
}

TEST(TimingModelTest, ABatchSlowsEachAndSaturates) {
  const Profile profile = Load("nvidia-h100");
  const TimingModel model = ModelOf(profile);
  const double most = *profile[Key::kAggregateRate].value;
  EXPECT_NEAR(model.PerUserRate(1), *profile[Key::kDecodeRate].value, 1e-6);
  double before = 0;
  for (uint32_t streams = 1; streams <= 1 << 16; streams *= 2) {
    const double aggregate = model.AggregateRate(streams);
    EXPECT_GT(aggregate, before);
    EXPECT_LT(aggregate, most);
    if (streams > 1) {
      EXPECT_LT(model.PerUserRate(streams), model.PerUserRate(streams / 2));
    }
    before = aggregate;
  }
  EXPECT_GT(before, 0.99 * most);
  // A step that carries part of a prompt is longer.
  EXPECT_GT(model.DecodeInterval({8, 1, 100}, 0).nanos(),
            model.DecodeInterval({8, 0, 0}, 0).nanos());
  EXPECT_EQ(model.DecodeInterval({8, 1, 2048}, 0).nanos(),
            model.DecodeInterval({8, 1, 100'000}, 0).nanos());
  // 20 to 40 ms for a prompt of 1,000 tokens.
  const double prefill_ms = model.PrefillTime({0, 1, 1000}, 0, 1000).nanos_as_double() / 1e6;
  EXPECT_GT(prefill_ms, 20);
  EXPECT_LT(prefill_ms, 40);
}

TEST(TimingModelTest, NothingTakesTimeWithoutLimits) {
  const TimingModel model = ModelOf(Load("unlimited"));
  EXPECT_TRUE(model.DecodeInterval({9, 0, 0}, 100).is_zero());
  EXPECT_TRUE(model.PrefillTime({0, 9, 0}, 0, 1000).is_zero());
  EXPECT_EQ(model.PerUserRate(3), 0);
}

TEST(TimingModelTest, EveryBuiltInProfileHasAModel) {
  for (const std::string& name : BuiltInProfileNames()) {
    EXPECT_TRUE(TimingModel::Create(Load(name)).ok()) << name;
  }
}

TEST(EnergyMeterTest, StreamsShareWhatTheDeviceTakes) {
  Profile profile = Load("taalas-hc1");
  ASSERT_TRUE(OverrideQuantity("power.idle", "40", &profile).ok());
  ASSERT_TRUE(OverrideQuantity("timing.pipeline_depth", "2", &profile).ok());
  const TimingModel model = ModelOf(profile);
  EnergyMeter meter(profile, model);
  const auto at = [](int64_t ms) { return DeviceTime::FromNanos(ms * 1'000'000); };
  meter.SetStreams(at(0), 0);
  EXPECT_DOUBLE_EQ(meter.watts(), 40);
  meter.SetStreams(at(10), 1);
  EXPECT_DOUBLE_EQ(meter.watts(), 120);  // half of the pipeline
  meter.SetStreams(at(20), 2);
  EXPECT_DOUBLE_EQ(meter.watts(), 200);
  meter.SetStreams(at(30), 0);
  EXPECT_NEAR(meter.total_nj(), (40 + 120 + 200) * 1e7, 1);
  EXPECT_NEAR(meter.per_stream_nj(), 220e7, 1);
  EXPECT_EQ(meter.busy_ns(), 20'000'000);
  const double cool = meter.celsius();
  meter.set_hot(true);
  meter.Advance(at(60'000));
  EXPECT_GT(meter.celsius(), 80);
  EXPECT_LT(cool, 40);
}

}  // namespace
}  // namespace reticle::backends::hardwired
