#include "backends/kernels/cgroup.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <optional>
#include <sstream>
#include <string_view>
#include <vector>

namespace reticle::backends::kernels {
namespace {

constexpr char kMount[] = "/sys/fs/cgroup";

std::vector<std::string> Words(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> words;
  for (std::string word; file >> word;) words.push_back(word);
  return words;
}

std::optional<int64_t> Number(const std::string& text) {
  int64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || at != end) return std::nullopt;
  return number;
}

std::optional<int64_t> NumberIn(const std::string& path) {
  const std::vector<std::string> words = Words(path);
  return words.size() == 1 ? Number(words[0]) : std::nullopt;
}

// The sum of what memory.stat gives for files that are cached, under names with that prefix.
uint64_t CachedFiles(const std::string& path, const std::string& prefix) {
  const std::vector<std::string> words = Words(path);
  uint64_t bytes = 0;
  for (size_t i = 0; i + 1 < words.size(); i += 2) {
    if (words[i] != prefix + "active_file" && words[i] != prefix + "inactive_file") continue;
    bytes += static_cast<uint64_t>(std::max<int64_t>(0, Number(words[i + 1]).value_or(0)));
  }
  return bytes;
}

void LimitCpus(std::optional<int64_t> quota, std::optional<int64_t> period, CgroupLimits* limits) {
  if (!quota.has_value() || !period.has_value() || *quota <= 0 || *period <= 0) return;
  const double cpus = static_cast<double>(*quota) / static_cast<double>(*period);
  limits->cpus = limits->cpus == 0 ? cpus : std::min(limits->cpus, cpus);
}

void LimitMemory(std::optional<int64_t> limit, std::optional<int64_t> used, uint64_t cached,
                 CgroupLimits* limits) {
  if (!limit.has_value() || *limit < 0) return;
  const auto in_use = static_cast<uint64_t>(std::max<int64_t>(0, used.value_or(0)));
  const uint64_t held = in_use > cached ? in_use - cached : 0;
  const auto most = static_cast<uint64_t>(*limit);
  limits->memory_left = std::min(limits->memory_left, most > held ? most - held : 0);
}

void ReadUnified(const std::string& folder, CgroupLimits* limits) {
  const std::vector<std::string> cpu = Words(folder + "/cpu.max");
  if (cpu.size() == 2) LimitCpus(Number(cpu[0]), Number(cpu[1]), limits);
  LimitMemory(NumberIn(folder + "/memory.max"), NumberIn(folder + "/memory.current"),
              CachedFiles(folder + "/memory.stat", ""), limits);
}

void ReadCpuGroup(const std::string& folder, CgroupLimits* limits) {
  LimitCpus(NumberIn(folder + "/cpu.cfs_quota_us"), NumberIn(folder + "/cpu.cfs_period_us"),
            limits);
}

void ReadMemoryGroup(const std::string& folder, CgroupLimits* limits) {
  LimitMemory(NumberIn(folder + "/memory.limit_in_bytes"),
              NumberIn(folder + "/memory.usage_in_bytes"),
              CachedFiles(folder + "/memory.stat", "total_"), limits);
}

// Calls `read` for the group `path` of a hierarchy and for those that hold it. Within a container
// the path may be that of the host, while the hierarchy shows the container's group as its root.
template <typename Read>
void ForGroupAndParents(const std::string& hierarchy, std::string path, Read read,
                        CgroupLimits* limits) {
  if (path.find("/..") != path.npos) path.clear();
  while (!path.empty() && path != "/") {
    read(hierarchy + path, limits);
    path.erase(path.rfind('/'));
  }
  read(hierarchy, limits);
}

bool Lists(std::string_view controllers, std::string_view wanted) {
  while (!controllers.empty()) {
    const size_t comma = std::min(controllers.find(','), controllers.size());
    if (controllers.substr(0, comma) == wanted) return true;
    controllers.remove_prefix(std::min(comma + 1, controllers.size()));
  }
  return false;
}

}  // namespace

CgroupLimits ReadCgroupLimits(const std::string& root) {
  CgroupLimits limits;
  const std::string mount = root + kMount;
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':');
    const size_t second = first == line.npos ? line.npos : line.find(':', first + 1);
    if (second == line.npos || second + 1 >= line.size() || line[second + 1] != '/') continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (controllers.empty()) {
      ForGroupAndParents(mount, path, ReadUnified, &limits);
      ForGroupAndParents(mount + "/unified", path, ReadUnified, &limits);
    }
    if (Lists(controllers, "cpu")) {
      ForGroupAndParents(mount + "/cpu", path, ReadCpuGroup, &limits);
      ForGroupAndParents(mount + "/" + controllers, path, ReadCpuGroup, &limits);
    }
    if (Lists(controllers, "memory")) {
      ForGroupAndParents(mount + "/memory", path, ReadMemoryGroup, &limits);
    }
  }
  return limits;
}

}  // namespace reticle::backends::kernels
