// Devices that refuse, err, hang and die under an engine.
#include <algorithm>

#include "base/log.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/engine_test_util.h"

namespace reticle::scheduler {
namespace {

using ::testing::HasSubstr;

class EngineFaultTest : public ::testing::Test {
 protected:
  EngineFaultTest() { SetLogLevel(LogLevel::kOff); }
  ~EngineFaultTest() override { SetLogLevel(LogLevel::kInfo); }

  // Submits `count` requests of different lengths.
  void SubmitMany(TestEngine& engine, uint32_t count, uint32_t max_tokens = 30) {
    for (uint32_t i = 0; i < count; ++i) {
      Request request = MakeRequest(MakePrompt(5 + 7 * i, i), max_tokens, i);
      if (i % 3 == 0) request.sampling.frequency_penalty = 0.4f;
      clients_.push_back(MakeClient(std::move(request)));
      all_.push_back(clients_.back().get());
      ASSERT_TRUE(engine.Submit(*clients_.back()).ok());
    }
  }
  void ExpectAllRight() {
    for (Client* client : all_) {
      EXPECT_EQ(client->choices[0].end->reason, FinishReason::kLength)
          << client->choices[0].end->status;
      EXPECT_EQ(client->choices[0].tokens, Expected(client->request));
    }
  }

  std::vector<std::unique_ptr<Client>> clients_;
  std::vector<Client*> all_;
};

TEST_F(EngineFaultTest, LostDeviceIsResetAndNoTokenIsLostOrRepeated) {
  for (const char* mode : {"paged", "slots"}) {
    for (const char* credits : {"1", "8"}) {
      for (const int after : {1, 4, 9}) {
        TestEngine engine({{"mode", mode}, {"credits", credits}, {"prefill_chunk", "16"}});
        clients_.clear();
        all_.clear();
        SubmitMany(engine, 8);
        for (int i = 0; i < after; ++i) engine.Step();
        engine.control().Lose();
        ASSERT_TRUE(engine.RunUntilEnded(all_)) << mode << " " << credits << " " << after;
        ExpectAllRight();
        EXPECT_TRUE(engine.RunUntilIdle());
        EXPECT_EQ(engine->Gauges().kv_blocks_used, 0u);
        EXPECT_EQ(engine->DeviceStats()->resets, 1u);
      }
    }
  }
}

TEST_F(EngineFaultTest, BlocksOfBeforeTheLossAreNotReused) {
  TestEngine engine(FakeOptionList{{"block_tokens", "4"}});
  const std::vector<TokenId> prompt = MakePrompt(40);
  auto before = MakeClient(MakeRequest(prompt, 4));
  ASSERT_TRUE(engine.Submit(*before).ok());
  ASSERT_TRUE(engine.RunUntilEnded({before.get()}));
  EXPECT_GT(engine->CachedPrefixTokens(prompt), 0u);
  engine.control().Lose();
  auto after = MakeClient(MakeRequest(prompt, 4));
  ASSERT_TRUE(engine.Submit(*after).ok());
  ASSERT_TRUE(engine.RunUntilEnded({after.get()}));
  EXPECT_EQ(after->choices[0].end->cached_tokens, 0u);
  EXPECT_EQ(after->choices[0].tokens, before->choices[0].tokens);
}

TEST_F(EngineFaultTest, WhatGetsNoTokenFromOneLossToTheNextIsGivenUp) {
  TestEngine engine({}, {.max_recoveries = 2, .fence_after = 0});
  SubmitMany(engine, 3, 1000);
  for (int i = 0; i < 8; ++i) {
    engine.Step();
    for (Client* client : all_) client->Read();
    // Just after they were given to the device (again), before it has said anything.
    if (i % 2 == 0) engine.control().Lose();
  }
  for (Client* client : all_) {
    ASSERT_TRUE(client->ended());
    const SequenceEnd& end = *client->choices[0].end;
    EXPECT_EQ(end.reason, FinishReason::kError);
    EXPECT_EQ(end.status.code(), absl::StatusCode::kUnavailable);
  }
}

TEST_F(EngineFaultTest, WhatProgressesBetweenLossesIsNeverGivenUp) {
  TestEngine engine(FakeOptionList{{"credits", "4"}}, {.max_recoveries = 1, .fence_after = 0});
  SubmitMany(engine, 3, 300);
  for (int i = 0; i < 4000 && !all_[2]->ended(); ++i) {
    engine.Step();
    for (Client* client : all_) client->Read();
    if (i % 8 == 7) engine.control().Lose();
  }
  ExpectAllRight();
  EXPECT_GT(all_[0]->choices[0].end->recoveries, 5u);
}

TEST_F(EngineFaultTest, ALostDeviceIsResetUntilThatHelpsAndItsSequencesGoOn) {
  TestEngine engine;
  SubmitMany(engine, 2, 3000);
  engine.Step();
  engine.control().FailResets(3);
  engine.control().Lose();
  engine.Step();
  ASSERT_TRUE(engine->Lost());
  auto refused = MakeClient(MakeRequest(MakePrompt(4), 5));
  EXPECT_EQ(engine.Submit(*refused).code(), absl::StatusCode::kUnavailable);
  int waits = 0;
  for (; waits < 20 && engine->Lost(); ++waits) {
    ASSERT_LT(engine->next_timer_ns(), INT64_MAX);
    engine.clock().AdvanceNanos(engine->next_timer_ns() - engine.clock().NowNanos());
    engine.Step();
  }
  EXPECT_EQ(waits, 3);
  EXPECT_FALSE(engine->Lost());
  ASSERT_TRUE(engine.Submit(*refused).ok());
  ASSERT_TRUE(engine.RunUntilEnded({refused.get()}));
  EXPECT_EQ(refused->choices[0].tokens, Expected(refused->request));
  ASSERT_TRUE(engine.RunUntilEnded(all_));
  ExpectAllRight();
}

TEST_F(EngineFaultTest, WhatWaitsTooLongForALostDeviceEndsWithAClearError) {
  TestEngine engine({}, {.failover_ns = 5'000'000'000});
  SubmitMany(engine, 3, 3000);
  Request request = MakeRequest(MakePrompt(4), 500);
  request.deadline_ns = 2'000'000'000;
  auto expiring = MakeClient(request);
  ASSERT_TRUE(engine.Submit(*expiring).ok());
  engine.Step();
  engine.control().FailResets(1'000'000);
  engine.control().Lose();
  for (int i = 0; i < 1000 && !all_[0]->ended(); ++i) {
    engine.Step();
    engine.clock().AdvanceNanos(10'000'000);
    for (Client* client : all_) client->Read();
    expiring->Read();
  }
  EXPECT_GE(engine.clock().NowNanos(), 5'000'000'000);
  EXPECT_LT(engine.clock().NowNanos(), 6'000'000'000);
  for (Client* client : all_) {
    ASSERT_TRUE(client->ended());
    const SequenceEnd& end = *client->choices[0].end;
    EXPECT_EQ(end.status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(end.status.message()), HasSubstr("none came back within 5000 ms"));
  }
  ASSERT_TRUE(expiring->ended());
  EXPECT_EQ(expiring->choices[0].end->reason, FinishReason::kDeadline);
  EXPECT_TRUE(engine.RunUntilIdle());
}

TEST_F(EngineFaultTest, ADeviceThatIsLostTooOftenIsFencedForATime) {
  TestEngine engine({}, {.max_recoveries = 100, .fence_after = 4, .fence_ns = 20'000'000'000});
  SubmitMany(engine, 2, 3000);
  int losses = 0;
  for (; losses < 20 && engine->device_state() != DeviceState::kFenced; ++losses) {
    engine.control().Lose();
    engine.Step();
    engine.Step();
  }
  EXPECT_EQ(losses, 4);
  ASSERT_TRUE(engine->Lost());
  engine.clock().AdvanceNanos(19'000'000'000);
  engine.Step();
  EXPECT_EQ(engine->device_state(), DeviceState::kFenced);
  engine.clock().AdvanceNanos(2'000'000'000);
  engine.Step();
  EXPECT_EQ(engine->device_state(), DeviceState::kReady);
  ASSERT_TRUE(engine.RunUntilEnded(all_));
  ExpectAllRight();
}

TEST_F(EngineFaultTest, FencedByOrderItWaitsForUnfence) {
  for (const char* mode : {"paged", "slots"}) {
    TestEngine engine({{"mode", mode}, {"credits", "4"}});
    clients_.clear();
    all_.clear();
    SubmitMany(engine, 5, 100);
    for (int i = 0; i < 4; ++i) engine.Step();
    engine->Fence("maintenance");
    for (int i = 0; i < 50; ++i) engine.Step();
    EXPECT_EQ(engine->device_state(), DeviceState::kFenced);
    EXPECT_EQ(engine.control().live_sequences(), 0u);
    auto refused = MakeClient(MakeRequest(MakePrompt(4), 5));
    EXPECT_THAT(std::string(engine.Submit(*refused).message()), HasSubstr("fenced"));
    absl::Status unfenced = absl::UnknownError("not called");
    engine->Unfence([&](absl::Status status) { unfenced = std::move(status); });
    ASSERT_TRUE(engine.RunUntilEnded(all_));
    EXPECT_TRUE(unfenced.ok()) << unfenced;
    ExpectAllRight();
    EXPECT_EQ(engine->DeviceStats()->resets, 0u);
  }
}

TEST_F(EngineFaultTest, AnIdleDeviceThatFailsIsNoticedByItsHealth) {
  TestEngine engine({}, {.health_ns = 20'000'000, .idle_health_ns = 1'000'000'000});
  engine.Step();
  EXPECT_LE(engine->next_timer_ns(), 1'000'000'000);
  engine.control().Hang();
  engine.clock().AdvanceNanos(1'000'000'000);
  engine.Step();
  EXPECT_EQ(engine->DeviceStats()->resets, 1u);
  EXPECT_FALSE(engine->Lost());
  SubmitMany(engine, 1, 3000);
  engine.Step();
  engine.control().Hang();
  engine.clock().AdvanceNanos(20'000'000);
  engine.Step();
  EXPECT_EQ(engine->DeviceStats()->resets, 2u) << "much earlier than the watchdog";
  ASSERT_TRUE(engine.RunUntilEnded(all_));
  ExpectAllRight();
}

TEST_F(EngineFaultTest, AdaptersAreThereAgainAfterAReset) {
  TestEngine engine;
  engine->LoadAdapter(9, "/dev/null", 1.0f, [](absl::Status status) { ASSERT_TRUE(status.ok()); });
  engine.Step();
  Request request = MakeRequest(MakePrompt(40), 100);
  request.adapter = 9;
  auto undisturbed = MakeClient(request);
  ASSERT_TRUE(engine.Submit(*undisturbed).ok());
  ASSERT_TRUE(engine.RunUntilEnded({undisturbed.get()}));
  auto client = MakeClient(request);
  ASSERT_TRUE(engine.Submit(*client).ok());
  for (int i = 0; i < 3; ++i) engine.Step();
  engine.control().Lose();
  ASSERT_TRUE(engine.RunUntilEnded({client.get()}));
  EXPECT_EQ(client->choices[0].tokens, undisturbed->choices[0].tokens);
  EXPECT_EQ(client->choices[0].end->recoveries, 1u);
}

TEST_F(EngineFaultTest, ATokensErrorEndsOnlyItsSequence) {
  for (const char* mode : {"paged", "slots"}) {
    TestEngine engine({{"mode", mode}, {"error_token", "20"}});
    clients_.clear();
    all_.clear();
    SubmitMany(engine, 6);
    ASSERT_TRUE(engine.RunUntilEnded(all_));
    int errors = 0;
    for (Client* client : all_) {
      const Choice& choice = client->choices[0];
      std::vector<TokenId> expected = Expected(client->request);
      if (choice.end->reason == FinishReason::kError) {
        ++errors;
        EXPECT_EQ(choice.end->status.code(), absl::StatusCode::kInternal);
        expected.resize(choice.tokens.size());
      }
      EXPECT_EQ(choice.tokens, expected);
    }
    EXPECT_EQ(errors, 1);
    EXPECT_TRUE(engine.RunUntilIdle());
    EXPECT_EQ(engine->Gauges().kv_blocks_used, 0u);
  }
}

// Codes of RETICLE_* that a device may give; absl's are the same.
std::vector<absl::StatusCode> AllCodes() {
  std::vector<absl::StatusCode> codes;
  for (int code = RETICLE_OK + 1; code <= RETICLE_DATA_LOSS; ++code) {
    codes.push_back(static_cast<absl::StatusCode>(code));
  }
  return codes;
}

TEST_F(EngineFaultTest, ADevicesFailureIsNeverItsClients) {
  using Code = absl::StatusCode;
  for (const Code code : AllCodes()) {
    TestEngine engine;
    auto client = MakeClient(MakeRequest(MakePrompt(5), 10));
    ASSERT_TRUE(engine.Submit(*client).ok());
    engine.control().FailNextToken(static_cast<int32_t>(code));
    ASSERT_TRUE(engine.RunUntilEnded({client.get()})) << code;
    const SequenceEnd& end = *client->choices[0].end;
    if (code == Code::kAborted || code == Code::kUnavailable || code == Code::kResourceExhausted) {
      EXPECT_EQ(end.reason, FinishReason::kLength) << code;
      EXPECT_EQ(client->choices[0].tokens, Expected(client->request)) << code;
      EXPECT_EQ(end.recoveries, 1u) << code;
      continue;
    }
    const bool kept = code == Code::kFailedPrecondition || code == Code::kDataLoss;
    EXPECT_EQ(end.reason, FinishReason::kError) << code;
    EXPECT_EQ(end.status.code(), kept ? code : Code::kInternal) << end.status;
    EXPECT_THAT(std::string(end.status.message()), HasSubstr("an injected error")) << code;
  }
}

TEST_F(EngineFaultTest, ARefusalIsItsClientsOnlyForWhatTheRequestAsks) {
  using Code = absl::StatusCode;
  for (const Code code : AllCodes()) {
    if (code == Code::kResourceExhausted || code == Code::kUnavailable) continue;  // tried again
    TestEngine engine;
    auto client = MakeClient(MakeRequest(MakePrompt(5), 10));
    ASSERT_TRUE(engine.Submit(*client).ok());
    engine.control().RefuseItems(1, static_cast<int32_t>(code));
    ASSERT_TRUE(engine.RunUntilEnded({client.get()})) << code;
    const absl::Status& status = client->choices[0].end->status;
    const bool kept =
        code == Code::kInvalidArgument || code == Code::kUnimplemented || code == Code::kDataLoss;
    EXPECT_EQ(status.code(), kept ? code : Code::kInternal) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("refuses item")) << code;
  }
}

TEST_F(EngineFaultTest, RefusedItemsAreOfferedAgain) {
  for (const char* credits : {"1", "8"}) {
    for (const char* every : {"2", "3", "7"}) {
      TestEngine engine({{"refuse_every", every}, {"credits", credits}, {"prefill_chunk", "9"}});
      clients_.clear();
      all_.clear();
      SubmitMany(engine, 8);
      // The clock must pass the retry timer when nothing is under way.
      for (int i = 0; i < 10'000; ++i) {
        engine.Step();
        engine.clock().AdvanceNanos(1'000'000);
        for (Client* client : all_) client->Read();
      }
      for (Client* client : all_) ASSERT_TRUE(client->ended());
      ExpectAllRight();
    }
  }
}

TEST_F(EngineFaultTest, RefusalWithNothingUnderWaySetsATimer) {
  TestEngine engine;
  engine.control().RefuseItems(1);
  SubmitMany(engine, 1);
  engine.Step();
  EXPECT_FALSE(all_[0]->ended());
  EXPECT_LT(engine->next_timer_ns(), INT64_MAX);
  engine.clock().AdvanceNanos(engine->next_timer_ns() - engine.clock().NowNanos());
  ASSERT_TRUE(engine.RunUntilEnded(all_));
  ExpectAllRight();
}

TEST_F(EngineFaultTest, AFailingSubmitEndsTheFirstItsSequenceOnly) {
  TestEngine engine(FakeOptionList{{"fail_submit", "1"}});
  SubmitMany(engine, 4);
  ASSERT_TRUE(engine.RunUntilEnded(all_));
  EXPECT_EQ(all_[0]->choices[0].end->reason, FinishReason::kError);
  EXPECT_EQ(all_[0]->choices[0].end->status.code(), absl::StatusCode::kInternal);
  for (Client* client : {all_[1], all_[2], all_[3]}) {
    EXPECT_EQ(client->choices[0].tokens, Expected(client->request));
  }
}

TEST_F(EngineFaultTest, AHungDeviceIsResetWhenTheWatchdogBites) {
  TestEngine engine(FakeOptionList{{"credits", "4"}}, {.watchdog_ns = 1'000'000'000});
  SubmitMany(engine, 3);
  engine.Step();
  engine.Step();
  engine.control().Hang();
  for (int i = 0; i < 50; ++i) engine.Step();
  EXPECT_FALSE(all_[0]->ended());
  EXPECT_LT(engine->next_timer_ns(), INT64_MAX);
  engine.clock().AdvanceNanos(1'000'000'000);
  ASSERT_TRUE(engine.RunUntilEnded(all_));
  ExpectAllRight();
  EXPECT_EQ(engine->DeviceStats()->resets, 1u);
}

TEST_F(EngineFaultTest, NewWorkDoesNotCalmTheWatchdog) {
  TestEngine engine(FakeOptionList{{"credits", "4"}}, {.watchdog_ns = 1'000'000});
  SubmitMany(engine, 1);
  engine.Step();
  engine.Step();
  engine.control().Hang();
  for (int i = 0; i < 12; ++i) {
    SubmitMany(engine, 1);
    engine.Step();
    engine.clock().AdvanceNanos(100'000);
  }
  ASSERT_TRUE(engine.RunUntilEnded(all_));
  ExpectAllRight();
  EXPECT_EQ(engine->DeviceStats()->resets, 1u);
}

TEST_F(EngineFaultTest, TheWatchdogSleepsWhileNothingIsOwed) {
  TestEngine engine({}, {.stall_ns = 1'000'000'000'000, .watchdog_ns = 1'000'000});
  auto paused = MakeClient(MakeRequest(MakePrompt(4), 100), 1, 4);
  ASSERT_TRUE(engine.Submit(*paused).ok());
  for (int i = 0; i < 10; ++i) engine.Step();
  engine.clock().AdvanceNanos(10'000'000);
  engine.Step();
  ASSERT_TRUE(engine.RunUntilEnded({paused.get()}));
  EXPECT_EQ(paused->choices[0].tokens, Expected(paused->request));
  EXPECT_EQ(engine->DeviceStats()->resets, 0u);
}

TEST_F(EngineFaultTest, ConsumersOfALostDeviceMayStillCancelAndExpire) {
  TestEngine engine(FakeOptionList{{"credits", "1"}});
  SubmitMany(engine, 4, 200);
  Request request = MakeRequest(MakePrompt(4), 500);
  request.deadline_ns = 20'000;
  auto expiring = MakeClient(request);
  ASSERT_TRUE(engine.Submit(*expiring).ok());
  engine.Step();
  engine.control().Lose();
  all_[1]->choices[0].stream->Cancel();
  engine.Step();
  engine.clock().AdvanceNanos(20'000);
  ASSERT_TRUE(engine.RunUntilEnded(all_));
  ASSERT_TRUE(engine.RunUntilEnded({expiring.get()}));
  EXPECT_EQ(all_[1]->choices[0].end->reason, FinishReason::kCancelled);
  EXPECT_EQ(expiring->choices[0].end->reason, FinishReason::kDeadline);
  for (Client* client : {all_[0], all_[2], all_[3]}) {
    EXPECT_EQ(client->choices[0].tokens, Expected(client->request));
  }
}

TEST_F(EngineFaultTest, AdaptersLoadUnloadAndAreRequired) {
  TestEngine engine;
  Request request = MakeRequest(MakePrompt(40), 10);
  request.adapter = 9;
  auto early = MakeClient(request);
  EXPECT_EQ(engine.Submit(*early).code(), absl::StatusCode::kNotFound);
  absl::Status loaded = absl::UnknownError("not called");
  engine->LoadAdapter(9, "/dev/null", 1.0f, [&](absl::Status status) { loaded = status; });
  engine.Step();
  ASSERT_TRUE(loaded.ok()) << loaded;
  EXPECT_TRUE(engine->AdapterLoaded(9));
  auto with = MakeClient(request);
  ASSERT_TRUE(engine.Submit(*with).ok());
  Request plain = request;
  plain.adapter = 0;
  auto without = MakeClient(plain);
  ASSERT_TRUE(engine.Submit(*without).ok());
  ASSERT_TRUE(engine.RunUntilEnded({with.get(), without.get()}));
  EXPECT_EQ(without->choices[0].tokens, Expected(plain));
  EXPECT_NE(with->choices[0].tokens, without->choices[0].tokens);
  EXPECT_EQ(without->choices[0].end->cached_tokens, 0u) << "KV of an adapter is its own";
  ASSERT_TRUE(engine.RunUntilIdle());
  absl::Status unloaded = absl::UnknownError("not called");
  engine->UnloadAdapter(9, [&](absl::Status status) { unloaded = status; });
  engine.Step();
  EXPECT_TRUE(unloaded.ok()) << unloaded;
  EXPECT_FALSE(engine->AdapterLoaded(9));
}

}  // namespace
}  // namespace reticle::scheduler
