#include "scheduler/engine.h"

#include <algorithm>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/engine_test_util.h"

namespace reticle::scheduler {
namespace {

using ::testing::HasSubstr;

TEST(EngineTest, OneRequestGivesTheDevicesTokens) {
  TestEngine engine;
  auto client = MakeClient(MakeRequest(MakePrompt(10), 20));
  ASSERT_TRUE(engine.Submit(*client).ok());
  ASSERT_TRUE(engine.RunUntilEnded({client.get()}));
  EXPECT_EQ(client->choices[0].tokens, Expected(client->request));
  const SequenceEnd& end = *client->choices[0].end;
  EXPECT_EQ(end.reason, FinishReason::kLength);
  EXPECT_EQ(end.prompt_tokens, 10u);
  EXPECT_EQ(end.output_tokens, 20u);
  EXPECT_EQ(end.cached_tokens, 0u);
  EXPECT_TRUE(engine.RunUntilIdle());
  EXPECT_EQ(engine->Gauges().kv_blocks_used, 0u);
}

TEST(EngineTest, StopIdEndsAndIsMarked) {
  TestEngine engine;
  Request request = MakeRequest(MakePrompt(10), 50);
  request.sampling.stop_ids = {Expected(request)[7]};
  auto client = MakeClient(request);
  ASSERT_TRUE(engine.Submit(*client).ok());
  ASSERT_TRUE(engine.RunUntilEnded({client.get()}));
  const Choice& choice = client->choices[0];
  EXPECT_EQ(choice.end->reason, FinishReason::kStop);
  ASSERT_LE(choice.tokens.size(), 8u);
  EXPECT_EQ(choice.tokens, Expected(request));
  EXPECT_TRUE(choice.events.back().is_stop_id);
  for (size_t i = 0; i + 1 < choice.events.size(); ++i) EXPECT_FALSE(choice.events[i].is_stop_id);
}

TEST(EngineTest, ContextLimitEndsWithLength) {
  TestEngine engine(FakeOptionList{{"context", "32"}});
  auto client = MakeClient(MakeRequest(MakePrompt(20), 100));
  ASSERT_TRUE(engine.Submit(*client).ok());
  ASSERT_TRUE(engine.RunUntilEnded({client.get()}));
  EXPECT_EQ(client->choices[0].end->reason, FinishReason::kLength);
  EXPECT_EQ(client->choices[0].tokens.size(), 12u);
}

// The pool holds less than the device's context: the pool is the limit then.
TEST(EngineTest, ContextIsNoLongerThanTheMemory) {
  for (const char* mode : {"paged", "slots"}) {
    TestEngine engine({{"mode", mode}, {"blocks", "2"}, {"block_tokens", "8"}});
    EXPECT_EQ(engine->capabilities().context_limit, 16u);
    auto tight = MakeClient(MakeRequest(MakePrompt(15), 100));
    ASSERT_TRUE(engine.Submit(*tight).ok());
    ASSERT_TRUE(engine.RunUntilEnded({tight.get()}));
    EXPECT_EQ(tight->choices[0].tokens.size(), 1u);
    EXPECT_EQ(tight->choices[0].end->reason, FinishReason::kLength);
    auto over = MakeClient(MakeRequest(MakePrompt(16), 100));
    const absl::Status refused = engine.Submit(*over);
    EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(refused.message()), HasSubstr("prompt holds 16 tokens"));
    EXPECT_THAT(std::string(refused.message()), HasSubstr("the context holds 16"));
  }
}

TEST(EngineTest, BatchedOutputEqualsOutputAlone) {
  for (const char* credits : {"1", "5", "64"}) {
    for (const char* mode : {"paged", "slots"}) {
      TestEngine engine({{"mode", mode}, {"credits", credits}, {"prefill_chunk", "7"}},
                        {.step_token_budget = 64});
      std::vector<std::unique_ptr<Client>> clients;
      std::vector<Client*> all;
      for (uint32_t i = 0; i < 40; ++i) {
        Request request = MakeRequest(MakePrompt(1 + i * 3, i % 5), 1 + i, i);
        if (i % 3 == 0) request.sampling.temperature = 0;
        if (i % 4 == 0) request.sampling.frequency_penalty = 0.5f;
        if (i % 4 == 1) request.sampling.repetition_penalty = 1.3f;
        if (i % 5 == 0) {
          request.sampling.stop_ids = {3, 5, 8};
          request.sampling.min_tokens = i / 2;
        }
        clients.push_back(MakeClient(std::move(request)));
        all.push_back(clients.back().get());
        ASSERT_TRUE(engine.Submit(*clients.back()).ok());
        if (i % 3 == 0) engine.Step();
      }
      ASSERT_TRUE(engine.RunUntilEnded(all)) << mode << " credits " << credits;
      for (const auto& client : clients) {
        EXPECT_EQ(client->choices[0].tokens, Expected(client->request));
      }
      EXPECT_TRUE(engine.RunUntilIdle());
    }
  }
}

TEST(EngineTest, PromptsGoInChunksWithinTheBudget) {
  struct Probe : EngineProbe {
    void OnStep(uint32_t prefill, uint32_t decode, const EngineGauges& gauges) override {
      largest = std::max(largest, prefill);
      total += prefill;
    }
    uint32_t largest = 0;
    uint32_t total = 0;
  };
  Probe probe;
  TestEngine engine({{"credits", "1"}, {"prefill_chunk", "100"}, {"max_sequences", "8"}},
                    {.step_token_budget = 40}, &probe);
  auto long_one = MakeClient(MakeRequest(MakePrompt(1000, 1), 4));
  auto short_one = MakeClient(MakeRequest(MakePrompt(8, 2), 4));
  ASSERT_TRUE(engine.Submit(*long_one).ok());
  ASSERT_TRUE(engine.Submit(*short_one).ok());
  ASSERT_TRUE(engine.RunUntilEnded({long_one.get(), short_one.get()}));
  EXPECT_LE(probe.largest, 40u);
  EXPECT_EQ(probe.total, 1008u);
}

TEST(EngineTest, CachedPrefixIsNotFedAgain) {
  TestEngine engine(FakeOptionList{{"block_tokens", "16"}});
  const std::vector<TokenId> prompt = MakePrompt(64);
  auto first = MakeClient(MakeRequest(prompt, 4));
  ASSERT_TRUE(engine.Submit(*first).ok());
  ASSERT_TRUE(engine.RunUntilEnded({first.get()}));
  EXPECT_EQ(engine->CachedPrefixTokens(prompt), 48u);
  const uint64_t fed = engine.control().tokens_fed();

  auto again = MakeClient(MakeRequest(prompt, 4));
  ASSERT_TRUE(engine.Submit(*again).ok());
  ASSERT_TRUE(engine.RunUntilEnded({again.get()}));
  EXPECT_EQ(again->choices[0].tokens, first->choices[0].tokens);
  // Three of the four full blocks: the last token of the prompt is fed again, and its block with
  // it.
  EXPECT_EQ(again->choices[0].end->cached_tokens, 48u);
  EXPECT_EQ(engine.control().tokens_fed() - fed, 16u + 3u);
}

TEST(EngineTest, GeneratedTokensAreCachedForTheNextTurn) {
  // 30 or 32 tokens are known in the end, of which the last was never fed.
  for (const uint32_t output : {20u, 22u}) {
    TestEngine engine(FakeOptionList{{"block_tokens", "4"}});
    auto first = MakeClient(MakeRequest(MakePrompt(10), output));
    ASSERT_TRUE(engine.Submit(*first).ok());
    ASSERT_TRUE(engine.RunUntilEnded({first.get()}));
    std::vector<TokenId> next = MakePrompt(10);
    next.insert(next.end(), first->choices[0].tokens.begin(), first->choices[0].tokens.end());
    next.push_back(7);
    auto second = MakeClient(MakeRequest(next, 5));
    ASSERT_TRUE(engine.Submit(*second).ok());
    ASSERT_TRUE(engine.RunUntilEnded({second.get()}));
    EXPECT_EQ(second->choices[0].tokens, Expected(second->request));
    EXPECT_EQ(second->choices[0].end->cached_tokens, 28u);
  }
}

TEST(EngineTest, PromptInProgressIsShared) {
  TestEngine engine({{"block_tokens", "4"}, {"prefill_chunk", "8"}, {"credits", "1"}});
  const std::vector<TokenId> prompt = MakePrompt(400);
  auto first = MakeClient(MakeRequest(prompt, 2));
  ASSERT_TRUE(engine.Submit(*first).ok());
  for (int i = 0; i < 20; ++i) engine.Step();
  EXPECT_TRUE(first->choices[0].tokens.empty());
  auto second = MakeClient(MakeRequest(prompt, 2));
  ASSERT_TRUE(engine.Submit(*second).ok());
  ASSERT_TRUE(engine.RunUntilEnded({first.get(), second.get()}));
  EXPECT_GT(second->choices[0].end->cached_tokens, 80u);
  EXPECT_EQ(second->choices[0].tokens, first->choices[0].tokens);
}

TEST(EngineTest, WithoutTheCacheNothingIsShared) {
  TestEngine engine({}, {.prefix_cache = false});
  const std::vector<TokenId> prompt = MakePrompt(64);
  auto first = MakeClient(MakeRequest(prompt, 4));
  ASSERT_TRUE(engine.Submit(*first).ok());
  ASSERT_TRUE(engine.RunUntilEnded({first.get()}));
  auto again = MakeClient(MakeRequest(prompt, 4));
  ASSERT_TRUE(engine.Submit(*again).ok());
  ASSERT_TRUE(engine.RunUntilEnded({again.get()}));
  EXPECT_EQ(again->choices[0].end->cached_tokens, 0u);
  EXPECT_EQ(again->choices[0].tokens, first->choices[0].tokens);
  EXPECT_EQ(engine->CachedPrefixTokens(prompt), 0u);
}

TEST(EngineTest, ARequestMayStayOutOfTheCache) {
  TestEngine engine;
  const std::vector<TokenId> prompt = MakePrompt(64);
  Request request = MakeRequest(prompt, 4);
  request.use_prefix_cache = false;
  for (int i = 0; i < 2; ++i) {
    auto client = MakeClient(request);
    ASSERT_TRUE(engine.Submit(*client).ok());
    ASSERT_TRUE(engine.RunUntilEnded({client.get()}));
    EXPECT_EQ(client->choices[0].end->cached_tokens, 0u);
    EXPECT_EQ(client->choices[0].tokens, Expected(request));
  }
  EXPECT_EQ(engine->CachedPrefixTokens(prompt), 0u);
}

TEST(EngineTest, ChoicesShareThePromptAndDifferInSeed) {
  for (const bool cache : {true, false}) {
    TestEngine engine({{"block_tokens", "16"}, {"prefill_chunk", "24"}}, {.prefix_cache = cache});
    auto client = MakeClient(MakeRequest(MakePrompt(100), 12), 4);
    ASSERT_TRUE(engine.Submit(*client).ok());
    ASSERT_TRUE(engine.RunUntilEnded({client.get()}));
    for (uint32_t i = 0; i < 4; ++i) {
      EXPECT_EQ(client->choices[i].tokens, Expected(client->request, i)) << i;
      EXPECT_EQ(client->choices[i].end->cached_tokens, i == 0 ? 0u : 96u) << i;
    }
    EXPECT_NE(client->choices[0].tokens, client->choices[1].tokens);
    // The prompt once, the tail of four tokens thrice more, eleven of twelve output tokens each.
    EXPECT_EQ(engine.control().tokens_fed(), 100u + 3 * 4 + 4 * 11);
  }
}

TEST(EngineTest, ChoicesOnADeviceThatOwnsItsMemory) {
  TestEngine engine(FakeOptionList{{"mode", "slots"}});
  auto client = MakeClient(MakeRequest(MakePrompt(100), 12), 3);
  ASSERT_TRUE(engine.Submit(*client).ok());
  ASSERT_TRUE(engine.RunUntilEnded({client.get()}));
  for (uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(client->choices[i].tokens, Expected(client->request, i)) << i;
  }
  EXPECT_TRUE(engine.RunUntilIdle());
  EXPECT_EQ(engine->Gauges().kv_blocks_used, 0u);
}

TEST(EngineTest, SiblingsGoOnWhenTheFirstChoiceIsCancelled) {
  TestEngine engine({{"prefill_chunk", "16"}, {"credits", "1"}});
  auto client = MakeClient(MakeRequest(MakePrompt(200), 6), 3);
  ASSERT_TRUE(engine.Submit(*client).ok());
  for (int i = 0; i < 4; ++i) engine.Step();
  client->choices[0].stream->Cancel();
  ASSERT_TRUE(engine.RunUntilEnded({client.get()}));
  EXPECT_EQ(client->choices[0].end->reason, FinishReason::kCancelled);
  for (uint32_t i : {1u, 2u}) EXPECT_EQ(client->choices[i].tokens, Expected(client->request, i));
}

TEST(EngineTest, PreemptionLeavesNoTraceInTheOutput) {
  for (const char* mode : {"paged", "slots"}) {
    for (const char* credits : {"1", "8"}) {
      for (const bool cache : {true, false}) {
        TestEngine engine(
            {{"mode", mode}, {"credits", credits}, {"blocks", "12"}, {"block_tokens", "4"}},
            {.prefix_cache = cache});
        std::vector<std::unique_ptr<Client>> clients;
        std::vector<Client*> all;
        for (uint32_t i = 0; i < 10; ++i) {
          Request request = MakeRequest(MakePrompt(4 + i, i), 30 - i, i);
          if (i % 2 == 0) request.sampling.presence_penalty = 0.7f;
          clients.push_back(MakeClient(std::move(request)));
          all.push_back(clients.back().get());
          ASSERT_TRUE(engine.Submit(*clients.back()).ok());
        }
        ASSERT_TRUE(engine.RunUntilEnded(all));
        uint32_t preemptions = 0;
        for (const auto& client : clients) {
          EXPECT_EQ(client->choices[0].tokens, Expected(client->request));
          EXPECT_EQ(client->choices[0].end->reason, FinishReason::kLength);
          preemptions += client->choices[0].end->preemptions;
        }
        EXPECT_GT(preemptions, 0u);
        EXPECT_TRUE(engine.RunUntilIdle());
        EXPECT_EQ(engine->Gauges().kv_blocks_used, 0u);
      }
    }
  }
}

TEST(EngineTest, LowerPriorityValueRunsFirstAndIsNotThePreemptedOne) {
  TestEngine engine({{"credits", "1"}, {"blocks", "8"}, {"block_tokens", "4"}});
  Request batch = MakeRequest(MakePrompt(20, 1), 10);
  batch.priority = 5;
  Request urgent = MakeRequest(MakePrompt(20, 2), 10);
  urgent.priority = -5;
  auto first = MakeClient(batch);
  auto second = MakeClient(urgent);
  ASSERT_TRUE(engine.Submit(*first).ok());
  for (int i = 0; i < 3; ++i) engine.Step();
  ASSERT_TRUE(engine.Submit(*second).ok());
  ASSERT_TRUE(engine.RunUntilEnded({second.get()}));
  EXPECT_FALSE(first->ended());
  ASSERT_TRUE(engine.RunUntilEnded({first.get()}));
  EXPECT_EQ(second->choices[0].end->preemptions, 0u);
  EXPECT_EQ(first->choices[0].end->preemptions, 1u);
  EXPECT_EQ(first->choices[0].tokens, Expected(batch));
}

TEST(EngineTest, LogprobsComeWithEveryToken) {
  TestEngine engine;
  Request request = MakeRequest(MakePrompt(10), 6);
  request.sampling.logprobs = 3;
  auto client = MakeClient(request);
  ASSERT_TRUE(engine.Submit(*client).ok());
  ASSERT_TRUE(engine.RunUntilEnded({client.get()}));
  ASSERT_EQ(client->choices[0].events.size(), 6u);
  for (const TokenEvent& event : client->choices[0].events) {
    ASSERT_NE(event.logprobs, nullptr);
    EXPECT_LE(event.logprobs->logprob, 0.0f);
    EXPECT_GE(event.logprobs->rank, 1u);
    EXPECT_EQ(event.logprobs->top.size(), 3u);
  }
}

TEST(EngineTest, PromptLogprobsAreCompleteAndInOrder) {
  const std::vector<TokenId> prompt = MakePrompt(75);
  std::vector<float> whole;
  for (const char* chunk : {"100", "10", "1"}) {
    for (const size_t capacity : {size_t{256}, size_t{8}, size_t{2}}) {
      TestEngine engine({{"prefill_chunk", chunk}, {"block_tokens", "4"}});
      auto warm = MakeClient(MakeRequest(prompt, 1));
      ASSERT_TRUE(engine.Submit(*warm).ok());
      ASSERT_TRUE(engine.RunUntilEnded({warm.get()}));
      Request request = MakeRequest(prompt, 5);
      request.sampling.prompt_logprobs = 2;
      auto client = MakeClient(request, 2, capacity);
      ASSERT_TRUE(engine.Submit(*client).ok());
      ASSERT_TRUE(engine.RunUntilEnded({client.get()}));
      const Choice& choice = client->choices[0];
      EXPECT_EQ(choice.end->cached_tokens, 0u);
      ASSERT_EQ(choice.prompt.size(), prompt.size());
      EXPECT_EQ(choice.prompt[0].logprobs, nullptr);
      std::vector<float> values;
      for (size_t i = 0; i < prompt.size(); ++i) {
        EXPECT_EQ(choice.prompt[i].token, prompt[i]);
        if (i == 0) continue;
        ASSERT_NE(choice.prompt[i].logprobs, nullptr);
        EXPECT_EQ(choice.prompt[i].logprobs->top.size(), 2u);
        values.push_back(choice.prompt[i].logprobs->logprob);
      }
      if (whole.empty()) whole = values;
      EXPECT_EQ(values, whole);
      EXPECT_EQ(choice.tokens, Expected(request));
      EXPECT_TRUE(client->choices[1].prompt.empty());
      EXPECT_EQ(client->choices[1].tokens, Expected(request, 1));
    }
  }
}

TEST(EngineTest, ASlowReaderPausesOnlyItself) {
  TestEngine engine(FakeOptionList{{"credits", "16"}});
  auto slow = MakeClient(MakeRequest(MakePrompt(10, 1), 200), 1, 8);
  auto fast = MakeClient(MakeRequest(MakePrompt(10, 2), 200), 1, 8);
  ASSERT_TRUE(engine.Submit(*slow).ok());
  ASSERT_TRUE(engine.Submit(*fast).ok());
  ASSERT_TRUE(engine.RunUntilEnded({fast.get()}));
  EXPECT_EQ(slow->choices[0].stream->FreeSlots(), 0u);
  for (int i = 0; i < 3; ++i) engine.Step();
  EXPECT_FALSE(engine.Step()) << "nothing to do until there is room";
  slow->choices[0].Read(3);
  EXPECT_TRUE(engine.Step());
  ASSERT_TRUE(engine.RunUntilEnded({slow.get()}));
  EXPECT_EQ(slow->choices[0].tokens, Expected(slow->request));
  EXPECT_EQ(fast->choices[0].tokens, Expected(fast->request));
}

// Readers that read nothing hold all slots: after a while they make way, and lose no token.
TEST(EngineTest, StalledReadersMakeWay) {
  TestEngine engine(FakeOptionList{{"max_sequences", "2"}}, {.stall_ns = 1'000'000});
  std::vector<std::unique_ptr<Client>> stalled;
  for (uint32_t i = 0; i < 2; ++i) {
    stalled.push_back(MakeClient(MakeRequest(MakePrompt(10, i), 100), 1, 4));
    ASSERT_TRUE(engine.Submit(*stalled.back()).ok());
  }
  for (int i = 0; i < 50; ++i) engine.Step();
  auto other = MakeClient(MakeRequest(MakePrompt(10, 7), 10));
  ASSERT_TRUE(engine.Submit(*other).ok());
  engine.Step();
  const int64_t timer = engine->next_timer_ns();
  ASSERT_LT(timer, engine.clock().NowNanos() + 1'000'000);
  engine.clock().AdvanceNanos(1'000'000);
  ASSERT_TRUE(engine.RunUntilEnded({other.get()}));
  EXPECT_EQ(other->choices[0].tokens, Expected(other->request));
  ASSERT_TRUE(engine.RunUntilEnded({stalled[0].get(), stalled[1].get()}));
  for (const auto& client : stalled) {
    EXPECT_EQ(client->choices[0].tokens, Expected(client->request));
  }
}

TEST(EngineTest, CancelEndsWithinOneStepInEveryPhase) {
  for (const char* mode : {"paged", "slots"}) {
    TestEngine engine(
        {{"mode", mode}, {"credits", "4"}, {"max_sequences", "2"}, {"prefill_chunk", "8"}});
    auto decoding = MakeClient(MakeRequest(MakePrompt(4, 1), 500));
    auto prefilling = MakeClient(MakeRequest(MakePrompt(400, 2), 500));
    auto queued = MakeClient(MakeRequest(MakePrompt(4, 3), 500));
    for (Client* client : {decoding.get(), prefilling.get(), queued.get()}) {
      ASSERT_TRUE(engine.Submit(*client).ok());
    }
    for (int i = 0; i < 5; ++i) engine.Step();
    decoding->Read();
    EXPECT_FALSE(decoding->choices[0].tokens.empty());
    EXPECT_EQ(engine->Gauges().waiting, 1u);
    for (Client* client : {decoding.get(), prefilling.get(), queued.get()}) {
      client->choices[0].stream->Cancel();
    }
    engine.Step();
    for (Client* client : {decoding.get(), prefilling.get(), queued.get()}) {
      client->Read();
      ASSERT_TRUE(client->ended());
      EXPECT_EQ(client->choices[0].end->reason, FinishReason::kCancelled);
      EXPECT_TRUE(client->choices[0].end->status.ok());
    }
    EXPECT_TRUE(engine.RunUntilIdle());
    EXPECT_EQ(engine->Gauges().kv_blocks_used, 0u);
    EXPECT_EQ(engine.control().live_sequences(), 0u);
  }
}

TEST(EngineTest, StreamCancelledBeforeSubmitEndsAtOnce) {
  TestEngine engine;
  auto client = MakeClient(MakeRequest(MakePrompt(4), 50));
  client->choices[0].stream->Cancel();
  ASSERT_TRUE(engine.Submit(*client).ok());
  engine.Step();
  client->Read();
  ASSERT_TRUE(client->ended());
  EXPECT_EQ(client->choices[0].end->reason, FinishReason::kCancelled);
  EXPECT_TRUE(engine->Idle());
}

TEST(EngineTest, DeadlinesEndQueuedAndRunning) {
  TestEngine engine({{"max_sequences", "1"}, {"credits", "1"}});
  Request request = MakeRequest(MakePrompt(4), 1000);
  request.deadline_ns = 50'000;
  auto running = MakeClient(request);
  auto queued = MakeClient(request);
  ASSERT_TRUE(engine.Submit(*running).ok());
  ASSERT_TRUE(engine.Submit(*queued).ok());
  for (int i = 0; i < 10; ++i) engine.Step();
  EXPECT_EQ(engine->next_timer_ns(), 50'000);
  engine.clock().AdvanceNanos(50'000);
  engine.Step();
  for (Client* client : {running.get(), queued.get()}) {
    client->Read();
    ASSERT_TRUE(client->ended());
    EXPECT_EQ(client->choices[0].end->reason, FinishReason::kDeadline);
    EXPECT_EQ(client->choices[0].end->status.code(), absl::StatusCode::kDeadlineExceeded);
  }
  EXPECT_GT(running->choices[0].end->output_tokens, 0u);
  EXPECT_EQ(queued->choices[0].end->output_tokens, 0u);
  EXPECT_GE(queued->choices[0].end->queue_ns, 50'000);
  EXPECT_TRUE(engine.RunUntilIdle());
}

TEST(EngineTest, QueueIsBounded) {
  struct Probe : EngineProbe {
    void OnRejected(const absl::Status& status) override { ++rejected; }
    int rejected = 0;
  };
  Probe probe;
  TestEngine engine(FakeOptionList{{"max_sequences", "1"}}, {.max_waiting = 3}, &probe);
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(MakeClient(MakeRequest(MakePrompt(4), 5)));
    ASSERT_TRUE(engine.Submit(*clients.back()).ok());
  }
  auto refused = MakeClient(MakeRequest(MakePrompt(4), 5));
  const absl::Status status = engine.Submit(*refused);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("3"));
  engine.Step();
  EXPECT_EQ(probe.rejected, 1);
  EXPECT_TRUE(engine.Submit(*refused).ok()) << "its stream was not touched, one slot is free";
  ASSERT_TRUE(
      engine.RunUntilEnded({clients[0].get(), clients[1].get(), clients[2].get(), refused.get()}));
}

TEST(EngineTest, AStreamServesOneSequenceAndARefusalTouchesNone) {
  TestEngine engine;
  auto used = MakeClient(MakeRequest(MakePrompt(4), 5));
  ASSERT_TRUE(engine.Submit(*used).ok());
  auto mixed = MakeClient(MakeRequest(MakePrompt(4), 5), 2);
  const std::shared_ptr<TokenStream> second = mixed->request.outputs[1];
  mixed->request.outputs[1] = used->choices[0].stream;
  EXPECT_EQ(engine.Submit(*mixed).code(), absl::StatusCode::kInvalidArgument);
  mixed->request.outputs[1] = mixed->request.outputs[0];
  EXPECT_EQ(engine.Submit(*mixed).code(), absl::StatusCode::kInvalidArgument);
  mixed->request.outputs[1] = second;
  EXPECT_TRUE(engine.Submit(*mixed).ok());
  ASSERT_TRUE(engine.RunUntilEnded({used.get(), mixed.get()}));
}

TEST(EngineTest, DrainRefusesTheNewAndFinishesTheOld) {
  TestEngine engine;
  auto client = MakeClient(MakeRequest(MakePrompt(4), 30));
  ASSERT_TRUE(engine.Submit(*client).ok());
  EXPECT_FALSE(engine->Idle());
  engine->BeginDrain();
  auto late = MakeClient(MakeRequest(MakePrompt(4), 30));
  EXPECT_EQ(engine.Submit(*late).code(), absl::StatusCode::kUnavailable);
  ASSERT_TRUE(engine.RunUntilEnded({client.get()}));
  EXPECT_EQ(client->choices[0].tokens.size(), 30u);
  EXPECT_TRUE(engine.RunUntilIdle());
}

TEST(EngineTest, AbortAllEndsEverythingInOneStep) {
  TestEngine engine(FakeOptionList{{"max_sequences", "1"}});
  auto running = MakeClient(MakeRequest(MakePrompt(4), 3000));
  auto queued = MakeClient(MakeRequest(MakePrompt(4), 3000));
  ASSERT_TRUE(engine.Submit(*running).ok());
  ASSERT_TRUE(engine.Submit(*queued).ok());
  engine.Step();
  engine->AbortAll(absl::UnavailableError("going down"));
  engine.Step();
  for (Client* client : {running.get(), queued.get()}) {
    client->Read();
    ASSERT_TRUE(client->ended());
    EXPECT_EQ(client->choices[0].end->reason, FinishReason::kError);
    EXPECT_EQ(client->choices[0].end->status.message(), "going down");
  }
  EXPECT_TRUE(engine.RunUntilIdle());
}

TEST(EngineTest, DestructionEndsEveryStream) {
  TestEngine engine(FakeOptionList{{"max_sequences", "1"}});
  auto running = MakeClient(MakeRequest(MakePrompt(4), 3000));
  auto queued = MakeClient(MakeRequest(MakePrompt(4), 3000));
  auto submitted = MakeClient(MakeRequest(MakePrompt(4), 3000));
  ASSERT_TRUE(engine.Submit(*running).ok());
  ASSERT_TRUE(engine.Submit(*queued).ok());
  engine.Step();
  ASSERT_TRUE(engine.Submit(*submitted).ok());
  engine.Destroy();
  for (Client* client : {running.get(), queued.get(), submitted.get()}) {
    client->Read();
    ASSERT_TRUE(client->ended());
    EXPECT_EQ(client->choices[0].end->status.code(), absl::StatusCode::kUnavailable);
    client->choices[0].stream->Cancel();  // reaches nobody, and harms nobody
  }
}

TEST(EngineTest, TimesAndUsageAddUp) {
  TestEngine engine({{"max_sequences", "1"}, {"credits", "1"}});
  auto first = MakeClient(MakeRequest(MakePrompt(4), 10));
  auto second = MakeClient(MakeRequest(MakePrompt(4), 10));
  ASSERT_TRUE(engine.Submit(*first).ok());
  ASSERT_TRUE(engine.Submit(*second).ok());
  ASSERT_TRUE(engine.RunUntilEnded({first.get(), second.get()}));
  const SequenceEnd& end = *second->choices[0].end;
  EXPECT_GE(end.queue_ns, 9'000);
  EXPECT_GT(end.prefill_ns, 0);
  EXPECT_GE(end.decode_ns, 9'000);
  EXPECT_LE(end.queue_ns + end.prefill_ns + end.decode_ns, engine.clock().NowNanos());
}

}  // namespace
}  // namespace reticle::scheduler
