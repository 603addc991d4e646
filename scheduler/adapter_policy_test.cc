#include "scheduler/adapter_policy.h"

#include <map>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace reticle::scheduler {
namespace {

constexpr int64_t kTurn = 100;

TEST(AdapterPolicyTest, StaysWhileNobodyElseWants) {
  const std::vector<AdapterDemand> demands = {{.adapter = 5, .wants = true, .busy = true}};
  const AdapterPlan plan = PlanAdapter({5, 0}, demands, 1'000'000, kTurn);
  EXPECT_EQ(plan.turn.adapter, 5u);
  EXPECT_EQ(plan.turn.since_ns, 0);
  EXPECT_FALSE(plan.finishing);
  EXPECT_EQ(plan.ends_ns, INT64_MAX);
}

TEST(AdapterPolicyTest, GivesWayAtTheEndOfItsTurnOnceTheDeviceHasFinished) {
  std::vector<AdapterDemand> demands = {{.adapter = 5, .wants = true, .busy = true},
                                        {.adapter = 7, .wants = true}};
  AdapterPlan plan = PlanAdapter({5, 0}, demands, 99, kTurn);
  EXPECT_EQ(plan.turn.adapter, 5u);
  EXPECT_EQ(plan.ends_ns, 100);
  plan = PlanAdapter(plan.turn, demands, 100, kTurn);
  EXPECT_EQ(plan.turn.adapter, 7u);
  EXPECT_TRUE(plan.finishing);
  demands[0].busy = false;
  plan = PlanAdapter(plan.turn, demands, 130, kTurn);
  EXPECT_EQ(plan.turn.adapter, 7u);
  EXPECT_FALSE(plan.finishing);
  EXPECT_EQ(plan.ends_ns, 230 - 30) << "counted from when the device was last seen busy";
}

TEST(AdapterPolicyTest, ChangesAtOnceWhenItsOwnHasNothingToRun) {
  const std::vector<AdapterDemand> demands = {{.adapter = 5}, {.adapter = 7, .wants = true}};
  const AdapterPlan plan = PlanAdapter({5, 0}, demands, 1, kTurn);
  EXPECT_EQ(plan.turn.adapter, 7u);
  EXPECT_FALSE(plan.finishing);
}

TEST(AdapterPolicyTest, GoesRoundInTheOrderOfNumbers) {
  const std::vector<AdapterDemand> demands = {{.adapter = 9, .wants = true},
                                              {.adapter = 2, .wants = true},
                                              {.adapter = 0, .wants = true},
                                              {.adapter = 5, .wants = true}};
  AdapterTurn turn{0, 0};
  std::vector<uint64_t> seen;
  for (int64_t now = kTurn; seen.size() < 8; now += kTurn) {
    turn = PlanAdapter(turn, demands, now, kTurn).turn;
    seen.push_back(turn.adapter);
  }
  EXPECT_EQ(seen, (std::vector<uint64_t>{2, 5, 9, 0, 2, 5, 9, 0}));
}

// A device that takes up to `kFinish` to finish, adapters that come and go: nobody gets work while
// another's is under way, nobody waits beyond the bound, and no more swaps are made than turns that
// were over or had run dry.
TEST(AdapterPolicyTest, NobodyStarvesAndSwapsAreBounded) {
  constexpr int64_t kFinish = 15;
  constexpr uint64_t kAdapters = 5;
  for (uint32_t seed = 0; seed < 50; ++seed) {
    std::mt19937 random(seed);
    std::map<uint64_t, int> work;         // units that wait
    std::map<uint64_t, int64_t> waiting;  // since when
    uint64_t device_adapter = 0;
    int64_t device_busy_until = 0;
    AdapterTurn turn;
    uint64_t swaps = 0;
    uint64_t dry = 0;
    const int64_t end = 20'000;
    for (int64_t now = 0; now < end; ++now) {
      if (random() % 20 == 0) {
        const uint64_t adapter = random() % kAdapters;
        if (work[adapter] == 0) waiting.emplace(adapter, now);
        work[adapter] += 1 + static_cast<int>(random() % 60);
      }
      const bool busy = device_busy_until > now;
      std::vector<AdapterDemand> demands;
      for (uint64_t adapter = 0; adapter < kAdapters; ++adapter) {
        demands.push_back({adapter, work[adapter] > 0, busy && device_adapter == adapter});
      }
      const AdapterTurn before = turn;
      const AdapterPlan plan = PlanAdapter(turn, demands, now, kTurn);
      turn = plan.turn;
      if (turn.adapter != before.adapter && work[before.adapter] == 0) ++dry;
      if (plan.finishing || work[turn.adapter] == 0) continue;
      if (busy) {
        ASSERT_EQ(device_adapter, turn.adapter);
        continue;
      }
      if (device_adapter != turn.adapter) ++swaps;
      device_adapter = turn.adapter;
      device_busy_until = now + 1 + static_cast<int64_t>(random() % kFinish);
      if (const auto since = waiting.find(turn.adapter); since != waiting.end()) {
        ASSERT_LE(now - since->second,
                  static_cast<int64_t>(kAdapters) * (kTurn + kFinish) + kFinish);
        waiting.erase(since);
      }
      if (--work[turn.adapter] > 0) continue;
    }
    EXPECT_LE(swaps, end / kTurn + dry + 1);
    EXPECT_GT(swaps, kAdapters);
  }
}

}  // namespace
}  // namespace reticle::scheduler
