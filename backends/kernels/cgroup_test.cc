#include "backends/kernels/cgroup.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "gtest/gtest.h"

namespace reticle::backends::kernels {
namespace {

constexpr uint64_t kUnlimited = std::numeric_limits<uint64_t>::max();

class CgroupTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = std::filesystem::temp_directory_path() /
            ("reticle-cgroup-test-" + std::to_string(getpid()));
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path whole = root_.string() + path;
    std::filesystem::create_directories(whole.parent_path());
    std::ofstream(whole) << text;
  }
  CgroupLimits Read() { return ReadCgroupLimits(root_.string()); }

  std::filesystem::path root_;
};

TEST_F(CgroupTest, NothingLimitsWhereThereIsNothing) {
  EXPECT_EQ(Read().cpus, 0);
  EXPECT_EQ(Read().memory_left, kUnlimited);
}

TEST_F(CgroupTest, VersionTwoTakesTheStrictestOfGroupAndParents) {
  Write("/proc/self/cgroup", "0::/outer/inner\n");
  Write("/sys/fs/cgroup/outer/inner/cpu.max", "350000 100000\n");
  Write("/sys/fs/cgroup/outer/cpu.max", "150000 100000\n");
  Write("/sys/fs/cgroup/cpu.max", "max 100000\n");
  EXPECT_DOUBLE_EQ(Read().cpus, 1.5);
  Write("/sys/fs/cgroup/outer/inner/memory.max", "max\n");
  Write("/sys/fs/cgroup/outer/memory.max", "1000000\n");
  Write("/sys/fs/cgroup/outer/memory.current", "700000\n");
  Write("/sys/fs/cgroup/outer/memory.stat",
        "anon 300000\ninactive_file 250000\nactive_file 50000\n");
  // 400,000 are held by more than cached files.
  EXPECT_EQ(Read().memory_left, 600000u);
}

TEST_F(CgroupTest, VersionOneHasAHierarchyForEachController) {
  Write("/proc/self/cgroup", "5:memory:/box\n3:cpu,cpuacct:/box/a\n1:name=systemd:/\n0::/\n");
  Write("/sys/fs/cgroup/cpu,cpuacct/box/a/cpu.cfs_quota_us", "-1\n");
  Write("/sys/fs/cgroup/cpu,cpuacct/box/a/cpu.cfs_period_us", "100000\n");
  Write("/sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us", "250000\n");
  Write("/sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us", "100000\n");
  EXPECT_DOUBLE_EQ(Read().cpus, 2.5);
  Write("/sys/fs/cgroup/memory/box/memory.limit_in_bytes", "5000\n");
  Write("/sys/fs/cgroup/memory/box/memory.usage_in_bytes", "4000\n");
  Write("/sys/fs/cgroup/memory/box/memory.stat",
        "active_file 1\ntotal_active_file 100\ntotal_inactive_file 200\n");
  EXPECT_EQ(Read().memory_left, 1300u);
}

TEST_F(CgroupTest, AContainerSeesItsGroupAsTheRoot) {
  Write("/proc/self/cgroup", "4:cpu:/docker/0123\n");
  Write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "400000\n");
  Write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_DOUBLE_EQ(Read().cpus, 4);
  Write("/proc/self/cgroup", "0::/../../elsewhere\n");
  Write("/sys/fs/cgroup/cpu.max", "75000 100000\n");
  EXPECT_DOUBLE_EQ(Read().cpus, 0.75);
}

TEST_F(CgroupTest, AGroupThatIsFullLeavesNothing) {
  Write("/proc/self/cgroup", "0::/\n");
  Write("/sys/fs/cgroup/memory.max", "1000\n");
  Write("/sys/fs/cgroup/memory.current", "1001\n");
  EXPECT_EQ(Read().memory_left, 0u);
}

TEST_F(CgroupTest, StrangeFilesLimitNothing) {
  Write("/proc/self/cgroup", "\n::\n0::\n0:no path\n0::/x\n");
  for (const char* text : {"", "fast 100000", "100000", "0 100000", "100000 0", "1e9 100000"}) {
    Write("/sys/fs/cgroup/x/cpu.max", text);
    EXPECT_EQ(Read().cpus, 0) << text;
  }
  Write("/sys/fs/cgroup/x/memory.max", "12abc\n");
  EXPECT_EQ(Read().memory_left, kUnlimited);
}

}  // namespace
}  // namespace reticle::backends::kernels
