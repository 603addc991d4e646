// Several engines behind a dispatcher whose devices are lost, hang and come back: every stream says
// exactly what it would have said undisturbed.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <random>
#include <thread>

#include "base/log.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/dispatcher.h"
#include "scheduler/engine_test_util.h"
#include "scheduler/engine_thread.h"

namespace reticle::scheduler {
namespace {

using ::testing::HasSubstr;

// Engines over fake devices behind a dispatcher, on one clock.
class Fleet {
 public:
  Fleet(int count, const FakeOptionList& fake_options, const EngineOptions& options, Clock& clock)
      : clock_(clock) {
    static std::atomic<int> serial{0};
    std::vector<Engine*> pointers;
    for (int i = 0; i < count; ++i) {
      FakeOptionList named = fake_options;
      named.emplace_back("name", "fleet_" + std::to_string(++serial));
      auto made = Engine::Create(OpenFake(named), options, clock, nullptr);
      RETICLE_CHECK(made.ok());
      engines_.push_back(*std::move(made));
      controls_.push_back(backends::fake::FindFakeDevice(named.back().second));
      pointers.push_back(engines_.back().get());
    }
    auto made = Dispatcher::Create(pointers);
    RETICLE_CHECK(made.ok());
    dispatcher_ = *std::move(made);
  }

  absl::Status Submit(Client& client) {
    client.request.arrival_ns = clock_.NowNanos();
    return dispatcher_->Submit(client.request);
  }
  void Step() {
    for (const auto& engine : engines_) {
      engine->Step();
      engine->CheckInvariants();
    }
  }
  size_t size() const { return engines_.size(); }
  Engine& engine(size_t i) { return *engines_[i]; }
  backends::fake::FakeControl& control(size_t i) { return *controls_[i]; }
  Dispatcher& dispatcher() { return *dispatcher_; }
  uint32_t BusyOn(size_t i) const {
    const EngineGauges gauges = engines_[i]->Gauges();
    return gauges.running + gauges.waiting;
  }

 private:
  Clock& clock_;
  std::vector<std::unique_ptr<Engine>> engines_;
  std::vector<std::shared_ptr<backends::fake::FakeControl>> controls_;
  std::unique_ptr<Dispatcher> dispatcher_;
};

class FailoverTest : public ::testing::Test {
 protected:
  FailoverTest() : random_(23) { SetLogLevel(LogLevel::kOff); }
  ~FailoverTest() override { SetLogLevel(LogLevel::kInfo); }

  uint32_t Draw(uint32_t n) { return static_cast<uint32_t>(random_() % n); }
  bool OneIn(uint32_t n) { return Draw(n) == 0; }

  void Build(int count, const FakeOptionList& fake_options = {}, EngineOptions options = {}) {
    fleet_ = std::make_unique<Fleet>(count, fake_options, options, clock_);
  }
  void Step() {
    clock_.AdvanceNanos(1000);
    fleet_->Step();
  }
  bool RunUntilEnded(Client& client, int limit = 20'000) {
    for (int i = 0; i < limit && !client.ended(); ++i) {
      Step();
      client.Read();
    }
    return client.ended();
  }

  std::unique_ptr<Client> RandomClient() {
    std::vector<TokenId> prompt = MakePrompt(1 + Draw(40), Draw(3));
    if (OneIn(3)) prompt.push_back(Draw(200));
    Request request = MakeRequest(std::move(prompt), 1 + Draw(60), random_());
    SamplingParams& sampling = request.sampling;
    if (OneIn(4)) sampling.temperature = 0;
    if (OneIn(4)) sampling.top_k = 1 + Draw(50);
    if (OneIn(4)) sampling.repetition_penalty = 1.2f;
    if (OneIn(4)) sampling.frequency_penalty = 0.3f;
    if (OneIn(4)) sampling.presence_penalty = 0.2f;
    if (OneIn(6)) sampling.logit_bias = {{Draw(256), 2.0f}};
    if (OneIn(2)) sampling.stop_ids = {Draw(256), Draw(256), Draw(256)};
    if (OneIn(4)) sampling.min_tokens = Draw(request.max_tokens);
    if (OneIn(5)) sampling.logprobs = Draw(4);
    if (OneIn(6)) sampling.prompt_logprobs = Draw(3);
    request.priority = static_cast<int32_t>(Draw(3)) - 1;
    return MakeClient(std::move(request), OneIn(5) ? 2 + Draw(3) : 1, 2 + Draw(40));
  }

  // Every choice has said all that it should.
  void ExpectUndisturbed(const Client& client) {
    for (uint32_t i = 0; i < client.choices.size(); ++i) {
      const Choice& choice = client.choices[i];
      ASSERT_TRUE(choice.end.has_value());
      ASSERT_TRUE(choice.end->reason == FinishReason::kStop ||
                  choice.end->reason == FinishReason::kLength)
          << choice.end->status;
      ASSERT_EQ(choice.tokens, Expected(client.request, i));
      ASSERT_EQ(choice.end->output_tokens, choice.tokens.size());
      if (i == 0 && client.request.sampling.prompt_logprobs.has_value()) {
        ASSERT_EQ(choice.prompt.size(), client.request.prompt->size());
      }
    }
  }

  // 32 requests at any time; `fault` strikes now and then until it has done so `faults` times.
  // Returns how many requests ended.
  int RunUnderFire(int faults, const std::function<void(size_t)>& fault,
                   const std::function<void()>& after_fault) {
    std::vector<std::unique_ptr<Client>> live;
    int done = 0;
    int struck = 0;
    int quiet = 0;
    while (quiet < 20'000) {
      while (struck < faults && live.size() < 32) {
        auto client = RandomClient();
        if (!fleet_->Submit(*client).ok()) break;  // all are lost for the moment
        live.push_back(std::move(client));
      }
      if (struck < faults && OneIn(6)) {
        fault(Draw(static_cast<uint32_t>(fleet_->size())));
        ++struck;
        after_fault();
      }
      Step();
      if (OneIn(4)) clock_.AdvanceNanos(10'000'000);
      for (size_t i = live.size(); i > 0; --i) {
        for (Choice& choice : live[i - 1]->choices) {
          if (OneIn(3)) choice.Read(OneIn(2) ? 1 : SIZE_MAX);
        }
        if (!live[i - 1]->ended()) continue;
        ++done;
        ExpectUndisturbed(*live[i - 1]);
        live[i - 1] = std::move(live.back());
        live.pop_back();
        if (HasFatalFailure()) return done;
      }
      if (struck < faults) continue;
      if (live.empty() && fleet_->dispatcher().Idle()) break;
      ++quiet;
    }
    EXPECT_TRUE(live.empty()) << live.size() << " never ended";
    return done;
  }

  ManualClock clock_;
  std::unique_ptr<Fleet> fleet_;
  std::mt19937 random_;
};

constexpr EngineOptions Patient() {
  EngineOptions options;
  options.max_recoveries = 1'000'000;
  options.fence_after = 0;
  options.failover_ns = 3'600'000'000'000;
  return options;
}

TEST_F(FailoverTest, SequencesOfALostDeviceGoOnAtAnother) {
  Build(2, {{"credits", "8"}});
  Request request = MakeRequest(MakePrompt(20), 200);
  request.sampling.frequency_penalty = 0.5f;
  request.sampling.min_tokens = 150;
  request.sampling.stop_ids = {1, 2, 3};
  auto client = MakeClient(request, 2);
  ASSERT_TRUE(fleet_->Submit(*client).ok());
  ASSERT_EQ(fleet_->BusyOn(0), 2u);
  for (int i = 0; i < 4; ++i) {
    Step();
    client->Read();
  }
  EXPECT_GT(client->choices[0].tokens.size(), 0u);
  fleet_->control(0).FailResets(1'000'000);
  fleet_->control(0).Lose();
  Step();
  EXPECT_EQ(fleet_->BusyOn(0), 0u);
  EXPECT_EQ(fleet_->BusyOn(1), 2u);
  EXPECT_TRUE(fleet_->engine(0).Lost());
  EXPECT_TRUE(fleet_->dispatcher().Healthy());
  ASSERT_TRUE(RunUntilEnded(*client));
  ExpectUndisturbed(*client);
  EXPECT_EQ(client->choices[0].end->recoveries, 1u);
  for (int i = 0; i < 3; ++i) Step();
  EXPECT_TRUE(fleet_->dispatcher().Idle());
}

TEST_F(FailoverTest, WhatIsQueuedMovesTooAndKeepsItsPlace) {
  Build(2, {{"max_sequences", "1"}});
  std::vector<std::unique_ptr<Client>> clients;
  for (uint32_t i = 0; i < 8; ++i) {
    clients.push_back(MakeClient(MakeRequest(MakePrompt(4, i), 50)));
    ASSERT_TRUE(fleet_->Submit(*clients.back()).ok());
  }
  Step();
  fleet_->control(0).FailResets(1'000'000);
  fleet_->control(0).Lose();
  Step();
  EXPECT_EQ(fleet_->BusyOn(1), 8u);
  std::vector<size_t> ended;
  for (int i = 0; i < 5000 && ended.size() < clients.size(); ++i) {
    Step();
    for (size_t c = 0; c < clients.size(); ++c) {
      const bool before = clients[c]->ended();
      clients[c]->Read();
      if (!before && clients[c]->ended()) ended.push_back(c);
    }
  }
  ASSERT_EQ(ended.size(), clients.size());
  // The one that ran there goes on first; the others in the order of their arrival.
  EXPECT_EQ(ended, (std::vector<size_t>{1, 0, 2, 3, 4, 5, 6, 7}));
  for (const auto& client : clients) ExpectUndisturbed(*client);
}

TEST_F(FailoverTest, CancelsAndDeadlinesFollowTheSequence) {
  Build(2, {{"credits", "2"}});
  auto cancelled = MakeClient(MakeRequest(MakePrompt(4), 3000), 1, 8);
  Request request = MakeRequest(MakePrompt(4, 1), 3000);
  request.deadline_ns = 1'000'000;
  auto expiring = MakeClient(request, 1, 8);
  auto racing = MakeClient(MakeRequest(MakePrompt(4, 2), 3000), 1, 8);
  for (Client* client : {cancelled.get(), expiring.get(), racing.get()}) {
    ASSERT_TRUE(fleet_->engine(0).Submit(client->request).ok());
  }
  for (int i = 0; i < 4; ++i) Step();
  fleet_->control(0).FailResets(1'000'000);
  fleet_->control(0).Lose();
  fleet_->engine(0).Step();
  ASSERT_EQ(fleet_->BusyOn(1), 3u);
  racing->choices[0].stream->Cancel();  // before the new engine has looked
  Step();
  cancelled->choices[0].stream->Cancel();
  Step();
  for (Client* client : {cancelled.get(), racing.get()}) {
    client->Read();
    client->Read();
    ASSERT_TRUE(client->ended());
    EXPECT_EQ(client->choices[0].end->reason, FinishReason::kCancelled);
  }
  clock_.AdvanceNanos(2'000'000);
  Step();
  expiring->Read();
  ASSERT_TRUE(expiring->ended());
  EXPECT_EQ(expiring->choices[0].end->reason, FinishReason::kDeadline);
}

TEST_F(FailoverTest, WithoutAnyDeviceTheyWaitAndGoWhereOneComesBackFirst) {
  Build(3, {{"credits", "4"}}, Patient());
  std::vector<std::unique_ptr<Client>> clients;
  for (uint32_t i = 0; i < 6; ++i) {
    clients.push_back(MakeClient(MakeRequest(MakePrompt(4, i), 100)));
    ASSERT_TRUE(fleet_->Submit(*clients.back()).ok());
  }
  for (int i = 0; i < 3; ++i) Step();
  for (size_t i = 0; i < 3; ++i) {
    fleet_->control(i).FailResets(i == 1 ? 4 : 1'000'000);
    fleet_->control(i).Lose();
  }
  Step();
  EXPECT_FALSE(fleet_->dispatcher().Healthy());
  auto refused = MakeClient(MakeRequest(MakePrompt(4), 10));
  EXPECT_EQ(fleet_->Submit(*refused).code(), absl::StatusCode::kUnavailable);
  for (int i = 0; i < 400; ++i) {
    clock_.AdvanceNanos(10'000'000);
    Step();
    for (const auto& client : clients) client->Read();
  }
  EXPECT_TRUE(fleet_->engine(0).Lost());
  EXPECT_FALSE(fleet_->engine(1).Lost());
  EXPECT_TRUE(fleet_->engine(2).Lost());
  for (const auto& client : clients) {
    ASSERT_TRUE(RunUntilEnded(*client));
    ExpectUndisturbed(*client);
  }
}

TEST_F(FailoverTest, NobodyComesBackInTime) {
  Build(2, {}, {.failover_ns = 3'000'000'000});
  auto client = MakeClient(MakeRequest(MakePrompt(4), 3000), 1, 8);
  ASSERT_TRUE(fleet_->Submit(*client).ok());
  Step();
  for (size_t i = 0; i < 2; ++i) {
    fleet_->control(i).FailResets(1'000'000);
    fleet_->control(i).Lose();
  }
  for (int i = 0; i < 1000 && !client->ended(); ++i) {
    clock_.AdvanceNanos(10'000'000);
    Step();
    client->Read();
  }
  ASSERT_TRUE(client->ended());
  const SequenceEnd& end = *client->choices[0].end;
  EXPECT_EQ(end.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(end.status.message()), HasSubstr("none came back within 3000 ms"));
}

TEST_F(FailoverTest, ADeviceWithAnotherContextDoesNotTakeWhatItWouldEndElsewhere) {
  ManualClock clock;
  TestEngine small(FakeOptionList{{"context", "64"}});
  TestEngine large(FakeOptionList{{"context", "4096"}});
  auto dispatcher = Dispatcher::Create({&*small, &*large});
  ASSERT_TRUE(dispatcher.ok());
  auto fits = MakeClient(MakeRequest(MakePrompt(4), 20));
  auto cut_off = MakeClient(MakeRequest(MakePrompt(4), 200));
  ASSERT_TRUE(small->Submit(fits->request).ok());
  ASSERT_TRUE(small->Submit(cut_off->request).ok());
  small.Step();
  small.control().FailResets(1);
  small.control().Lose();
  small.Step();
  EXPECT_EQ(large->Gauges().waiting, 1u);
  EXPECT_EQ(small->Gauges().waiting, 1u);
  small.clock().AdvanceNanos(1'000'000'000);
  ASSERT_TRUE(small.RunUntilEnded({cut_off.get()}));
  ASSERT_TRUE(large.RunUntilEnded({fits.get()}));
  EXPECT_EQ(cut_off->choices[0].tokens.size(), 60u);
  EXPECT_EQ(fits->choices[0].tokens, Expected(fits->request));
}

TEST_F(FailoverTest, FencingADeviceEmptiesItAndUnfencingFillsItAgain) {
  Build(2, {{"credits", "4"}});
  std::vector<std::unique_ptr<Client>> clients;
  for (uint32_t i = 0; i < 6; ++i) {
    clients.push_back(MakeClient(MakeRequest(MakePrompt(4, i), 200)));
    ASSERT_TRUE(fleet_->Submit(*clients.back()).ok());
  }
  for (int i = 0; i < 3; ++i) Step();
  fleet_->engine(0).Fence("maintenance");
  for (int i = 0; i < 3; ++i) Step();
  EXPECT_EQ(fleet_->BusyOn(0), 0u);
  EXPECT_EQ(fleet_->BusyOn(1), 6u);
  fleet_->engine(0).Unfence([](absl::Status status) { EXPECT_TRUE(status.ok()); });
  Step();
  auto after = MakeClient(MakeRequest(MakePrompt(4, 9), 10));
  ASSERT_TRUE(fleet_->Submit(*after).ok());
  EXPECT_EQ(fleet_->BusyOn(0), 1u);
  for (const auto& client : clients) {
    ASSERT_TRUE(RunUntilEnded(*client));
    ExpectUndisturbed(*client);
  }
}

struct FireCase {
  const char* name;
  FakeOptionList fake;
};

class UnderFireTest : public FailoverTest, public ::testing::WithParamInterface<FireCase> {};

TEST_P(UnderFireTest, LossesOfRandomDevicesChangeNoByte) {
  Build(4, GetParam().fake, Patient());
  const int done = RunUnderFire(
      250,
      [this](size_t i) {
        if (OneIn(2)) fleet_->control(i).FailResets(Draw(4));
        fleet_->control(i).Lose();
      },
      [] {});
  EXPECT_GT(done, 50);
}

TEST_P(UnderFireTest, HangsChangeNoByte) {
  EngineOptions options = Patient();
  options.watchdog_ns = 1'000'000'000;
  Build(3, GetParam().fake, options);
  const int done = RunUnderFire(
      50, [this](size_t i) { fleet_->control(i).Hang(); },
      [this] {
        if (OneIn(2)) clock_.AdvanceNanos(1'100'000'000);
      });
  EXPECT_GT(done, 20);
}

// Four kinds of device: a thousand losses and two hundred hangs in all.
INSTANTIATE_TEST_SUITE_P(
    All, UnderFireTest,
    ::testing::Values(FireCase{"paged_lockstep", {{"credits", "1"}, {"block_tokens", "4"}}},
                      FireCase{"paged_run_ahead", {{"credits", "9"}, {"block_tokens", "4"}}},
                      FireCase{"slots_run_ahead",
                               {{"mode", "slots"}, {"credits", "16"}, {"max_sequences", "12"}}},
                      FireCase{"tiny_pool",
                               {{"credits", "5"}, {"blocks", "44"}, {"block_tokens", "4"}}}),
    [](const auto& info) { return info.param.name; });

// The same with a thread an engine, on the system's clock.
TEST_F(FailoverTest, ThreadsHandOverWhileClientsReadAndCancel) {
  EngineOptions options = Patient();
  options.watchdog_ns = 20'000'000;
  options.reset_in_background = true;
  Fleet fleet(3, {{"credits", "4"}, {"step_ns", "2000"}}, options, Clock::Monotonic());
  std::vector<std::unique_ptr<EngineThread>> threads;
  for (size_t i = 0; i < fleet.size(); ++i) {
    auto thread = EngineThread::Start(fleet.engine(i), {});
    ASSERT_TRUE(thread.ok());
    threads.push_back(*std::move(thread));
  }
  std::atomic<int> left{4};
  std::atomic<int> wrong{0};
  std::atomic<int> recoveries{0};
  std::vector<std::thread> clients;
  for (uint32_t c = 0; c < 4; ++c) {
    clients.emplace_back([&, c] {
      std::mt19937 random(c);
      for (int i = 0; i < 12;) {
        auto client = MakeClient(MakeRequest(MakePrompt(1 + random() % 30, random() % 4),
                                             100 + random() % 200, random()),
                                 1, 16);
        if (!fleet.Submit(*client).ok()) {
          std::this_thread::sleep_for(std::chrono::microseconds(50));
          continue;
        }
        ++i;
        const bool cancels = random() % 5 == 0;
        const size_t cancel_after = random() % 50;
        Choice& choice = client->choices[0];
        while (!client->ended()) {
          if (choice.Read() == 0) std::this_thread::sleep_for(std::chrono::microseconds(50));
          if (cancels && choice.tokens.size() >= cancel_after) choice.stream->Cancel();
        }
        std::vector<TokenId> expected = Expected(client->request);
        if (choice.end->reason == FinishReason::kCancelled) {
          expected.resize(std::min(expected.size(), choice.tokens.size()));
        } else if (choice.end->reason == FinishReason::kError) {
          ++wrong;
        }
        if (choice.tokens != expected) ++wrong;
        recoveries += static_cast<int>(choice.end->recoveries);
      }
      --left;
    });
  }
  std::mt19937 random(99);
  while (left.load() > 0) {
    const size_t victim = random() % fleet.size();
    if (random() % 20 == 0) fleet.control(victim).FailResets(1);
    if (random() % 8 == 0) {
      fleet.control(victim).Hang();
    } else {
      fleet.control(victim).Lose();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2 + random() % 8));
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(wrong.load(), 0);
  EXPECT_GT(recoveries.load(), 0);
  for (auto& thread : threads) thread->Stop();
  threads.clear();
  for (size_t i = 0; i < fleet.size(); ++i) fleet.engine(i).CheckInvariants();
}

}  // namespace
}  // namespace reticle::scheduler
