// The drivers of conformance-mutant: the mutants by their names, and `none`, the fake device behind
// the same wrapper, unbroken.
#include "backends/conformance/builtin_drivers.h"
#include "backends/conformance/mutants.h"

namespace reticle::backends::conformance {

const reticle_device_api* FindBuiltinDriver(const std::string& name) {
  for (const Mutant& mutant : Mutants()) {
    if (mutant.name == name) return MutantApi(mutant);
  }
  static const Mutant* const none = new Mutant{};
  return name == "none" ? MutantApi(*none) : nullptr;
}

}  // namespace reticle::backends::conformance
