#include "backends/hardwired/timing/virtual_clock.h"

#include <gtest/gtest.h>

namespace reticle::backends::hardwired {
namespace {

class At : public VirtualClock::Source {
 public:
  explicit At(int64_t ns) : ns_(ns) {}
  int64_t NextEventNanos() const override { return ns_; }
  void Move(int64_t ns) { ns_ = ns; }

 private:
  int64_t ns_;
};

TEST(VirtualClockTest, JumpsToTheEarliestEvent) {
  const auto clock = VirtualClock::Create("jumps");
  ASSERT_NE(clock, nullptr);
  EXPECT_FALSE(clock->AdvanceToNextEvent());
  At first(300);
  At second(200);
  clock->AddSource(&first);
  clock->AddSource(&second);
  EXPECT_TRUE(clock->AdvanceToNextEvent());
  EXPECT_EQ(clock->NowNanos(), 200);
  second.Move(INT64_MAX);
  EXPECT_TRUE(clock->AdvanceToNextEvent(250));
  EXPECT_EQ(clock->NowNanos(), 250);
  EXPECT_TRUE(clock->AdvanceToNextEvent());
  EXPECT_EQ(clock->NowNanos(), 300);
  // What is overdue does not turn time back.
  first.Move(10);
  EXPECT_TRUE(clock->AdvanceToNextEvent());
  EXPECT_EQ(clock->NowNanos(), 300);
  clock->RemoveSource(&first);
  clock->RemoveSource(&second);
  EXPECT_FALSE(clock->AdvanceToNextEvent());
}

TEST(VirtualClockTest, IsFoundByItsNameWhileItLives) {
  auto clock = VirtualClock::Create("named");
  EXPECT_EQ(VirtualClock::Find("named"), clock);
  EXPECT_EQ(VirtualClock::Create("named"), nullptr);
  EXPECT_EQ(VirtualClock::Find("another"), nullptr);
  clock.reset();
  EXPECT_EQ(VirtualClock::Find("named"), nullptr);
  EXPECT_NE(VirtualClock::Create("named"), nullptr);
}

}  // namespace
}  // namespace reticle::backends::hardwired
