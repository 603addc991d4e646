#include "backends/kernels/thread_pool.h"

#include <unistd.h>

#include <atomic>
#include <fstream>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "backends/kernels/aligned_memory.h"
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

TEST(ThreadPoolTest, ASplitCoversEverythingOnceWhoeverIsSlow) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    for (const auto& [count, shared, grain] :
         {std::tuple{100u, 40u, 7u}, {64u, 64u, 1u}, {50u, 0u, 4u}, {0u, 0u, 4u}, {3u, 1u, 8u}}) {
      std::vector<std::atomic<int>> done(count);
      std::vector<size_t> of_worker(threads);
      constexpr int kRounds = 20;
      pool.Run([&](int worker) {
        for (int round = 0; round < kRounds; ++round) {
          pool.Split(worker, count, shared, grain, [&](size_t first, size_t end) {
            ASSERT_LT(first, end);
            for (size_t i = first; i < end; ++i) ++done[i];
            of_worker[worker] += end - first;
            if (worker == round % threads) std::this_thread::yield();
          });
          pool.Barrier();
        }
      });
      for (const std::atomic<int>& times : done) ASSERT_EQ(times.load(), kRounds);
      const size_t own = threads > 1 ? (count - shared) / threads : count;
      for (const size_t units : of_worker) EXPECT_GE(units, own * kRounds);
    }
  }
}

// What a worker leaves because it is held up is done by the other.
TEST(ThreadPoolTest, TheSharedPartOfASplitIsDoneByWhoeverIsFree) {
  ThreadPool pool(2);
  std::atomic<size_t> by_other{0};
  pool.Run([&](int worker) {
    pool.Split(worker, 100, 80, 10, [&](size_t first, size_t end) {
      if (worker == 1) {
        by_other += end - first;
        return;
      }
      while (by_other < 90) std::this_thread::yield();  // in its own range of ten
    });
  });
  EXPECT_EQ(by_other.load(), 90u);
}

// The state of a thread by the system: 'S' when it sleeps.
char StateOf(pid_t thread) {
  std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/stat");
  std::string line;
  std::getline(file, line);
  const size_t name_end = line.rfind(')');
  return name_end + 2 < line.size() ? line[name_end + 2] : '?';
}

TEST(ThreadPoolTest, AWorkerWithoutWorkSleeps) {
  ThreadPool pool(2);
  std::atomic<pid_t> worker_thread{0};
  pool.Run([&](int worker) {
    if (worker == 1) worker_thread = gettid();
  });
  // As long as it takes: a worker that spun for ever would hang the test until its time-out.
  while (StateOf(worker_thread) != 'S') std::this_thread::yield();
  std::atomic<int> ran{0};
  pool.Run([&](int) { ++ran; });
  EXPECT_EQ(ran.load(), 2);
}

TEST(ThreadPoolTest, ATeamThatIsLargerThanTheMachineDoesNotSpin) {
  EXPECT_GT(BarrierSpins(2, 2), 0);
  EXPECT_GT(BarrierSpins(1, 2), 0);
  EXPECT_EQ(BarrierSpins(3, 2), 0);
}

TEST(AlignedMemoryTest, LargeMemoryBeginsAtAHugePageAndIsZero) {
  constexpr size_t kHuge = size_t{2} << 20;
  for (const size_t bytes : {size_t{100}, kHuge - 1, kHuge, 3 * kHuge + 12345}) {
    const auto memory = AlignedMemory::Allocate(bytes);
    ASSERT_TRUE(memory.ok()) << memory.status();
    if (bytes >= kHuge) EXPECT_EQ(reinterpret_cast<uintptr_t>(memory->data()) % kHuge, 0u);
    EXPECT_EQ(memory->size(), bytes);
    memory->data()[bytes - 1] = std::byte{7};
    memory->Populate(0, bytes);
    EXPECT_EQ(memory->data()[0], std::byte{0});
    EXPECT_EQ(memory->data()[bytes - 1], std::byte{7});
  }
  EXPECT_TRUE(AlignedMemory::Allocate(0).ok());
  EXPECT_EQ(AlignedMemory::Allocate(size_t{1} << 62).status().code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace reticle::backends::kernels
