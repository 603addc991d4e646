#include "backends/kernels/targets.h"

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
    const ScopedTarget scoped({"", highway, false, fused});
    const std::string plain = KernelTarget();
    DisableVnni(false);
    const std::string best = KernelTarget();
    if (best != plain) targets.push_back({best, highway, true, fused});
    targets.push_back({plain, highway, false, fused});
  }
  return targets;
}

ScopedTarget::ScopedTarget(const Target& target) {
  hwy::SetSupportedTargetsForTest(target.highway);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  DisableVnni(!target.vnni);
}

ScopedTarget::~ScopedTarget() {
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  DisableVnni(false);
}

}  // namespace reticle::backends::kernels
