#include "backends/hardwired/driver/open_devices.h"

#include "backends/hardwired/driver/hardwired_core.h"
#include "base/status.h"

namespace reticle::backends::hardwired {

OpenDevices& OpenDevices::Get() {
  static OpenDevices* const devices = new OpenDevices;
  return *devices;
}

void OpenDevices::Add(HardwiredDevice* device) {
  MutexLock lock(mutex_);
  devices_.push_back(device);
}

void OpenDevices::Remove(HardwiredDevice* device) {
  MutexLock lock(mutex_);
  std::erase(devices_, device);
}

absl::Status OpenDevices::Inject(absl::FunctionRef<bool(const HardwiredDevice&)> is_meant,
                                 const FaultSpec& fault, const std::string& what) {
  MutexLock lock(mutex_);
  for (auto device = devices_.rbegin(); device != devices_.rend(); ++device) {
    if (!is_meant(**device)) continue;
    if ((*device)->Inject(fault)) return absl::OkStatus();
    return UnavailableError("%s is being reset", what);
  }
  return NotFoundError("no open device is %s", what);
}

}  // namespace reticle::backends::hardwired
