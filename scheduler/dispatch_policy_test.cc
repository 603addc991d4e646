#include "scheduler/dispatch_policy.h"

#include <algorithm>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace reticle::scheduler {
namespace {

std::vector<uint32_t> Order(std::vector<DispatchCandidate> candidates) {
  RankCandidates(&candidates);
  std::vector<uint32_t> order;
  for (const DispatchCandidate& candidate : candidates) order.push_back(candidate.engine);
  return order;
}

using Engines = std::vector<uint32_t>;

TEST(DispatchPolicyTest, LeastLoadAmongEquals) {
  EXPECT_EQ(Order({{0, 0.3}, {1, 0.1}, {2, 0.2}}), (Engines{1, 2, 0}));
  EXPECT_EQ(Order({{0, 0.1}, {1, 0.1}}), (Engines{0, 1})) << "ties keep their order";
  EXPECT_TRUE(Order({}).empty());
}

TEST(DispatchPolicyTest, PrefixBeforeLoadAdapterBeforePrefix) {
  EXPECT_EQ(Order({{0, 0.0, 0}, {1, 0.4, 64}, {2, 0.3, 32}}), (Engines{1, 2, 0}));
  EXPECT_EQ(Order({{0, 0.0, 64, true}, {1, 0.4, 0, false}}), (Engines{1, 0}));
}

TEST(DispatchPolicyTest, NoAdvantageIsWorthACrowd) {
  EXPECT_EQ(Order({{0, 0.0, 0, true}, {1, 0.6, 640, false}}), (Engines{0, 1}));
}

TEST(DispatchPolicyTest, TheFirstIsNeverBeyondTheCrowdLimitAndAllAreAsked) {
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    std::vector<DispatchCandidate> candidates;
    double least = 1e9;
    for (uint32_t i = 0; i <= random() % 6; ++i) {
      candidates.push_back(
          {i, (random() % 40) / 10.0, static_cast<uint32_t>(random() % 4), random() % 2 == 0});
      least = std::min(least, candidates.back().load);
    }
    const size_t count = candidates.size();
    RankCandidates(&candidates);
    ASSERT_EQ(candidates.size(), count);
    EXPECT_LE(candidates.front().load, least + 0.5);
    std::vector<bool> seen(count);
    for (const DispatchCandidate& candidate : candidates) seen[candidate.engine] = true;
    EXPECT_EQ(std::count(seen.begin(), seen.end(), true), static_cast<ptrdiff_t>(count));
  }
}

}  // namespace
}  // namespace reticle::scheduler
