// What the control groups of this process allow, in version 1 and 2 of that interface: the
// strictest of its group and of those that hold it.
#ifndef RETICLE_BACKENDS_KERNELS_CGROUP_H_
#define RETICLE_BACKENDS_KERNELS_CGROUP_H_

#include <cstdint>
#include <limits>
#include <string>

namespace reticle::backends::kernels {

struct CgroupLimits {
  double cpus = 0;  // quota over period; 0: no limit
  // Bytes that may still be taken; cached files count as free, since the kernel gives them up.
  uint64_t memory_left = std::numeric_limits<uint64_t>::max();
};

// Reads /proc/self/cgroup and /sys/fs/cgroup below `root`, which tests set. What is not there, or
// not as expected, limits nothing.
CgroupLimits ReadCgroupLimits(const std::string& root = "");

}  // namespace reticle::backends::kernels

#endif  // RETICLE_BACKENDS_KERNELS_CGROUP_H_
