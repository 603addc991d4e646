#include "backends/kernels/thread_pool.h"

#include <atomic>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace reticle::backends::kernels {
namespace {

TEST(ThreadPoolTest, EveryWorkerRunsEveryTask) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    std::vector<int> calls(threads);
    for (int run = 0; run < 200; ++run) {
      pool.Run([&](int worker) { ++calls[worker]; });
    }
    EXPECT_THAT(calls, testing::Each(200));
  }
}

TEST(ThreadPoolTest, ABarrierShowsWhatTheOthersDidBefore) {
  constexpr int kThreads = 3;
  ThreadPool pool(kThreads);
  std::vector<int> slots(kThreads);
  std::atomic<int> wrong{0};
  pool.Run([&](int worker) {
    for (int round = 1; round <= 300; ++round) {
      slots[worker] = round;
      pool.Barrier();
      for (const int slot : slots) wrong += slot != round;
      pool.Barrier();
    }
  });
  EXPECT_EQ(wrong.load(), 0);
}

// The delays sweep over the moment at which a waiting worker goes to sleep. A wake-up that is lost
// there hangs the test until its time-out; the window is a few instructions wide, so a pass is no
// proof.
TEST(ThreadPoolTest, AWorkerThatJustWentToSleepIsWoken) {
  ThreadPool pool(2);
  std::atomic<uint64_t> sink{0};
  for (int run = 0; run < 10000; ++run) {
    pool.Run([&](int worker) {
      if (worker == run % 2) return;
      uint64_t work = 0;
      for (int i = 0; i < (run * 37) % 60000; ++i) work += static_cast<uint64_t>(i) ^ work;
      sink.fetch_add(work, std::memory_order_relaxed);
    });
  }
}

TEST(ThreadPoolTest, StaticRangesCoverEverythingOnce) {
  for (const size_t count : {0u, 1u, 7u, 64u}) {
    for (const int parts : {1, 2, 3, 16}) {
      size_t next = 0;
      for (int i = 0; i < parts; ++i) {
        const auto [first, end] = StaticRange(count, i, parts);
        EXPECT_EQ(first, next);
        EXPECT_GE(end, first);
        next = end;
      }
      EXPECT_EQ(next, count);
    }
  }
}

TEST(ThreadPoolTest, AvailableCpusIsPositive) { EXPECT_GE(AvailableCpus(), 1); }

}  // namespace
}  // namespace reticle::backends::kernels
