// Whether what a device says of itself makes sense.
#ifndef RETICLE_BACKENDS_ABI_CAPABILITIES_CHECK_H_
#define RETICLE_BACKENDS_ABI_CAPABILITIES_CHECK_H_

#include "absl/status/status.h"
#include "backends/abi/reticle_device.h"

namespace reticle::backends {

// INTERNAL (a driver's mistake) naming field, value and limit: texts without an end, no vocabulary,
// limits of zero, features without their limits.
absl::Status CheckCapabilities(const reticle_capabilities& capabilities);

}  // namespace reticle::backends

#endif  // RETICLE_BACKENDS_ABI_CAPABILITIES_CHECK_H_
