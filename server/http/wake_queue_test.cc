#include "server/http/wake_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace reticle::server::http {
namespace {

// A thread that sleeps whenever nothing is queued, and counts.
class Loop : public WakeQueue {
 public:
  explicit Loop(size_t targets) : seen_(targets) {
    for (size_t i = 0; i < targets; ++i) {
      // What is delivered is only ever named by its address here.
      auto* const connection = reinterpret_cast<Connection*>(&seen_[i]);
      targets_.push_back(std::make_shared<WakeTarget>(*this, connection));
      published_.push_back(std::make_unique<std::atomic<int>>(0));
    }
  }

  // What a producer does: something to see, then the wake-up.
  void Produce(size_t target) {
    published_[target]->fetch_add(1, std::memory_order_release);
    Push(targets_[target]);
  }
  // Runs until each target has had `count` things published and seen.
  void Run(int count) {
    size_t complete = 0;
    while (complete < seen_.size()) {
      const bool any = Drain([&](Connection& connection) {
        auto& seen = reinterpret_cast<int&>(connection);
        const auto index = static_cast<size_t>(&seen - seen_.data());
        const int now = published_[index]->load(std::memory_order_acquire);
        if (seen < count && now == count) ++complete;
        seen = now;
      });
      if (!any && FallAsleep()) Sleep();
    }
  }
  void Close(size_t target) { targets_[target]->connection = nullptr; }
  template <typename Deliver>
  bool DrainAll(Deliver deliver) {
    return Drain(deliver);
  }
  bool Sleeps() { return FallAsleep(); }
  int roused() const { return roused_count_.load(); }

 private:
  void Sleep() {
    MutexLock lock(mutex_);
    while (!roused_) changed_.Wait(mutex_);
    roused_ = false;
  }
  void Rouse() override {
    roused_count_.fetch_add(1);
    MutexLock lock(mutex_);
    roused_ = true;
    changed_.NotifyOne();
  }

  std::vector<int> seen_;
  std::vector<std::shared_ptr<WakeTarget>> targets_;
  std::vector<std::unique_ptr<std::atomic<int>>> published_;
  Mutex mutex_;
  CondVar changed_;
  bool roused_ RETICLE_GUARDED_BY(mutex_) = false;
  std::atomic<int> roused_count_{0};
};

// Ends only if no wake-up is ever lost.
TEST(WakeQueueTest, NoWakeUpIsLost) {
  constexpr size_t kTargets = 16;
  constexpr int kProducers = 3;
  constexpr int kEach = 3000;
  Loop loop(kTargets);
  std::vector<std::thread> producers;
  for (int p = 0; p < kProducers; ++p) {
    producers.emplace_back([&loop, p] {
      for (int i = 0; i < kEach; ++i) {
        for (size_t t = 0; t < kTargets; ++t) loop.Produce((t + static_cast<size_t>(p)) % kTargets);
        if (i % 64 == 0) std::this_thread::yield();
      }
    });
  }
  loop.Run(kProducers * kEach);
  for (std::thread& producer : producers) producer.join();
}

TEST(WakeQueueTest, ATargetIsDeliveredOnceHoweverOftenItIsPushed) {
  Loop loop(2);
  for (int i = 0; i < 5; ++i) loop.Produce(1);
  loop.Produce(0);
  int delivered = 0;
  EXPECT_TRUE(loop.DrainAll([&](Connection&) { ++delivered; }));
  EXPECT_EQ(delivered, 2);
  EXPECT_FALSE(loop.DrainAll([](Connection&) {}));
}

TEST(WakeQueueTest, OneEventForOneSleep) {
  Loop loop(3);
  loop.Produce(0);
  EXPECT_EQ(loop.roused(), 0);
  EXPECT_FALSE(loop.Sleeps());
  loop.DrainAll([](Connection&) {});
  EXPECT_TRUE(loop.Sleeps());
  for (size_t t = 0; t < 3; ++t) loop.Produce(t);
  EXPECT_EQ(loop.roused(), 1);
}

TEST(WakeQueueTest, AClosedConnectionIsNotDelivered) {
  Loop loop(2);
  loop.Produce(0);
  loop.Produce(1);
  loop.Close(0);
  int delivered = 0;
  loop.DrainAll([&](Connection&) { ++delivered; });
  EXPECT_EQ(delivered, 1);
}

TEST(WakeQueueTest, WhatIsQueuedAtTheEndIsFreed) {
  std::weak_ptr<WakeTarget> left;
  {
    Loop loop(1);
    auto target = std::make_shared<WakeTarget>(loop, nullptr);
    left = target;
    loop.Push(target);
    target.reset();
    EXPECT_FALSE(left.expired());
  }
  EXPECT_TRUE(left.expired());
}

}  // namespace
}  // namespace reticle::server::http
