#include "scheduler/adaptive_spin.h"

#include <gtest/gtest.h>

namespace reticle::scheduler {
namespace {

constexpr int64_t kLimit = 160;

TEST(AdaptiveSpin, SpinsForItsLimitAfterWork) {
  AdaptiveSpin spin(kLimit, 1000);
  EXPECT_TRUE(spin.Spins(1000 + kLimit - 1));
  EXPECT_FALSE(spin.Spins(1000 + kLimit));
  spin.OnWork(2000);
  EXPECT_TRUE(spin.Spins(2000 + kLimit - 1));
}

TEST(AdaptiveSpin, SpinsLessWhileItIsInVain) {
  AdaptiveSpin spin(kLimit, 0);
  int64_t now = 0;
  int64_t budget = kLimit;
  for (int i = 0; i < 10; ++i) {
    spin.OnSleep();
    spin.OnSleep();  // a sleep that was woken for nothing counts once
    budget = std::max<int64_t>(budget / 2, kLimit / 16);
    EXPECT_EQ(spin.budget_ns(), budget);
    now += 10 * kLimit;
    spin.OnWork(now);
  }
  EXPECT_EQ(spin.budget_ns(), kLimit / 16);
}

TEST(AdaptiveSpin, ComesBackWhenSpinningWouldHavePaid) {
  AdaptiveSpin spin(kLimit, 0);
  for (int64_t now = 0; now < 10'000; now += 1000) {
    spin.OnSleep();
    spin.OnWork(now + 1000);
  }
  ASSERT_EQ(spin.budget_ns(), kLimit / 16);
  spin.OnSleep();
  spin.OnWork(10'000 + kLimit);
  EXPECT_EQ(spin.budget_ns(), kLimit);
}

TEST(AdaptiveSpin, NeverSpinsWithoutALimit) {
  AdaptiveSpin spin(0, 0);
  spin.OnWork(5);
  EXPECT_FALSE(spin.Spins(5));
}

}  // namespace
}  // namespace reticle::scheduler
