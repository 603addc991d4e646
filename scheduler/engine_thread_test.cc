#include "scheduler/engine_thread.h"

#include <atomic>
#include <chrono>
#include <random>
#include <thread>
#include <vector>

#include "base/log.h"
#include "base/mutex.h"
#include "gtest/gtest.h"
#include "scheduler/engine_test_util.h"

namespace reticle::scheduler {
namespace {

std::unique_ptr<Engine> MakeEngine(FakeOptionList fake_options, EngineOptions options = {}) {
  absl::StatusOr<std::unique_ptr<Engine>> engine = Engine::Create(
      OpenFake(std::move(fake_options)), options, Clock::Monotonic(), /*probe=*/nullptr);
  RETICLE_CHECK(engine.ok());
  return *std::move(engine);
}

// A consumer that sleeps until its stream calls.
class Reader : public StreamListener {
 public:
  explicit Reader(size_t capacity) : stream_(std::make_shared<TokenStream>(capacity, this)) {}
  ~Reader() override { stream_->Detach(); }

  const std::shared_ptr<TokenStream>& stream() const { return stream_; }
  void OnStreamReady() override {
    MutexLock lock(mutex_);
    ready_ = true;
    condition_.NotifyOne();
  }
  // Reads to the end; cancels behind `cancel_after` tokens.
  SequenceEnd ReadAll(std::vector<TokenId>* tokens, size_t cancel_after = SIZE_MAX) {
    TokenEvent events[16];
    while (true) {
      const size_t count = stream_->Pop(events);
      for (size_t i = 0; i < count; ++i) tokens->push_back(events[i].token);
      if (tokens->size() >= cancel_after) stream_->Cancel();
      if (const SequenceEnd* end = stream_->end()) return *end;
      if (count == 0 && stream_->Arm()) Wait();
    }
  }

 private:
  void Wait() {
    MutexLock lock(mutex_);
    while (!ready_) condition_.Wait(mutex_);
    ready_ = false;
  }

  Mutex mutex_;
  CondVar condition_;
  bool ready_ RETICLE_GUARDED_BY(mutex_) = false;
  const std::shared_ptr<TokenStream> stream_;
};

TEST(EngineThreadTest, ServesManyProducersAndConsumers) {
  struct Case {
    const char* name;
    FakeOptionList options;
  };
  const std::vector<Case> cases = {
      {"no waiting", {}},
      {"timed steps, event", {{"step_ns", "50000"}, {"cheap_poll", "0"}}},
      {"timed steps, no event", {{"step_ns", "50000"}, {"event_fd", "0"}}},
      {"one credit, tiny pool", {{"credits", "1"}, {"blocks", "20"}, {"block_tokens", "4"}}},
      {"slots", {{"mode", "slots"}, {"max_sequences", "4"}}},
  };
  for (const Case& test : cases) {
    SCOPED_TRACE(test.name);
    std::unique_ptr<Engine> engine = MakeEngine(test.options);
    absl::StatusOr<std::unique_ptr<EngineThread>> thread = EngineThread::Start(*engine, {});
    ASSERT_TRUE(thread.ok());
    std::atomic<int> wrong{0};
    std::atomic<int> cancelled{0};
    std::vector<std::thread> clients;
    for (uint32_t c = 0; c < 6; ++c) {
      clients.emplace_back([&, c] {
        std::mt19937 random(c);
        for (int i = 0; i < 12; ++i) {
          Request request =
              MakeRequest(MakePrompt(1 + random() % 30, random() % 4), 1 + random() % 40, random());
          request.arrival_ns = Clock::Monotonic().NowNanos();
          Reader reader(1 + random() % 16);
          request.outputs = {reader.stream()};
          const std::vector<TokenId> expected = Expected(request);
          const size_t cancel_after = i % 4 == 0 ? random() % 10 : SIZE_MAX;
          if (!engine->Submit(request).ok()) {
            ++wrong;
            continue;
          }
          std::vector<TokenId> tokens;
          const SequenceEnd end = reader.ReadAll(&tokens, cancel_after);
          const bool is_prefix = tokens.size() <= expected.size() &&
                                 std::equal(tokens.begin(), tokens.end(), expected.begin());
          if (!is_prefix) ++wrong;
          if (end.reason == FinishReason::kCancelled) {
            ++cancelled;
          } else if (tokens != expected) {
            ++wrong;
          }
        }
      });
    }
    for (std::thread& client : clients) client.join();
    EXPECT_EQ(wrong.load(), 0);
    EXPECT_GT(cancelled.load(), 0);
    while (!engine->Idle()) std::this_thread::yield();
    (*thread)->Stop();
    engine->CheckInvariants();
    EXPECT_EQ(engine->Gauges().kv_blocks_used, 0u);
  }
}

TEST(EngineThreadTest, SleepsWhenIdle) {
  std::unique_ptr<Engine> engine = MakeEngine({});
  absl::StatusOr<std::unique_ptr<EngineThread>> thread = EngineThread::Start(*engine, {});
  ASSERT_TRUE(thread.ok());
  while ((*thread)->sleeps() == 0) std::this_thread::yield();
  const uint64_t sleeps = (*thread)->sleeps();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_LE((*thread)->sleeps(), sleeps + 1) << "nothing may wake it";
}

TEST(EngineThreadTest, WakesForADeadlineWhileADeviceTakesLong) {
  std::unique_ptr<Engine> engine = MakeEngine({{"step_ns", "2000000000"}, {"credits", "1"}});
  absl::StatusOr<std::unique_ptr<EngineThread>> thread = EngineThread::Start(*engine, {});
  ASSERT_TRUE(thread.ok());
  Request request = MakeRequest(MakePrompt(10), 100);
  request.arrival_ns = Clock::Monotonic().NowNanos();
  request.deadline_ns = request.arrival_ns + 30'000'000;
  Reader reader(16);
  request.outputs = {reader.stream()};
  ASSERT_TRUE(engine->Submit(request).ok());
  std::vector<TokenId> tokens;
  EXPECT_EQ(reader.ReadAll(&tokens).reason, FinishReason::kDeadline);
}

TEST(EngineThreadTest, StopsWhileWorkIsUnderWayAndLeavesTheEngineWhole) {
  std::unique_ptr<Engine> engine = MakeEngine({{"step_ns", "20000"}});
  std::vector<std::unique_ptr<Reader>> readers;
  {
    absl::StatusOr<std::unique_ptr<EngineThread>> thread = EngineThread::Start(*engine, {});
    ASSERT_TRUE(thread.ok());
    for (int i = 0; i < 20; ++i) {
      Request request = MakeRequest(MakePrompt(10, i), 3000);
      readers.push_back(std::make_unique<Reader>(16));
      request.outputs = {readers.back()->stream()};
      ASSERT_TRUE(engine->Submit(request).ok());
    }
    (*thread)->Stop();
    (*thread)->Stop();
  }
  engine->CheckInvariants();
  engine.reset();
  for (const auto& reader : readers) {
    std::vector<TokenId> tokens;
    EXPECT_EQ(reader->ReadAll(&tokens).reason, FinishReason::kError);
  }
}

TEST(EngineThreadTest, AnyThreadMayWatchAndControl) {
  std::unique_ptr<Engine> engine = MakeEngine({{"step_ns", "10000"}});
  absl::StatusOr<std::unique_ptr<EngineThread>> thread = EngineThread::Start(*engine, {});
  ASSERT_TRUE(thread.ok());
  std::atomic<bool> stop{false};
  std::vector<std::thread> watchers;
  const std::vector<TokenId> prompt = MakePrompt(64);
  for (int w = 0; w < 2; ++w) {
    watchers.emplace_back([&] {
      while (!stop.load()) {
        const EngineGauges gauges = engine->Gauges();
        if (gauges.kv_blocks_used > gauges.kv_blocks_total) stop.store(true);
        engine->CachedPrefixTokens(prompt);
        engine->Health().IgnoreError();
        engine->DeviceStats().IgnoreError();
        engine->AdapterLoaded(3);
        std::this_thread::yield();
      }
    });
  }
  for (int i = 0; i < 30; ++i) {
    Request request = MakeRequest(prompt, 10, i);
    Reader reader(16);
    request.outputs = {reader.stream()};
    ASSERT_TRUE(engine->Submit(request).ok());
    std::vector<TokenId> tokens;
    if (i == 20) engine->AbortAll(absl::UnavailableError("enough"));
    const SequenceEnd end = reader.ReadAll(&tokens);
    // The order strikes this one or the next, if they have not ended by then.
    if (i == 20 || i == 21) continue;
    EXPECT_EQ(end.reason, FinishReason::kLength);
  }
  engine->BeginDrain();
  while (!engine->Idle()) std::this_thread::yield();
  EXPECT_FALSE(stop.exchange(true));
  for (std::thread& watcher : watchers) watcher.join();
}

}  // namespace
}  // namespace reticle::scheduler
