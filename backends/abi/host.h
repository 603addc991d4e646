// The host's callback table that every driver receives.
#ifndef RETICLE_BACKENDS_ABI_HOST_H_
#define RETICLE_BACKENDS_ABI_HOST_H_

#include "backends/abi/reticle_device.h"

namespace reticle::backends {

// Logs through base/log.h, tells the time of Clock::Monotonic(), allocates aligned memory. Static;
// thread-safe.
const reticle_host& HostCallbacks();

}  // namespace reticle::backends

#endif  // RETICLE_BACKENDS_ABI_HOST_H_
