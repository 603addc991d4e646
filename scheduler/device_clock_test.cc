#include "scheduler/device_clock.h"

#include <gtest/gtest.h>

namespace reticle::scheduler {
namespace {

constexpr int64_t kSecond = 1'000'000'000;

TEST(DeviceClock, TheQuickestReportGivesTheOffset) {
  DeviceClock clock;
  EXPECT_EQ(clock.ToHost(100, 5'000'050), 5'000'050);
  EXPECT_EQ(clock.ToHost(200, 5'000'120), 5'000'120);  // 30 ns quicker
  EXPECT_EQ(clock.ToHost(300, 5'000'500), 5'000'220);
}

TEST(DeviceClock, AnEventIsNeverInTheFuture) {
  DeviceClock clock;
  for (int64_t now = 1; now < 100'000; now += 777) {
    EXPECT_LE(clock.ToHost(static_cast<uint64_t>(now * 3), now), now);
  }
}

TEST(DeviceClock, FollowsClocksThatDrift) {
  DeviceClock clock;
  clock.ToHost(0, 1000);
  // The device's clock falls behind: after two windows the old offset is gone.
  EXPECT_EQ(clock.ToHost(kSecond, kSecond + 2000), kSecond + 1000);
  EXPECT_EQ(clock.ToHost(2 * kSecond, 2 * kSecond + 3000), 2 * kSecond + 2000);
  EXPECT_EQ(clock.ToHost(9 * kSecond, 9 * kSecond + 5000), 9 * kSecond + 5000);
}

TEST(DeviceClock, ForgetsAResetDevice) {
  DeviceClock clock;
  clock.ToHost(10 * kSecond, 10 * kSecond);
  clock.Forget();
  EXPECT_EQ(clock.ToHost(5, 10 * kSecond + 7), 10 * kSecond + 7);
}

}  // namespace
}  // namespace reticle::scheduler
