#include "backends/kernels/targets_for_test.h"

#include "backends/kernels/kernels.h"
#include "hwy/highway.h"

namespace reticle::backends::kernels {

std::vector<Target> SupportedTargets() {
  std::vector<Target> targets;
  for (const int64_t highway : hwy::SupportedAndGeneratedTargets()) {
    bool fused = true;
#if HWY_ARCH_X86
    fused = highway < HWY_SSE4;  // lower bits are better targets
#endif
    if (highway == HWY_EMU128 || highway == HWY_SCALAR) fused = false;
    const Target target{highway, false, fused};
    const ScopedTarget scoped(target);
    const std::string plain = KernelTarget();
    DisableVnniForTest(false);
    targets.push_back(target);
    if (KernelTarget() != plain) targets.push_back({highway, true, fused});
  }
  return targets;
}

ScopedTarget::ScopedTarget(const Target& target) {
  hwy::SetSupportedTargetsForTest(target.highway);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  DisableVnniForTest(!target.vnni);
}

ScopedTarget::~ScopedTarget() {
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  DisableVnniForTest(false);
}

}  // namespace reticle::backends::kernels
