// Whether a request can be served by a device at all.
#ifndef RETICLE_SCHEDULER_VALIDATE_H_
#define RETICLE_SCHEDULER_VALIDATE_H_

#include "absl/status/status.h"
#include "backends/abi/reticle_device.h"
#include "scheduler/request.h"

namespace reticle::scheduler {

// INVALID_ARGUMENT, naming field, value and limit, or OK. `capabilities.context_limit` is the
// engine's: no longer than the whole KV memory. Adapters and outputs are not looked at.
absl::Status ValidateRequest(const Request& request, const reticle_capabilities& capabilities);

// Likewise for its streams.
absl::Status ValidateOutputs(const Request& request);

}  // namespace reticle::scheduler

#endif  // RETICLE_SCHEDULER_VALIDATE_H_
