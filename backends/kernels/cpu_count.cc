#include "backends/kernels/cpu_count.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <memory>
#include <set>
#include <thread>

#include "backends/kernels/cgroup.h"

namespace reticle::backends::kernels {
namespace {

constexpr int kMostCpus = 1 << 16;
constexpr int kThreadsToSpareOne = 4;

struct FreeCpuSet {
  void operator()(cpu_set_t* set) const { CPU_FREE(set); }
};

int Bounded(int cpus, double quota) {
  if (quota <= 0) return cpus;
  return std::max(1, std::min(cpus, static_cast<int>(std::lround(quota))));
}

}  // namespace

std::vector<int> AllowedCpus() {
  std::vector<int> cpus;
  // The system refuses a set that is smaller than its own.
  for (int count = 1024; cpus.empty() && count <= kMostCpus; count *= 4) {
    const std::unique_ptr<cpu_set_t, FreeCpuSet> set(CPU_ALLOC(count));
    const size_t bytes = CPU_ALLOC_SIZE(count);
    if (set == nullptr || sched_getaffinity(0, bytes, set.get()) != 0) continue;
    for (int cpu = 0; cpu < count; ++cpu) {
      if (CPU_ISSET_S(cpu, bytes, set.get())) cpus.push_back(cpu);
    }
  }
  const int known = static_cast<int>(std::thread::hardware_concurrency());
  if (cpus.empty()) {
    for (int cpu = 0; cpu < std::max(known, 1); ++cpu) cpus.push_back(cpu);
  }
  return cpus;
}

int AvailableCpus() {
  return Bounded(static_cast<int>(AllowedCpus().size()), ReadCgroupLimits().cpus);
}

int DefaultThreads() {
  const std::vector<int> cpus = AllowedCpus();
  return ThreadsFor(static_cast<int>(cpus.size()), CountCores(cpus), ReadCgroupLimits().cpus);
}

int ThreadsFor(int cpus, int cores, double quota) {
  const int usable = Bounded(std::max(1, cpus), quota);
  const int threads = std::clamp(cores, 1, usable);
  return threads == usable && threads >= kThreadsToSpareOne ? threads - 1 : threads;
}

int CountCores(std::span<const int> cpus, const std::string& root) {
  std::set<std::string> cores;
  for (const int cpu : cpus) {
    const std::string name = "cpu" + std::to_string(cpu);
    std::ifstream file(root + "/sys/devices/system/cpu/" + name + "/topology/thread_siblings_list");
    std::string siblings;
    cores.insert(file >> siblings ? siblings : name);
  }
  return static_cast<int>(cores.size());
}

}  // namespace reticle::backends::kernels
