// CPU time and waiting of threads and processes, as Linux counts them.
#ifndef RETICLE_LOADTEST_PROCESS_USAGE_H_
#define RETICLE_LOADTEST_PROCESS_USAGE_H_

#include <cstdint>
#include <optional>

namespace reticle::loadtest {

struct CpuTimes {
  double cpu_s = 0;   // on a CPU
  double wait_s = 0;  // ready to run, but another thread had the CPU
  double runs = 0;    // times that it was given a CPU
};

// Of the calling thread.
CpuTimes ThreadCpuTimes();
// Of this process, all its threads.
double ProcessCpuSeconds();
// Of another process on this machine; nothing when there is none, or it may not be seen.
std::optional<double> ProcessCpuSeconds(int64_t pid);

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_PROCESS_USAGE_H_
