#include "server/metrics/process_metrics.h"

#include <dirent.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <ctime>

namespace reticle::server {
namespace {

// Bytes, from /proc/self/statm (proc(5)).
double ResidentBytes() {
  std::FILE* file = std::fopen("/proc/self/statm", "re");
  if (file == nullptr) return 0;
  unsigned long long total = 0, resident = 0;
  const int fields = std::fscanf(file, "%llu %llu", &total, &resident);
  std::fclose(file);
  return fields == 2 ? static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE))
                     : 0;
}

double CpuSeconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// Linux 6.2 and later say it as the folder's size; before, the entries are counted.
double OpenFds() {
  struct stat folder {};
  if (stat("/proc/self/fd", &folder) == 0 && folder.st_size > 0) {
    return static_cast<double>(folder.st_size);
  }
  DIR* entries = opendir("/proc/self/fd");
  if (entries == nullptr) return 0;
  int count = -3;  // ".", ".." and the folder itself
  while (readdir(entries) != nullptr) ++count;
  closedir(entries);
  return count;
}

double MaxFds() {
  rlimit limit{};
  return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? static_cast<double>(limit.rlim_cur) : 0;
}

}  // namespace

void CollectProcess(int64_t start_unix_s, FamilySet& families) {
  SeriesWriter out(families);
  out.Count(Metric::kProcessCpu, CpuSeconds());
  out.Gauge(Metric::kProcessMemory, ResidentBytes());
  out.Gauge(Metric::kProcessOpenFds, OpenFds());
  out.Gauge(Metric::kProcessMaxFds, MaxFds());
  out.Gauge(Metric::kProcessStart, static_cast<double>(start_unix_s));
}

}  // namespace reticle::server
