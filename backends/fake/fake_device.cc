#include "backends/fake/fake_device.h"

#include "backends/abi/driver_table.h"
#include "backends/fake/fake_core.h"

namespace reticle::backends::fake {

const reticle_device_api* FakeDeviceApi() {
  static constexpr reticle_device_api kApi = DriverTable<FakeDevice>::Make("fake", "1");
  return &kApi;
}

}  // namespace reticle::backends::fake
