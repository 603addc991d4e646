#include "scheduler/token_stream.h"

#include <atomic>
#include <thread>

#include "base/mutex.h"
#include "gtest/gtest.h"
#include "scheduler/engine_signal.h"

namespace reticle::scheduler {
namespace {

TokenEvent Token(TokenId token) {
  TokenEvent event;
  event.token = token;
  return event;
}

class CountingListener : public StreamListener {
 public:
  void OnStreamReady() override { ++calls; }
  int calls = 0;
};

TEST(TokenStreamTest, DeliversInOrderThroughASmallRing) {
  TokenStream stream(3, nullptr);
  EXPECT_EQ(stream.capacity(), 4u);
  TokenId pushed = 0;
  TokenId popped = 0;
  std::vector<TokenEvent> out(3);
  while (popped < 1000) {
    while (stream.FreeSlots() > 0) stream.Push(Token(pushed++));
    for (size_t i = 0, n = stream.Pop(out); i < n; ++i) ASSERT_EQ(out[i].token, popped++);
  }
}

TEST(TokenStreamTest, LogprobsTravelWithTheToken) {
  TokenStream stream(2, nullptr);
  TokenEvent event = Token(5);
  event.logprobs = std::make_unique<TokenLogprobs>();
  event.logprobs->top = {{5, -0.5f}};
  stream.Push(std::move(event));
  TokenEvent out;
  ASSERT_EQ(stream.Pop({&out, 1}), 1u);
  ASSERT_NE(out.logprobs, nullptr);
  EXPECT_EQ(out.logprobs->top[0].second, -0.5f);
}

TEST(TokenStreamTest, EndShowsOnlyAfterTheLastEvent) {
  TokenStream stream(4, nullptr);
  stream.Push(Token(1));
  SequenceEnd end;
  end.reason = FinishReason::kLength;
  stream.Finish(end);
  EXPECT_EQ(stream.end(), nullptr);
  TokenEvent out;
  ASSERT_EQ(stream.Pop({&out, 1}), 1u);
  ASSERT_NE(stream.end(), nullptr);
  EXPECT_EQ(stream.end()->reason, FinishReason::kLength);
}

TEST(TokenStreamTest, OneWakeUpForAllTokensOfAStep) {
  CountingListener listener;
  TokenStream stream(8, &listener);
  ASSERT_TRUE(stream.Arm());
  stream.Flush();
  EXPECT_EQ(listener.calls, 0);
  stream.Push(Token(1));
  stream.Push(Token(2));
  EXPECT_EQ(listener.calls, 0);
  stream.Flush();
  EXPECT_EQ(listener.calls, 1);
  stream.Push(Token(3));
  stream.Flush();
  EXPECT_EQ(listener.calls, 1) << "one Arm asks for one call";
}

TEST(TokenStreamTest, ArmRefusesWhenSomethingIsThere) {
  CountingListener listener;
  TokenStream stream(8, &listener);
  stream.Push(Token(1));
  EXPECT_FALSE(stream.Arm());
  stream.Flush();
  EXPECT_EQ(listener.calls, 0);
  TokenEvent out;
  stream.Pop({&out, 1});
  EXPECT_TRUE(stream.Arm());
  stream.Finish({});
  stream.Flush();
  EXPECT_EQ(listener.calls, 1);
  EXPECT_FALSE(stream.Arm());
}

TEST(TokenStreamTest, NoCallAfterDetach) {
  CountingListener listener;
  TokenStream stream(8, &listener);
  ASSERT_TRUE(stream.Arm());
  stream.Detach();
  stream.Push(Token(1));
  stream.Flush();
  EXPECT_EQ(listener.calls, 0);
}

TEST(TokenStreamTest, ListenerMayDrainArmAndDetachFromWithinTheCall) {
  struct Draining : StreamListener {
    void OnStreamReady() override {
      TokenEvent out;
      while (stream->Pop({&out, 1}) == 1) last = out.token;
      if (last == 2) {
        stream->Detach();
      } else {
        EXPECT_TRUE(stream->Arm());
      }
    }
    TokenStream* stream = nullptr;
    TokenId last = 0;
  };
  Draining listener;
  TokenStream stream(8, &listener);
  listener.stream = &stream;
  ASSERT_TRUE(stream.Arm());
  for (TokenId token : {1, 2, 3}) {
    stream.Push(Token(token));
    stream.Flush();
  }
  EXPECT_EQ(listener.last, 2u);
}

TEST(TokenStreamTest, CancelAndRoomNotifyTheEngineOnce) {
  auto signal = std::make_shared<EngineSignal>();
  TokenStream stream(2, nullptr);
  ASSERT_TRUE(stream.Attach(signal));
  EXPECT_FALSE(stream.Attach(signal));
  stream.Push(Token(1));
  EXPECT_TRUE(stream.AwaitRoom(0));
  stream.Push(Token(2));
  EXPECT_FALSE(stream.AwaitRoom(0));
  EXPECT_EQ(signal->Take(), 0u);
  TokenEvent out;
  stream.Pop({&out, 1});
  EXPECT_EQ(signal->Take(), EngineSignal::kRoom);
  stream.Pop({&out, 1});
  EXPECT_EQ(signal->Take(), 0u);
  stream.Cancel();
  stream.Cancel();
  EXPECT_TRUE(stream.cancelled());
  EXPECT_EQ(signal->Take(), EngineSignal::kCancelled);
}

TEST(TokenStreamTest, SleepingEngineIsWokenOnce) {
  EngineSignal signal;
  int wakes = 0;
  signal.SetWake([&wakes] { ++wakes; });
  signal.Notify(EngineSignal::kRoom);
  EXPECT_EQ(wakes, 0);
  EXPECT_FALSE(signal.FallAsleep());
  EXPECT_EQ(signal.Take(), EngineSignal::kRoom);
  EXPECT_TRUE(signal.FallAsleep());
  signal.Notify(EngineSignal::kRoom);
  signal.Notify(EngineSignal::kCancelled);
  EXPECT_EQ(wakes, 1);
  EXPECT_EQ(signal.Take(), EngineSignal::kRoom | EngineSignal::kCancelled);
}

// Waits as a connection does: sleeps until it is called.
class SleepingListener : public StreamListener {
 public:
  void OnStreamReady() override {
    MutexLock lock(mutex_);
    ready_ = true;
    condition_.NotifyOne();
  }
  void Wait() {
    MutexLock lock(mutex_);
    while (!ready_) condition_.Wait(mutex_);
    ready_ = false;
  }

 private:
  Mutex mutex_;
  CondVar condition_;
  bool ready_ RETICLE_GUARDED_BY(mutex_) = false;
};

// A lost wake-up of either side hangs this test.
TEST(TokenStreamTest, NoWakeUpIsLostBetweenThreads) {
  constexpr TokenId kTokens = 200'000;
  auto signal = std::make_shared<EngineSignal>();
  SleepingListener consumer_sleep;
  SleepingListener producer_sleep;
  TokenStream stream(16, &consumer_sleep);
  ASSERT_TRUE(stream.Attach(signal));
  signal->SetWake([&producer_sleep] { producer_sleep.OnStreamReady(); });

  std::thread producer([&] {
    for (TokenId token = 0; token < kTokens;) {
      signal->Take();
      if (!stream.AwaitRoom(0)) {
        if (signal->FallAsleep()) producer_sleep.Wait();
        continue;
      }
      for (uint32_t burst = 1 + token % 5; burst > 0 && token < kTokens; --burst) {
        if (stream.FreeSlots() == 0) break;
        stream.Push(Token(token++));
      }
      stream.Flush();
    }
    stream.Finish({});
    stream.Flush();
  });
  TokenId expected = 0;
  std::vector<TokenEvent> out(7);
  while (stream.end() == nullptr) {
    const size_t count = stream.Pop(out);
    for (size_t i = 0; i < count; ++i) ASSERT_EQ(out[i].token, expected++);
    if (count == 0 && stream.end() == nullptr && stream.Arm()) consumer_sleep.Wait();
  }
  EXPECT_EQ(expected, kTokens);
  producer.join();
  signal->SetWake(nullptr);
}

// The listener dies right after Detach has returned, while the producer pushes.
TEST(TokenStreamTest, ListenerMayDieAfterDetach) {
  for (int round = 0; round < 300; ++round) {
    auto listener = std::make_unique<SleepingListener>();
    auto stream = std::make_shared<TokenStream>(1024, listener.get());
    std::thread producer([stream] {
      for (TokenId token = 0; token < 200; ++token) {
        stream->Push(Token(token));
        stream->Flush();
      }
      stream->Finish({});
      stream->Flush();
    });
    std::vector<TokenEvent> out(8);
    for (int i = 0; i < round % 7; ++i) {
      stream->Pop(out);
      stream->Arm();
    }
    stream->Detach();
    listener.reset();
    producer.join();
  }
}

}  // namespace
}  // namespace reticle::scheduler
