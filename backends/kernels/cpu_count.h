// How many threads should compute here.
#ifndef RETICLE_BACKENDS_KERNELS_CPU_COUNT_H_
#define RETICLE_BACKENDS_KERNELS_CPU_COUNT_H_

#include <span>
#include <string>
#include <vector>

namespace reticle::backends::kernels {

// The CPUs of the calling thread's cpuset, by number; at least one.
std::vector<int> AllowedCpus();

// The number of CPUs that this process may use: its cpuset, bounded by the quota of its control
// groups (rounded). At least 1.
int AvailableCpus();

// The default number of compute threads: ThreadsFor on this machine.
int DefaultThreads();

// One thread a core: a second hardware thread of a core has no arithmetic of its own, but is there
// for the I/O threads. Where cores have no second one, or a quota is all that there is, one of four
// or more CPUs is left to them. `cpus`: in the cpuset; `cores`: that these belong to; `quota`: CPUs
// that the control groups grant, 0 for all. At least 1.
int ThreadsFor(int cpus, int cores, double quota);

// The number of cores that `cpus` belong to, by /sys/devices/system/cpu below `root`. A CPU that
// the system says nothing of counts as a core.
int CountCores(std::span<const int> cpus, const std::string& root = "");

}  // namespace reticle::backends::kernels

#endif  // RETICLE_BACKENDS_KERNELS_CPU_COUNT_H_
