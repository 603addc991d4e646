#include "backends/hardwired/driver/hardwired_device.h"

#include <string>

#include "backends/abi/driver_table.h"
#include "backends/hardwired/driver/hardwired_core.h"
#include "backends/hardwired/driver/open_devices.h"

namespace reticle::backends::hardwired {

absl::Status InjectFault(std::string_view name, const FaultSpec& fault) {
  return OpenDevices::Get().Inject(
      [&](const HardwiredDevice& device) { return device.name() == name; }, fault,
      "'" + std::string(name) + "'");
}

absl::Status InjectFault(uint32_t device_index, const FaultSpec& fault) {
  return OpenDevices::Get().Inject(
      [&](const HardwiredDevice& device) { return device.device_index() == device_index; }, fault,
      "number " + std::to_string(device_index));
}

const reticle_device_api* HardwiredDeviceApi() {
  static constexpr reticle_device_api kApi = DriverTable<HardwiredDevice>::Make("hardwired", "1");
  return &kApi;
}

}  // namespace reticle::backends::hardwired
