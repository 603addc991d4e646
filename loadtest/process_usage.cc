#include "loadtest/process_usage.h"

#include <sys/resource.h>
#include <unistd.h>

#include <ctime>
#include <fstream>
#include <sstream>
#include <string>

namespace reticle::loadtest {
namespace {

double Seconds(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

}  // namespace

CpuTimes ThreadCpuTimes() {
  CpuTimes times;
  times.cpu_s = Seconds(CLOCK_THREAD_CPUTIME_ID);
  // "run-ns wait-ns slices"
  std::ifstream file("/proc/thread-self/schedstat");
  double run_ns = 0;
  double wait_ns = 0;
  if (file >> run_ns >> wait_ns >> times.runs) times.wait_s = wait_ns / 1e9;
  return times;
}

double ProcessCpuSeconds() { return Seconds(CLOCK_PROCESS_CPUTIME_ID); }

std::optional<double> ProcessCpuSeconds(int64_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  // The name in parentheses may hold blanks; utime and stime are fields 14 and 15.
  const size_t end = line.rfind(')');
  if (end == std::string::npos) return std::nullopt;
  std::istringstream rest(line.substr(end + 1));
  std::string skipped;
  for (int field = 3; field < 14; ++field) rest >> skipped;
  double user = 0;
  double system = 0;
  if (!(rest >> user >> system)) return std::nullopt;
  return (user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

}  // namespace reticle::loadtest
