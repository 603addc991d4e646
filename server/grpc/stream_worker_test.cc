#include "server/grpc/stream_worker.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

namespace reticle::server {
namespace {

// Counts what it is told; deletes itself on kLast, as calls do.
class CountingTask final : public WorkerTask {
 public:
  static constexpr uint32_t kLast = 1u << 30;

  CountingTask(StreamWorker& worker, std::atomic<int>& alive, std::atomic<uint32_t>& seen)
      : WorkerTask(worker), alive_(alive), seen_(seen) {
    alive_.fetch_add(1);
  }
  ~CountingTask() override { alive_.fetch_sub(1); }

 private:
  void Run(uint32_t events) override {
    EXPECT_FALSE(running_.exchange(true)) << "two runs of one task at once";
    seen_.fetch_or(events & ~kLast);
    last_ = last_ || (events & kLast) != 0;
    running_ = false;
    if (last_ && !queued()) delete this;
  }

  std::atomic<int>& alive_;
  std::atomic<uint32_t>& seen_;
  std::atomic<bool> running_{false};
  bool last_ = false;
};

TEST(StreamWorkerTest, EveryEventIsSeenAndEveryTaskEnds) {
  constexpr int kTasks = 200;
  constexpr uint32_t kPosters = 3;
  std::atomic<int> alive{0};
  std::vector<std::unique_ptr<std::atomic<uint32_t>>> seen;
  {
    StreamWorker worker;
    worker.StartThread();
    for (int i = 0; i < kTasks; ++i) {
      seen.push_back(std::make_unique<std::atomic<uint32_t>>(0));
      auto* task = new CountingTask(worker, alive, *seen.back());
      std::vector<std::thread> posters;
      for (uint32_t bit = 0; bit < kPosters; ++bit) {
        posters.emplace_back([task, bit] {
          for (int round = 0; round < 20; ++round) task->Post(1u << bit);
        });
      }
      for (std::thread& poster : posters) poster.join();
      task->Post(CountingTask::kLast);
    }
    while (alive.load() != 0) std::this_thread::yield();
  }
  for (const auto& bits : seen) EXPECT_EQ(bits->load(), (1u << kPosters) - 1);
}

TEST(StreamWorkerTest, WakesFromSleep) {
  std::atomic<int> alive{0};
  std::atomic<uint32_t> seen{0};
  StreamWorker worker;
  worker.StartThread();
  // Longer than the worker spins, so that it has gone to sleep.
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  auto* task = new CountingTask(worker, alive, seen);
  task->Post(4);
  while (seen.load() != 4) std::this_thread::yield();
  task->Post(CountingTask::kLast);
  while (alive.load() != 0) std::this_thread::yield();
}

TEST(StreamWorkerTest, ALoopRunsItAndIsWokenOnceForASleep) {
  std::atomic<int> alive{0};
  std::atomic<uint32_t> seen{0};
  StreamWorker worker;
  int wakes = 0;
  worker.SetWake([&] { ++wakes; });
  auto* first = new CountingTask(worker, alive, seen);
  auto* second = new CountingTask(worker, alive, seen);
  EXPECT_FALSE(worker.RunOnce());
  first->Post(1);
  EXPECT_EQ(wakes, 0);
  EXPECT_FALSE(worker.PrepareSleep());
  EXPECT_TRUE(worker.RunOnce());
  EXPECT_EQ(seen.load(), 1u);
  EXPECT_TRUE(worker.PrepareSleep());
  first->Post(2);
  second->Post(4);
  EXPECT_EQ(wakes, 1);
  EXPECT_TRUE(worker.RunOnce());
  EXPECT_EQ(seen.load(), 7u);
  first->Post(CountingTask::kLast);
  second->Post(CountingTask::kLast);
  EXPECT_TRUE(worker.RunOnce());
  EXPECT_EQ(alive.load(), 0);
}

}  // namespace
}  // namespace reticle::server
