#include "tests/golden/targets.h"

#include "backends/cpu/kernels.h"
#include "hwy/highway.h"

namespace reticle::golden {

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
    const std::string plain = backends::cpu::KernelTarget();
    backends::cpu::DisableVnniForTest(false);
    targets.push_back(target);
    if (backends::cpu::KernelTarget() != plain) targets.push_back({highway, true, fused});
  }
  return targets;
}

ScopedTarget::ScopedTarget(const Target& target) {
  hwy::SetSupportedTargetsForTest(target.highway);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  backends::cpu::DisableVnniForTest(!target.vnni);
}

ScopedTarget::~ScopedTarget() {
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  backends::cpu::DisableVnniForTest(false);
}

}  // namespace reticle::golden
