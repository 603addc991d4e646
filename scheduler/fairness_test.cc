#include "scheduler/fairness.h"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <random>

#include "base/retry_after.h"
#include "gtest/gtest.h"
#include "scheduler/engine_test_util.h"

namespace reticle::scheduler {
namespace {

constexpr uint32_t kSlots = 32;

FakeOptionList Device(uint32_t slots = kSlots, uint32_t credits = 1) {
  return {{"content", "fast"},
          {"credits", std::to_string(credits)},
          {"blocks", "4096"},
          {"max_sequences", std::to_string(slots)}};
}

EngineOptions Options() {
  EngineOptions options;
  options.max_waiting = 4096;
  return options;
}

// A tenant that always has `in_flight` requests in the engine, and what it saw of them.
class Tenant {
 public:
  Tenant(uint64_t id, int in_flight, uint32_t seed)
      : id_(id), in_flight_(in_flight), random_(seed) {}

  int32_t priority = 0;
  uint32_t min_prompt = 16, max_prompt = 64, min_output = 30, max_output = 60;

  void Refill(TestEngine& engine) {
    while (static_cast<int>(running_.size()) < in_flight_) {
      const auto draw = [&](uint32_t low, uint32_t high) {
        return std::uniform_int_distribution<uint32_t>(low, high)(random_);
      };
      Request request = MakeRequest(MakePrompt(draw(min_prompt, max_prompt), random_()),
                                    draw(min_output, max_output), random_());
      request.sampling.temperature = 1;
      request.tenant = id_;
      request.priority = priority;
      Running running{MakeClient(std::move(request), 1, 256), engine.clock().NowNanos()};
      ASSERT_TRUE(engine.Submit(*running.client).ok());
      running_.push_back(std::move(running));
    }
  }

  void Collect(TestEngine& engine) {
    for (Running& running : running_) {
      Choice& choice = running.client->choices[0];
      const size_t before = choice.tokens.size();
      choice.Read();
      if (before == 0 && !choice.tokens.empty()) {
        served_ += kInputWeight * static_cast<double>(running.client->request.prompt->size());
      }
      served_ += kOutputWeight * static_cast<double>(choice.tokens.size() - before);
      if (!choice.end.has_value()) continue;
      // In steps, relative to those of a request alone: one for its prompt, then one a token.
      const double steps = static_cast<double>(engine.clock().NowNanos() - running.begin_ns) / 1000;
      slowdowns_.push_back(steps / Alone(choice.tokens.size()));
    }
    std::erase_if(running_, [](const Running& running) { return running.client->ended(); });
  }

  // Steps of the engine that a request of so many tokens takes on an idle engine; measured.
  static double Alone(size_t tokens) {
    static const double overhead = [] {
      TestEngine engine(Device(), Options());
      const std::unique_ptr<Client> client = MakeClient(MakeRequest(MakePrompt(40), 50), 1, 256);
      RETICLE_CHECK(engine.Submit(*client).ok());
      RETICLE_CHECK(engine.RunUntilEnded({client.get()}));
      return static_cast<double>(engine.clock().NowNanos()) / 1000 -
             static_cast<double>(client->choices[0].tokens.size());
    }();
    return overhead + static_cast<double>(tokens);
  }

  double served() const { return served_; }
  size_t finished() const { return slowdowns_.size(); }
  double Mean() const {
    double sum = 0;
    for (double slowdown : slowdowns_) sum += slowdown;
    return sum / static_cast<double>(slowdowns_.size());
  }
  double Worst() const { return *std::max_element(slowdowns_.begin(), slowdowns_.end()); }
  void Stop() { in_flight_ = 0; }
  void Resume(int in_flight) { in_flight_ = in_flight; }

 private:
  struct Running {
    std::unique_ptr<Client> client;
    int64_t begin_ns;
  };

  const uint64_t id_;
  int in_flight_;
  std::mt19937 random_;
  std::vector<Running> running_;
  std::vector<double> slowdowns_;
  double served_ = 0;
};

void Drive(
    TestEngine& engine, const std::vector<Tenant*>& tenants, int steps,
    const std::function<void()>& watch = [] {}) {
  for (int i = 0; i < steps; ++i) {
    for (Tenant* tenant : tenants) tenant->Refill(engine);
    engine.clock().AdvanceNanos(1000);
    engine->Step();
    if (i % 97 == 0) engine->CheckInvariants();
    for (Tenant* tenant : tenants) tenant->Collect(engine);
    watch();
  }
}

TEST(FairnessTest, NineSmallTenantsBesideAThousandRequestsOfOne) {
  for (const uint32_t credits : {1u, 16u}) {
    TestEngine engine(Device(kSlots, credits), Options());
    Tenant hog(1, 1000, 1);
    std::vector<std::unique_ptr<Tenant>> small;
    std::vector<Tenant*> all = {&hog};
    for (uint64_t i = 0; i < 9; ++i) {
      small.push_back(std::make_unique<Tenant>(2 + i, 1, 100 + static_cast<uint32_t>(i)));
      all.push_back(small.back().get());
    }
    Drive(engine, {&hog}, 200);
    Drive(engine, all, 3000);
    for (const auto& tenant : small) {
      ASSERT_GT(tenant->finished(), 20u);
      EXPECT_LE(tenant->Mean(), 1.2) << "credits " << credits;
      EXPECT_LE(tenant->Worst(), 1.2) << "credits " << credits;
      printf("credits %u: mean %.3f, worst %.3f times alone, over %zu requests\n", credits,
             tenant->Mean(), tenant->Worst(), tenant->finished());
    }
    // Nobody is kept waiting to keep places free: the hog has all that the nine leave.
    EXPECT_GT(hog.finished(), 3000u * (kSlots - 9) / 60 / 2);
  }
}

TEST(FairnessTest, ServiceOfBackloggedTenantsStaysWithinTheBound) {
  for (const uint32_t seed : {1u, 2u, 3u}) {
    TestEngine engine(Device(8), Options());
    Tenant one(1, 200, seed), two(2, 12, seed + 10), three(3, 12, seed + 20);
    one.max_prompt = 400;
    two.min_output = two.max_output = 10;
    two.min_prompt = two.max_prompt = 16;
    three.min_output = 50;
    three.max_output = 100;
    // Theorem 1: 2 max(w_in L, w_out M), M being the tokens of all that run.
    const double bound = 2 * std::max(kInputWeight * 400, kOutputWeight * 8 * 100);
    double worst = 0;
    Drive(engine, {&one, &two, &three}, 6000, [&] {
      const auto [least, most] = std::minmax({one.served(), two.served(), three.served()});
      worst = std::max(worst, most - least);
      ASSERT_LE(most - least, bound);
    });
    EXPECT_GT(one.served(), 10 * bound);
    printf("largest gap %.0f, bound %.0f, service of each %.0f\n", worst, bound, one.served());
  }
}

TEST(FairnessTest, WhoeverComesBackHasSavedNothingUp) {
  TestEngine engine(Device(8), Options());
  Tenant steady(1, 50, 1), away(2, 50, 2);
  Drive(engine, {&steady, &away}, 500);
  away.Stop();
  Drive(engine, {&steady, &away}, 3000);
  const double steady_before = steady.served(), away_before = away.served();
  away.Resume(50);
  Drive(engine, {&steady, &away}, 1000);
  const double share = (steady.served() - steady_before) /
                       (steady.served() - steady_before + away.served() - away_before);
  EXPECT_GT(share, 0.4);
  EXPECT_LT(share, 0.6);
}

TEST(FairnessTest, OneTenantAloneGetsEverything) {
  TestEngine engine(Device(8), Options());
  Tenant alone(7, 20, 1);
  alone.min_prompt = alone.max_prompt = 16;
  alone.min_output = alone.max_output = 50;
  Drive(engine, {&alone}, 2000);
  // 8 places, each busy for 51 steps or so a request.
  EXPECT_GT(alone.finished(), 2000u * 8 / 56);
}

TEST(FairnessTest, WorsePrioritiesDelayBetterOnesByOneStepOnly) {
  EngineOptions options = Options();
  options.shed_priority = 40;
  TestEngine engine(Device(), options);
  Tenant free(1, 500, 1), paid(2, 1, 2);
  free.priority = 40;
  free.min_prompt = 500;
  free.max_prompt = 2000;
  Drive(engine, {&free}, 300);
  Drive(engine, {&free, &paid}, 3000);
  ASSERT_GT(paid.finished(), 40u);
  // A request takes 31 steps or more: one more is 1.033.
  EXPECT_LE(paid.Worst(), 1.04);
  EXPECT_GT(free.served(), 0);
  printf("paid beside 500 free: mean %.3f, worst %.3f times alone\n", paid.Mean(), paid.Worst());
}

TEST(FairnessTest, OverloadShedsTheWorsePriorityFirstAndSaysWhenToRetry) {
  EngineOptions options;
  options.max_waiting = 20;
  options.shed_priority = 40;
  TestEngine engine(Device(4), options);
  std::vector<std::unique_ptr<Client>> clients;
  const auto submit = [&](int32_t priority) {
    Request request = MakeRequest(MakePrompt(16), 20);
    request.priority = priority;
    clients.push_back(MakeClient(std::move(request), 1, 256));
    const absl::Status status = engine.Submit(*clients.back());
    if (!status.ok()) clients.pop_back();
    return status;
  };
  int free = 0;
  while (submit(40).ok()) ++free;
  EXPECT_EQ(free, 10);
  int paid = 0;
  while (submit(0).ok()) ++paid;
  EXPECT_EQ(paid, 20) << "what is free takes no place of what is paid";

  const auto step = [&] {
    engine.Step();
    for (const auto& client : clients) client->Read();
  };
  for (int i = 0; i < 60; ++i) step();
  while (submit(0).ok()) continue;
  const absl::Status refusal = submit(0);
  ASSERT_TRUE(absl::IsResourceExhausted(refusal));
  const std::optional<int64_t> wait_ns = RetryAfterNs(refusal);
  ASSERT_TRUE(wait_ns.has_value());
  const int64_t begin_ns = engine.clock().NowNanos();
  while (engine.clock().NowNanos() < begin_ns + *wait_ns) step();
  EXPECT_TRUE(submit(0).ok()) << "after " << *wait_ns << " ns";
}

}  // namespace
}  // namespace reticle::scheduler
