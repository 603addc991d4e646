#include "scheduler/attendance.h"

#include "gtest/gtest.h"

namespace reticle::scheduler {
namespace {

constexpr int64_t kMs = 1'000'000;

// Bookings for each of `seconds` from `begin_ns` on, 100 a second, of which every `of`th comes.
void Live(Attendance& attendance, int64_t begin_ns, int seconds, int of) {
  for (int i = 0; i < seconds * 100; ++i) {
    const int64_t now_ns = begin_ns + i * 10 * kMs;
    attendance.OnBooked(now_ns + kMs);
    if (of != 0 && i % of == 0) attendance.OnCame();
    attendance.Share(now_ns);
  }
}

TEST(AttendanceTest, EverybodyIsExpectedUntilSomebodyStaysAway) {
  Attendance attendance;
  EXPECT_EQ(attendance.Share(0), 1.0);
  attendance.OnBooked(10 * kMs);
  EXPECT_EQ(attendance.Ahead(9 * kMs), 1u);
  EXPECT_EQ(attendance.Ahead(10 * kMs), 0u);
  EXPECT_EQ(attendance.Share(10 * kMs + Attendance::kJudgedAfterNs - 1), 1.0);
  EXPECT_LT(attendance.Share(10 * kMs + Attendance::kJudgedAfterNs), 1.0);
}

TEST(AttendanceTest, FollowsTheShareThatComes) {
  Attendance attendance;
  Live(attendance, 0, 10, 10);
  EXPECT_NEAR(attendance.Share(10'000 * kMs), 0.1, 0.05);
  Live(attendance, 10'000 * kMs, 10, 0);
  EXPECT_LT(attendance.Share(20'000 * kMs), 0.03);
  Live(attendance, 20'000 * kMs, 10, 1);
  EXPECT_GT(attendance.Share(30'000 * kMs), 0.9);
}

}  // namespace
}  // namespace reticle::scheduler
