// The instruction sets that the kernels can run on here, for tests and measurements of each.
#ifndef RETICLE_BACKENDS_KERNELS_TARGETS_H_
#define RETICLE_BACKENDS_KERNELS_TARGETS_H_

#include <cstdint>
#include <string>
#include <vector>

namespace reticle::backends::kernels {

struct Target {
  std::string name;     // as KernelTarget gives it
  int64_t highway = 0;  // HWY_* bit
  bool vnni = false;
  bool fused = false;  // has fused multiply-add
};

// The best first.
std::vector<Target> SupportedTargets();

// Makes the kernels use one target while it lives. Not while kernels run.
class ScopedTarget {
 public:
  explicit ScopedTarget(const Target& target);
  ~ScopedTarget();
  ScopedTarget(const ScopedTarget&) = delete;
  ScopedTarget& operator=(const ScopedTarget&) = delete;
};

}  // namespace reticle::backends::kernels

#endif  // RETICLE_BACKENDS_KERNELS_TARGETS_H_
