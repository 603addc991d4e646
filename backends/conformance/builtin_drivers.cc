#include "backends/conformance/builtin_drivers.h"

#include "backends/fake/fake_device.h"
#ifdef RETICLE_CONFORMANCE_CPU
#include "backends/cpu/cpu_device.h"
#endif
#ifdef RETICLE_CONFORMANCE_HARDWIRED
#include "backends/hardwired/driver/hardwired_device.h"
#endif

namespace reticle::backends::conformance {

const reticle_device_api* FindBuiltinDriver(const std::string& name) {
  if (name == "fake") return fake::FakeDeviceApi();
#ifdef RETICLE_CONFORMANCE_CPU
  if (name == "cpu") return cpu::CpuDeviceApi();
#endif
#ifdef RETICLE_CONFORMANCE_HARDWIRED
  if (name == "hardwired") return hardwired::HardwiredDeviceApi();
#endif
  return nullptr;
}

}  // namespace reticle::backends::conformance
