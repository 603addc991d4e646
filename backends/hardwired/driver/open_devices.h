// The devices of this process that are open, for whoever injects faults.
#ifndef RETICLE_BACKENDS_HARDWIRED_DRIVER_OPEN_DEVICES_H_
#define RETICLE_BACKENDS_HARDWIRED_DRIVER_OPEN_DEVICES_H_

#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "backends/hardwired/card/fault.h"
#include "base/mutex.h"

namespace reticle::backends::hardwired {

class HardwiredDevice;

// Thread-safe. A device stays whole until Remove has returned.
class OpenDevices {
 public:
  static OpenDevices& Get();

  void Add(HardwiredDevice* device);
  // Does nothing when it is not among them.
  void Remove(HardwiredDevice* device);
  // Into the one opened last of those that are meant; `what` names it in an error.
  absl::Status Inject(absl::FunctionRef<bool(const HardwiredDevice&)> is_meant,
                      const FaultSpec& fault, const std::string& what);

 private:
  Mutex mutex_;
  std::vector<HardwiredDevice*> devices_ RETICLE_GUARDED_BY(mutex_);
};

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_DRIVER_OPEN_DEVICES_H_
