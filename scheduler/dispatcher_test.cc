#include "scheduler/dispatcher.h"

#include "base/log.h"
#include "base/retry_after.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/engine_test_util.h"

namespace reticle::scheduler {
namespace {

using ::testing::HasSubstr;

class DispatcherTest : public ::testing::Test {
 protected:
  DispatcherTest() { SetLogLevel(LogLevel::kOff); }
  ~DispatcherTest() override { SetLogLevel(LogLevel::kInfo); }

  void Build(int count, FakeOptionList options = {}, EngineOptions engine_options = {}) {
    std::vector<Engine*> pointers;
    for (int i = 0; i < count; ++i) {
      engines_.push_back(std::make_unique<TestEngine>(options, engine_options));
      pointers.push_back(&**engines_.back());
    }
    absl::StatusOr<std::unique_ptr<Dispatcher>> made = Dispatcher::Create(pointers);
    ASSERT_TRUE(made.ok()) << made.status();
    dispatcher_ = *std::move(made);
  }
  void StepAll(int steps = 1) {
    for (int i = 0; i < steps; ++i) {
      for (auto& engine : engines_) engine->Step();
    }
  }
  void RunUntilEnded(Client& client) {
    for (int i = 0; i < 10'000 && !client.ended(); ++i) {
      StepAll();
      client.Read();
    }
    ASSERT_TRUE(client.ended());
  }
  uint32_t BusyOn(int engine) {
    const EngineGauges gauges = (*engines_[engine])->Gauges();
    return gauges.running + gauges.waiting;
  }

  std::vector<std::unique_ptr<TestEngine>> engines_;
  std::unique_ptr<Dispatcher> dispatcher_;
};

TEST_F(DispatcherTest, OneEngineIsTransparent) {
  Build(1);
  auto client = MakeClient(MakeRequest(MakePrompt(10), 10));
  ASSERT_TRUE(dispatcher_->Submit(client->request).ok());
  EXPECT_FALSE(dispatcher_->Idle());
  RunUntilEnded(*client);
  EXPECT_EQ(client->choices[0].tokens, Expected(client->request));
  auto bad = MakeClient(MakeRequest({}, 10));
  EXPECT_EQ(dispatcher_->Submit(bad->request).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(DispatcherTest, SpreadsByLoad) {
  Build(3);
  std::vector<std::unique_ptr<Client>> clients;
  for (uint32_t i = 0; i < 9; ++i) {
    clients.push_back(MakeClient(MakeRequest(MakePrompt(4, i), 3000), 1, 8));
    ASSERT_TRUE(dispatcher_->Submit(clients.back()->request).ok());
  }
  for (int i = 0; i < 3; ++i) EXPECT_EQ(BusyOn(i), 3u);
  EXPECT_EQ(dispatcher_->Gauges().waiting, 9u);
}

TEST_F(DispatcherTest, FollowsTheCachedPrefixButNotIntoACrowd) {
  Build(2, {{"max_sequences", "4"}});
  const std::vector<TokenId> prompt = MakePrompt(64);
  auto busy = MakeClient(MakeRequest(MakePrompt(4, 9), 3000), 1, 8);
  ASSERT_TRUE(dispatcher_->Submit(busy->request).ok());
  StepAll(3);
  ASSERT_EQ(BusyOn(0), 1u);
  auto first = MakeClient(MakeRequest(prompt, 4));
  ASSERT_TRUE(dispatcher_->Submit(first->request).ok());
  EXPECT_EQ(BusyOn(1), 1u);
  RunUntilEnded(*first);
  StepAll(2);
  // Engine 1 is idle and has the prefix; fill it, then it is passed over.
  std::vector<std::unique_ptr<Client>> followers;
  for (int i = 0; i < 5; ++i) {
    followers.push_back(MakeClient(MakeRequest(prompt, 3000), 1, 8));
    ASSERT_TRUE(dispatcher_->Submit(followers.back()->request).ok());
  }
  EXPECT_EQ(BusyOn(1), 4u);
  EXPECT_EQ(BusyOn(0), 2u);
}

TEST_F(DispatcherTest, SkipsFailedDevices) {
  Build(2);
  engines_[0]->control().Lose();
  for (uint32_t i = 0; i < 4; ++i) {
    auto client = MakeClient(MakeRequest(MakePrompt(4, i), 10));
    ASSERT_TRUE(dispatcher_->Submit(client->request).ok());
    EXPECT_EQ(BusyOn(0), 0u);
    for (int s = 0; s < 100 && !client->ended(); ++s) {
      engines_[1]->Step();
      client->Read();
    }
    EXPECT_EQ(client->choices[0].tokens, Expected(client->request));
  }
  EXPECT_TRUE(dispatcher_->Healthy());
  engines_[1]->control().Lose();
  EXPECT_FALSE(dispatcher_->Healthy());
  auto client = MakeClient(MakeRequest(MakePrompt(4), 10));
  EXPECT_EQ(dispatcher_->Submit(client->request).code(), absl::StatusCode::kUnavailable);
}

TEST_F(DispatcherTest, AsksTheNextWhenAQueueIsFull) {
  Build(2, {}, {.max_waiting = 2});
  std::vector<std::unique_ptr<Client>> clients;
  for (uint32_t i = 0; i < 4; ++i) {
    clients.push_back(MakeClient(MakeRequest(MakePrompt(4, i), 10)));
    ASSERT_TRUE(dispatcher_->Submit(clients.back()->request).ok());
  }
  auto over = MakeClient(MakeRequest(MakePrompt(4), 10));
  EXPECT_EQ(dispatcher_->Submit(over->request).code(), absl::StatusCode::kResourceExhausted);
  StepAll();
  EXPECT_TRUE(dispatcher_->Submit(over->request).ok());
  for (const auto& client : clients) RunUntilEnded(*client);
}

TEST_F(DispatcherTest, OneEngineOfManyTellsATimeAndKeepsIt) {
  EngineOptions options;
  options.max_waiting = 1;
  Build(3, {}, options);
  std::vector<std::unique_ptr<Client>> clients;
  const auto submit = [&] {
    clients.push_back(MakeClient(MakeRequest(MakePrompt(4), 10)));
    return dispatcher_->Submit(clients.back()->request);
  };
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(submit().ok());
  const std::optional<int64_t> wait_ns = RetryAfterNs(submit());
  ASSERT_TRUE(wait_ns.has_value());
  for (auto& engine : engines_) engine->clock().AdvanceNanos(*wait_ns);
  // For one (and one who came meanwhile), not for one at each engine.
  EXPECT_TRUE(submit().ok());
  EXPECT_TRUE(submit().ok());
  EXPECT_FALSE(submit().ok());
}

TEST_F(DispatcherTest, GoesWhereTheAdapterIs) {
  Build(2);
  Request request = MakeRequest(MakePrompt(4), 10);
  request.adapter = 5;
  auto client = MakeClient(request);
  EXPECT_EQ(dispatcher_->Submit(client->request).code(), absl::StatusCode::kNotFound);
  (*engines_[1])->LoadAdapter(5, "/dev/null", 1.0f, [](absl::Status status) {
    EXPECT_TRUE(status.ok());
  });
  StepAll();
  ASSERT_TRUE(dispatcher_->Submit(client->request).ok());
  EXPECT_EQ(BusyOn(1), 1u);
}

TEST_F(DispatcherTest, DrainAndAbortReachAllEngines) {
  Build(2);
  std::vector<std::unique_ptr<Client>> clients;
  for (uint32_t i = 0; i < 2; ++i) {
    clients.push_back(MakeClient(MakeRequest(MakePrompt(4, i), 3000), 1, 8));
    ASSERT_TRUE(dispatcher_->Submit(clients.back()->request).ok());
  }
  StepAll();
  dispatcher_->BeginDrain();
  auto late = MakeClient(MakeRequest(MakePrompt(4), 10));
  EXPECT_EQ(dispatcher_->Submit(late->request).code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(dispatcher_->Idle());
  dispatcher_->AbortAll(absl::UnavailableError("down"));
  StepAll(3);
  EXPECT_TRUE(dispatcher_->Idle());
}

TEST_F(DispatcherTest, EnginesMustServeTheSameModel) {
  TestEngine a(FakeOptionList{{"vocab", "256"}});
  TestEngine b(FakeOptionList{{"vocab", "128"}});
  EXPECT_EQ(Dispatcher::Create({&*a, &*b}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Dispatcher::Create({}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Dispatcher::Create({&*a, &*b}).status().message()), HasSubstr("128"));
}

}  // namespace
}  // namespace reticle::scheduler
