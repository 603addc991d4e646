#include "backends/kernels/cpu_count.h"

#include <sched.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "gtest/gtest.h"

namespace reticle::backends::kernels {
namespace {

TEST(CpuCountTest, TheCpusetOfTheThreadCounts) {
  const std::vector<int> all = AllowedCpus();
  ASSERT_FALSE(all.empty());
  std::vector<int> one;
  int available = 0;
  std::thread([&] {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(all.back(), &set);
    ASSERT_EQ(sched_setaffinity(0, sizeof(set), &set), 0);
    one = AllowedCpus();
    available = AvailableCpus();
  }).join();
  EXPECT_EQ(one, std::vector<int>{all.back()});
  EXPECT_EQ(available, 1);
  EXPECT_GE(AvailableCpus(), 1);
  EXPECT_LE(AvailableCpus(), static_cast<int>(all.size()));
  EXPECT_GE(DefaultThreads(), 1);
}

TEST(CpuCountTest, OneThreadACoreAndOneCpuOfFourForOthers) {
  // Cores with two hardware threads: the second ones are left to others.
  EXPECT_EQ(ThreadsFor(16, 8, 0), 8);
  EXPECT_EQ(ThreadsFor(2, 1, 0), 1);
  // Cores with one.
  EXPECT_EQ(ThreadsFor(1, 1, 0), 1);
  EXPECT_EQ(ThreadsFor(2, 2, 0), 2);
  EXPECT_EQ(ThreadsFor(3, 3, 0), 3);
  EXPECT_EQ(ThreadsFor(4, 4, 0), 3);
  EXPECT_EQ(ThreadsFor(64, 64, 0), 63);
}

TEST(CpuCountTest, AQuotaIsRounded) {
  EXPECT_EQ(ThreadsFor(16, 16, 1.4), 1);
  EXPECT_EQ(ThreadsFor(16, 16, 1.5), 2);
  EXPECT_EQ(ThreadsFor(16, 16, 0.2), 1);
  EXPECT_EQ(ThreadsFor(16, 16, 6), 5);
  EXPECT_EQ(ThreadsFor(16, 8, 100), 8);
}

TEST(CpuCountTest, HardwareThreadsOfACoreCountOnce) {
  const std::filesystem::path root = std::filesystem::temp_directory_path() /
                                     ("reticle-cpu-count-test-" + std::to_string(getpid()));
  const char* const siblings[] = {"0,2", "1,3", "0,2", "1,3"};
  for (int cpu = 0; cpu < 4; ++cpu) {
    const std::filesystem::path folder =
        root.string() + "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology";
    std::filesystem::create_directories(folder);
    std::ofstream(folder / "thread_siblings_list") << siblings[cpu] << "\n";
  }
  EXPECT_EQ(CountCores(std::vector<int>{0, 1, 2, 3}, root.string()), 2);
  EXPECT_EQ(CountCores(std::vector<int>{0, 2}, root.string()), 1);
  EXPECT_EQ(CountCores(std::vector<int>{3, 9}, root.string()), 2);
  std::filesystem::remove_all(root);
}

}  // namespace
}  // namespace reticle::backends::kernels
