#include "scheduler/policy.h"

#include <algorithm>
#include <random>

#include "gtest/gtest.h"

namespace reticle::scheduler {
namespace {

Plan Make(const PolicySnapshot& snapshot) {
  Plan plan;
  MakePlan(snapshot, &plan);
  return plan;
}

const PlannedWork* Find(const std::vector<PlannedWork>& work, uint32_t index) {
  for (const PlannedWork& item : work) {
    if (item.index == index) return &item;
  }
  return nullptr;
}

PolicyLimits Limits() {
  return {.step_tokens = 32, .max_running = 8, .max_chunk = 16, .run_ahead = 1, .unit_tokens = 4};
}

RunningSnapshot Decoding(uint32_t positions, uint32_t units) {
  return {
      .pending = 1, .positions = positions, .units = units, .output_room = 100, .event_room = 64};
}
RunningSnapshot Prefilling(uint32_t pending, uint32_t positions = 0) {
  return {.pending = pending,
          .positions = positions,
          .units = (positions + pending + 3) / 4,
          .output_room = 100,
          .event_room = 64};
}
WaitingSnapshot Waiting(uint32_t tokens, int32_t priority = 0) {
  return {.priority = priority, .tokens = tokens, .output_room = 100, .event_room = 64};
}

TEST(PolicyTest, DecodesFirstThenPromptsThenAdmissions) {
  PolicySnapshot snapshot{.limits = Limits(), .free_units = 100};
  snapshot.running = {Prefilling(50), Decoding(7, 2), Decoding(8, 2)};
  snapshot.waiting = {Waiting(10), Waiting(40)};
  const Plan plan = Make(snapshot);
  ASSERT_EQ(plan.work.size(), 3u);
  EXPECT_EQ(plan.work[0].index, 1u);
  EXPECT_EQ(plan.work[0].new_units, 0u);
  EXPECT_EQ(plan.work[1].index, 2u);
  EXPECT_EQ(plan.work[1].new_units, 1u);
  EXPECT_EQ(plan.work[2].index, 0u);
  EXPECT_EQ(plan.work[2].tokens, 16u);
  EXPECT_EQ(plan.work[2].credits, 0u);
  ASSERT_EQ(plan.admit.size(), 2u);
  EXPECT_EQ(plan.admit[0].tokens, 10u);
  EXPECT_EQ(plan.admit[0].credits, 1u);
  EXPECT_EQ(plan.admit[0].new_units, 3u);
  EXPECT_EQ(plan.admit[1].tokens, 4u) << "what is left of 32";
  EXPECT_EQ(plan.admit[1].new_units, 10u) << "the memory of the whole prompt";
}

TEST(PolicyTest, TheLastChunkSamples) {
  PolicySnapshot snapshot{.limits = Limits(), .free_units = 100};
  snapshot.running = {Prefilling(5, 32)};
  const Plan plan = Make(snapshot);
  ASSERT_EQ(plan.work.size(), 1u);
  EXPECT_EQ(plan.work[0].tokens, 5u);
  EXPECT_EQ(plan.work[0].credits, 1u);
}

TEST(PolicyTest, WithoutRoomForTheTokenThePromptStopsShortOfItsEnd) {
  PolicySnapshot snapshot{.limits = Limits(), .free_units = 100};
  snapshot.running = {Prefilling(5, 32)};
  snapshot.running[0].event_room = 0;
  const Plan plan = Make(snapshot);
  ASSERT_EQ(plan.work.size(), 1u);
  EXPECT_EQ(plan.work[0].tokens, 4u);
  EXPECT_EQ(plan.work[0].credits, 0u);
  snapshot.running = {Decoding(8, 3)};
  snapshot.running[0].event_room = 0;
  EXPECT_TRUE(Make(snapshot).empty());
}

TEST(PolicyTest, ReportedPromptsTakeRoomForEveryToken) {
  PolicySnapshot snapshot{.limits = Limits(), .free_units = 100};
  snapshot.running = {Prefilling(12)};
  snapshot.running[0].event_per_token = true;
  snapshot.running[0].event_room = 7;
  EXPECT_EQ(Make(snapshot).work[0].tokens, 7u);
}

TEST(PolicyTest, ShortageTakesTheLastInOrder) {
  PolicySnapshot snapshot{.limits = Limits(), .free_units = 0};
  snapshot.running = {Decoding(8, 2), Decoding(9, 3), Decoding(9, 3)};
  const Plan plan = Make(snapshot);
  EXPECT_EQ(plan.preempt, std::vector<uint32_t>{2});
  EXPECT_EQ(Find(plan.work, 0), nullptr) << "its memory is still on the way";
  EXPECT_NE(Find(plan.work, 1), nullptr) << "needs none";
  EXPECT_EQ(Find(plan.work, 2), nullptr);
}

TEST(PolicyTest, WhoeverIsLastYieldsItself) {
  PolicySnapshot snapshot{.limits = Limits(), .free_units = 0};
  snapshot.running = {Decoding(9, 3), Decoding(8, 2)};
  const Plan plan = Make(snapshot);
  EXPECT_EQ(plan.preempt, std::vector<uint32_t>{1});
  EXPECT_NE(Find(plan.work, 0), nullptr);
}

TEST(PolicyTest, StalledOnesYieldFirst) {
  PolicySnapshot snapshot{.limits = Limits(), .free_units = 0};
  snapshot.running = {Decoding(9, 3), Decoding(8, 2), Decoding(9, 3)};
  snapshot.running[0].stalled = true;
  snapshot.running[0].event_room = 0;
  EXPECT_EQ(Make(snapshot).preempt, std::vector<uint32_t>{0});
}

TEST(PolicyTest, MemoryOnTheWayBackIsAwaited) {
  PolicySnapshot snapshot{.limits = Limits(), .free_units = 0};
  snapshot.running = {Decoding(8, 2), Decoding(9, 3)};
  snapshot.running.push_back({.units = 3, .leaving = true});
  snapshot.waiting = {Waiting(4)};
  const Plan plan = Make(snapshot);
  EXPECT_TRUE(plan.preempt.empty());
  EXPECT_TRUE(plan.admit.empty());
  EXPECT_EQ(plan.work.size(), 1u);
}

TEST(PolicyTest, NobodyOvertakesTheOneThatMemoryHoldsUp) {
  PolicySnapshot snapshot{.limits = Limits(), .free_units = 4};
  snapshot.running = {Decoding(9, 3)};
  snapshot.waiting = {Waiting(30), Waiting(4)};
  EXPECT_TRUE(Make(snapshot).admit.empty());
  snapshot.waiting[0].ready = false;
  const Plan plan = Make(snapshot);
  ASSERT_EQ(plan.admit.size(), 1u);
  EXPECT_EQ(plan.admit[0].index, 1u);
}

TEST(PolicyTest, CachedUnitsAreNotChargedAgainUnlessTheyCountAsFree) {
  PolicySnapshot snapshot{.limits = Limits(), .free_units = 3};
  snapshot.waiting = {Waiting(20)};
  EXPECT_TRUE(Make(snapshot).admit.empty());
  snapshot.waiting[0].cached = 8;
  ASSERT_EQ(Make(snapshot).admit.size(), 1u);
  EXPECT_EQ(Make(snapshot).admit[0].tokens, 12u);
  EXPECT_EQ(Make(snapshot).admit[0].new_units, 3u);
  snapshot.waiting[0].cached_free_units = 1;
  EXPECT_TRUE(Make(snapshot).admit.empty());
}

TEST(PolicyTest, ReserveIsWaivedWhenNothingRuns) {
  PolicySnapshot snapshot{.limits = Limits(), .free_units = 5};
  snapshot.limits.reserve_units = 2;
  snapshot.waiting = {Waiting(20)};
  EXPECT_EQ(Make(snapshot).admit.size(), 1u);
  snapshot.running = {Decoding(9, 3)};
  EXPECT_TRUE(Make(snapshot).admit.empty());
}

TEST(PolicyTest, BetterPriorityPreemptsOnlyIfThatIsEnough) {
  PolicySnapshot snapshot{.limits = Limits(), .free_units = 0};
  snapshot.running = {Decoding(9, 4), Decoding(9, 4)};
  snapshot.running[1].priority = 3;
  snapshot.waiting = {Waiting(16, -1)};
  EXPECT_EQ(Make(snapshot).preempt, (std::vector<uint32_t>{1})) << "the last in order is enough";
  snapshot.waiting = {Waiting(16, 2)};
  EXPECT_EQ(Make(snapshot).preempt, (std::vector<uint32_t>{1}));
  snapshot.waiting = {Waiting(16, 3)};
  EXPECT_TRUE(Make(snapshot).preempt.empty()) << "equals are not preempted";
  snapshot.waiting = {Waiting(32, 2)};
  EXPECT_TRUE(Make(snapshot).preempt.empty()) << "in vain";
}

TEST(PolicyTest, FullSlotsYieldToABetterPriority) {
  PolicySnapshot snapshot{.limits = Limits(), .free_units = 100};
  snapshot.limits.max_running = 2;
  snapshot.running = {Decoding(9, 4), Decoding(9, 4)};
  snapshot.waiting = {Waiting(16, 0)};
  EXPECT_TRUE(Make(snapshot).preempt.empty());
  snapshot.running[1].priority = 1;
  EXPECT_EQ(Make(snapshot).preempt, (std::vector<uint32_t>{1}));
}

TEST(PolicyTest, RunAheadGrantsUpToEveryLimit) {
  PolicySnapshot snapshot{.limits = Limits(), .free_units = 100};
  snapshot.limits.run_ahead = 10;
  snapshot.running = {Decoding(8, 2)};
  EXPECT_EQ(Make(snapshot).work[0].credits, 10u);
  EXPECT_EQ(Make(snapshot).work[0].new_units, 3u) << "18 positions";
  snapshot.running[0].output_room = 4;
  EXPECT_EQ(Make(snapshot).work[0].credits, 4u);
  snapshot.running[0].output_room = 100;
  snapshot.running[0].event_room = 3;
  EXPECT_EQ(Make(snapshot).work[0].credits, 3u);
  snapshot.running[0].event_room = 64;
  snapshot.free_units = 1;
  EXPECT_EQ(Make(snapshot).work[0].credits, 4u) << "12 positions fit";
}

TEST(PolicyTest, ToppedUpAtHalf) {
  PolicySnapshot snapshot{.limits = Limits(), .free_units = 100};
  snapshot.limits.run_ahead = 10;
  snapshot.running = {
      {.credits = 6, .positions = 20, .units = 5, .output_room = 100, .event_room = 64}};
  EXPECT_TRUE(Make(snapshot).empty());
  snapshot.running[0].credits = 5;
  const Plan plan = Make(snapshot);
  ASSERT_EQ(plan.work.size(), 1u);
  EXPECT_EQ(plan.work[0].tokens, 0u);
  EXPECT_EQ(plan.work[0].credits, 5u);
  EXPECT_EQ(plan.work[0].new_units, 2u);
}

// ---- Properties over random snapshots.

class RandomSnapshots {
 public:
  explicit RandomSnapshots(uint32_t seed) : random_(seed) {}

  uint32_t Draw(uint32_t n) { return static_cast<uint32_t>(random_() % n); }

  PolicySnapshot Next() {
    PolicySnapshot snapshot;
    PolicyLimits& limits = snapshot.limits;
    limits.max_running = 1 + Draw(12);
    limits.step_tokens = limits.max_running + Draw(64);
    limits.max_chunk = 1 + Draw(40);
    limits.run_ahead = Draw(2) == 0 ? 1 : 1 + Draw(16);
    limits.unit_tokens = Draw(2) == 0 ? 1 : 1 + Draw(8);
    limits.reserve_units = Draw(4);
    total_units_ = 20 + Draw(200);
    uint32_t left = total_units_;
    for (uint32_t n = Draw(limits.max_running + 1); n > 0; --n) {
      RunningSnapshot made = Running(limits);
      if (made.units > left) continue;
      left -= made.units;
      snapshot.running.push_back(made);
    }
    for (uint32_t n = Draw(8); n > 0; --n) snapshot.waiting.push_back(Waiting(limits, left));
    Sort(&snapshot);
    snapshot.free_units = left;
    return snapshot;
  }
  uint32_t total_units() const { return total_units_; }
  static void Sort(PolicySnapshot* snapshot) {
    const auto by_priority = [](const auto& a, const auto& b) { return a.priority < b.priority; };
    std::stable_sort(snapshot->running.begin(), snapshot->running.end(), by_priority);
    std::stable_sort(snapshot->waiting.begin(), snapshot->waiting.end(), by_priority);
  }

 private:
  RunningSnapshot Running(const PolicyLimits& limits) {
    RunningSnapshot made;
    made.priority = static_cast<int32_t>(Draw(4)) - 1;
    made.positions = Draw(60);
    made.output_room = 1 + Draw(30);
    made.event_room = Draw(4) == 0 ? 0 : Draw(20);
    made.event_per_token = Draw(5) == 0;
    uint32_t reach = made.positions;
    switch (Draw(5)) {
      case 0:
        made.credits = 1 + Draw(limits.run_ahead);
        break;
      case 1:
        made.in_flight = 1 + Draw(limits.max_chunk);
        break;
      case 2:
        made.leaving = true;
        break;
      case 3:
        made.pending = 2 + Draw(50);
        reach += made.pending;
        break;
      default:
        made.pending = 1;
        break;
    }
    if (made.pending > 0 && made.event_room == 0) made.stalled = Draw(2) == 0;
    made.units = (reach + limits.unit_tokens - 1) / limits.unit_tokens;
    return made;
  }
  WaitingSnapshot Waiting(const PolicyLimits& limits, uint32_t free) {
    WaitingSnapshot made;
    made.priority = static_cast<int32_t>(Draw(4)) - 1;
    made.ready = Draw(5) != 0;
    made.tokens = 1 + Draw(80);
    made.cached = (made.tokens - 1) / limits.unit_tokens * limits.unit_tokens;
    made.cached =
        Draw(2) == 0 ? 0 : Draw(made.cached / limits.unit_tokens + 1) * limits.unit_tokens;
    made.cached_free_units = std::min(Draw(made.cached / limits.unit_tokens + 1), free);
    made.output_room = 1 + Draw(30);
    made.event_room = Draw(6) == 0 ? 0 : 1 + Draw(20);
    made.event_per_token = Draw(5) == 0;
    return made;
  }

  std::mt19937 random_;
  uint32_t total_units_ = 0;
};

uint32_t Units(const PolicyLimits& limits, uint64_t positions) {
  return static_cast<uint32_t>((positions + limits.unit_tokens - 1) / limits.unit_tokens);
}

TEST(PolicyPropertyTest, PlansKeepEveryLimit) {
  RandomSnapshots source(1);
  int admissions = 0;
  int preemptions = 0;
  int top_ups = 0;
  for (int round = 0; round < 100'000; ++round) {
    const PolicySnapshot snapshot = source.Next();
    const PolicyLimits& limits = snapshot.limits;
    const Plan plan = Make(snapshot);
    uint64_t fed = 0;
    uint64_t units = 0;
    uint64_t decoding_under_way = 0;
    uint64_t under_way = 0;
    for (const RunningSnapshot& sequence : snapshot.running) {
      under_way += sequence.in_flight;
      if (sequence.credits > 0 && sequence.in_flight == 0) ++decoding_under_way;
    }
    std::vector<int> times(snapshot.running.size(), 0);
    uint64_t chunks = 0;
    for (const PlannedWork& work : plan.work) {
      const RunningSnapshot& sequence = snapshot.running[work.index];
      ASSERT_EQ(++times[work.index], 1);
      ASSERT_FALSE(sequence.leaving);
      ASSERT_TRUE(work.tokens > 0 || work.credits > 0);
      ASSERT_LE(work.tokens, std::min(sequence.pending, limits.max_chunk));
      ASSERT_LE(sequence.credits + work.credits, limits.run_ahead);
      ASSERT_LE(work.credits, sequence.output_room);
      ASSERT_LE(work.credits, sequence.event_room);
      if (work.tokens == 0) {
        ASSERT_GT(sequence.credits, 0u);
        ++top_ups;
      } else {
        ASSERT_EQ(work.credits > 0, work.tokens == sequence.pending);
      }
      if (sequence.event_per_token && work.tokens > 0) {
        ASSERT_LE(work.tokens + std::max(work.credits, 1u) - 1, sequence.event_room);
      }
      const uint64_t reach = uint64_t{sequence.positions} + work.tokens + work.credits -
                             (work.tokens > 0 && work.credits > 0 ? 1 : 0);
      ASSERT_GE(sequence.units + work.new_units, Units(limits, reach));
      fed += work.tokens;
      if (sequence.pending > 1) chunks += work.tokens;
      units += work.new_units;
    }
    uint64_t alive = snapshot.running.size();
    for (const PlannedWork& work : plan.admit) {
      const WaitingSnapshot& sequence = snapshot.waiting[work.index];
      ASSERT_TRUE(sequence.ready);
      ASSERT_GE(work.tokens, 1u);
      ASSERT_LE(work.tokens, std::min(sequence.tokens - sequence.cached, limits.max_chunk));
      ASSERT_EQ(work.credits > 0, work.tokens == sequence.tokens - sequence.cached);
      ASSERT_LE(work.credits, std::min(sequence.output_room, sequence.event_room));
      const uint64_t reach = std::max<uint64_t>(
          sequence.tokens, sequence.cached + work.tokens + std::max(work.credits, 1u) - 1);
      ASSERT_GE(sequence.cached / limits.unit_tokens + work.new_units, Units(limits, reach));
      fed += work.tokens;
      chunks += work.tokens;
      units += work.new_units + sequence.cached_free_units;
      ++alive;
    }
    ASSERT_LE(fed, limits.step_tokens);
    if (chunks > 0) {
      ASSERT_LE(fed + under_way + decoding_under_way, limits.step_tokens);
    }
    ASSERT_LE(units, snapshot.free_units) << "memory overcommitted";
    ASSERT_LE(plan.admit.empty() ? 0 : alive, limits.max_running);
    for (uint32_t index : plan.preempt) {
      ASSERT_FALSE(snapshot.running[index].leaving);
      ASSERT_EQ(times[index], 0) << "work for a preempted sequence";
    }
    admissions += static_cast<int>(plan.admit.size());
    preemptions += static_cast<int>(plan.preempt.size());
  }
  EXPECT_GT(admissions, 10'000);
  EXPECT_GT(preemptions, 10'000);
  EXPECT_GT(top_ups, 5'000);
}

bool BetterWaits(const PolicySnapshot& snapshot, int32_t priority) {
  return std::any_of(snapshot.waiting.begin(), snapshot.waiting.end(),
                     [&](const WaitingSnapshot& w) { return w.ready && w.priority < priority; });
}

TEST(PolicyPropertyTest, RunningComesFirst) {
  RandomSnapshots source(2);
  for (int round = 0; round < 50'000; ++round) {
    const PolicySnapshot snapshot = source.Next();
    const Plan plan = Make(snapshot);
    PolicySnapshot alone = snapshot;
    alone.waiting.clear();
    const Plan without = Make(alone);
    // What waits takes nothing from what runs, but for what better priorities and stalls allow.
    for (const PlannedWork& work : without.work) {
      if (plan.preempted[work.index] != 0) continue;
      if (BetterWaits(snapshot, snapshot.running[work.index].priority)) continue;
      const PlannedWork* const same = Find(plan.work, work.index);
      ASSERT_NE(same, nullptr);
      ASSERT_EQ(same->tokens, work.tokens);
      ASSERT_EQ(same->credits, work.credits);
    }
  }
}

TEST(PolicyPropertyTest, PlansAreDeterministicAndReuseLeavesNoTrace) {
  RandomSnapshots source(3);
  Plan reused;
  for (int round = 0; round < 20'000; ++round) {
    const PolicySnapshot snapshot = source.Next();
    const Plan fresh = Make(snapshot);
    MakePlan(snapshot, &reused);
    const auto same = [](const PlannedWork& a, const PlannedWork& b) {
      return a.index == b.index && a.tokens == b.tokens && a.credits == b.credits &&
             a.new_units == b.new_units;
    };
    ASSERT_TRUE(std::equal(fresh.work.begin(), fresh.work.end(), reused.work.begin(),
                           reused.work.end(), same));
    ASSERT_TRUE(std::equal(fresh.admit.begin(), fresh.admit.end(), reused.admit.begin(),
                           reused.admit.end(), same));
    ASSERT_EQ(fresh.preempt, reused.preempt);
  }
}

bool Runnable(const RunningSnapshot& sequence) {
  return sequence.pending > 0 && !sequence.leaving && sequence.event_room > 0;
}

TEST(PolicyPropertyTest, TheFirstInOrderAlwaysProceedsOrIsMadeRoomFor) {
  RandomSnapshots source(4);
  for (int round = 0; round < 50'000; ++round) {
    PolicySnapshot snapshot = source.Next();
    if (snapshot.running.empty() || !Runnable(snapshot.running[0])) continue;
    const RunningSnapshot& first = snapshot.running[0];
    const Plan plan = Make(snapshot);
    uint32_t returning = 0;
    uint64_t under_way = 0;
    for (size_t i = 0; i < snapshot.running.size(); ++i) {
      const RunningSnapshot& sequence = snapshot.running[i];
      if (sequence.leaving || plan.preempted[i] != 0) returning += sequence.units;
      if (sequence.pending == 1 || sequence.credits > 0) ++under_way;
      under_way += sequence.in_flight;
    }
    if (first.pending > 1 && under_way >= snapshot.limits.step_tokens) continue;
    const bool proceeds = Find(plan.work, 0) != nullptr;
    const uint32_t need = Units(snapshot.limits, uint64_t{first.positions} + first.pending);
    const bool fits_at_all = need <= source.total_units();
    const bool better = BetterWaits(snapshot, first.priority);
    ASSERT_TRUE(proceeds || returning > 0 || plan.preempted[0] != 0 || !fits_at_all || better)
        << round;
    // Only a better priority that waits may preempt the first of those that run.
    ASSERT_TRUE(plan.preempted[0] == 0 || !fits_at_all || better) << round;
  }
}

TEST(PolicyPropertyTest, WorkConserving) {
  RandomSnapshots source(5);
  for (int round = 0; round < 50'000; ++round) {
    const PolicySnapshot snapshot = source.Next();
    const PolicyLimits& limits = snapshot.limits;
    const Plan plan = Make(snapshot);
    uint64_t fed = 0;
    for (const PlannedWork& work : plan.work) fed += work.tokens;
    for (const PlannedWork& work : plan.admit) fed += work.tokens;
    uint32_t returning = 0;
    for (size_t i = 0; i < snapshot.running.size(); ++i) {
      const RunningSnapshot& sequence = snapshot.running[i];
      if (sequence.leaving || plan.preempted[i] != 0) returning += sequence.units;
      fed += sequence.in_flight + (sequence.credits > 0 && sequence.in_flight == 0 ? 1 : 0);
    }
    if (fed >= limits.step_tokens || returning > 0 || !plan.preempt.empty()) continue;
    for (size_t i = 0; i < snapshot.running.size(); ++i) {
      if (!Runnable(snapshot.running[i])) continue;
      ASSERT_NE(Find(plan.work, static_cast<uint32_t>(i)), nullptr) << round;
    }
    // Then the first that waits and may run is admitted, or memory or slots are short.
    const bool slots = snapshot.running.size() + plan.admit.size() < limits.max_running;
    uint64_t left = snapshot.free_units;
    for (const PlannedWork& work : plan.work) left -= work.new_units;
    for (const PlannedWork& work : plan.admit) {
      left -= work.new_units + snapshot.waiting[work.index].cached_free_units;
    }
    for (size_t i = 0; i < snapshot.waiting.size() && slots; ++i) {
      const WaitingSnapshot& sequence = snapshot.waiting[i];
      const bool can_start = sequence.event_room > 0 ||
                             (!sequence.event_per_token && sequence.tokens - sequence.cached > 1);
      if (!sequence.ready || !can_start) continue;
      if (Find(plan.admit, static_cast<uint32_t>(i)) != nullptr) continue;
      const uint64_t charge = Units(limits, sequence.tokens) -
                              sequence.cached / limits.unit_tokens + sequence.cached_free_units +
                              limits.reserve_units;
      ASSERT_GT(charge, left) << round;
      break;
    }
  }
}

TEST(PolicyTest, AWorsePriorityTakesNothingFromABetterOneThatWaits) {
  PolicySnapshot snapshot{.limits = Limits(), .free_units = 100};
  snapshot.limits.max_running = 40;
  for (int i = 0; i < 30; ++i) snapshot.running.push_back(Decoding(7, 2));
  for (RunningSnapshot& running : snapshot.running) running.priority = 5;
  snapshot.waiting = {Waiting(16), Waiting(16, 5)};
  const Plan plan = Make(snapshot);
  ASSERT_EQ(plan.admit.size(), 1u);
  EXPECT_EQ(plan.admit[0].index, 0u);
  EXPECT_EQ(plan.admit[0].tokens, 16u);
  EXPECT_EQ(plan.work.size(), 16u) << "what is left of 32";
}

TEST(PolicyTest, ATenantBelowItsShareGetsPlacesOfOneAboveItsOwn) {
  PolicySnapshot snapshot{.limits = Limits(), .free_units = 100};
  snapshot.limits.max_running = 4;
  snapshot.running.assign(4, Decoding(7, 2));
  snapshot.waiting = {Waiting(8), Waiting(8), Waiting(8)};
  EXPECT_TRUE(Make(snapshot).preempt.empty()) << "nobody is beyond its share";
  snapshot.running[2].surplus = snapshot.running[3].surplus = true;
  EXPECT_TRUE(Make(snapshot).preempt.empty()) << "nobody is below its share";
  for (WaitingSnapshot& waiting : snapshot.waiting) waiting.below_share = true;
  const Plan plan = Make(snapshot);
  EXPECT_EQ(plan.preempt, (std::vector<uint32_t>{3, 2})) << "and no more than that";
  EXPECT_TRUE(plan.admit.empty());
}

TEST(PolicyTest, WorsePrioritiesLeaveTheKeptSlots) {
  PolicySnapshot snapshot{.limits = Limits(), .free_units = 100};
  snapshot.limits.max_running = 4;
  snapshot.limits.yield_priority = 40;
  snapshot.limits.kept_slots = 1;
  snapshot.waiting.assign(5, Waiting(4, 40));
  EXPECT_EQ(Make(snapshot).admit.size(), 3u);
  snapshot.waiting.assign(5, Waiting(4, 39));
  EXPECT_EQ(Make(snapshot).admit.size(), 4u);
}

// A sequence gets no less when its priority gets better and all else stays.
TEST(PolicyPropertyTest, MonotonicInPriority) {
  RandomSnapshots source(6);
  constexpr uint32_t kMark = 977;  // tells the changed one among its equals
  int compared = 0;
  for (int round = 0; round < 50'000; ++round) {
    PolicySnapshot snapshot = source.Next();
    if (snapshot.waiting.empty()) continue;
    const size_t chosen = source.Draw(static_cast<uint32_t>(snapshot.waiting.size()));
    snapshot.waiting[chosen].output_room = kMark;
    const auto admitted = [](const PolicySnapshot& of) {
      const Plan plan = Make(of);
      for (const PlannedWork& work : plan.admit) {
        if (of.waiting[work.index].output_room == kMark) return work.tokens;
      }
      return 0u;
    };
    const uint32_t before = admitted(snapshot);
    if (before == 0) continue;
    PolicySnapshot better = snapshot;
    better.waiting[chosen].priority -= 2;
    RandomSnapshots::Sort(&better);
    ASSERT_GE(admitted(better), before) << round;
    ++compared;
  }
  EXPECT_GT(compared, 1'000);
}

TEST(PolicyPropertyTest, BetterPriorityIsNotPreemptedWhereAWorseOneWasNot) {
  RandomSnapshots source(7);
  constexpr uint32_t kMark = 977;
  int compared = 0;
  for (int round = 0; round < 50'000; ++round) {
    PolicySnapshot snapshot = source.Next();
    if (snapshot.running.empty()) continue;
    const size_t chosen = source.Draw(static_cast<uint32_t>(snapshot.running.size()));
    snapshot.running[chosen].output_room = kMark;
    snapshot.running[chosen].stalled = false;
    if (Make(snapshot).preempted[chosen] != 0) continue;
    PolicySnapshot better = snapshot;
    better.running[chosen].priority -= 2;
    RandomSnapshots::Sort(&better);
    const Plan plan = Make(better);
    for (uint32_t index : plan.preempt) ASSERT_NE(better.running[index].output_room, kMark);
    ++compared;
  }
  EXPECT_GT(compared, 10'000);
}

}  // namespace
}  // namespace reticle::scheduler
