// How long a refused caller has to wait, carried by the status that refuses it: a promise. Who
// cannot keep one gives no time.
#ifndef RETICLE_BASE_RETRY_AFTER_H_
#define RETICLE_BASE_RETRY_AFTER_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"

namespace reticle {

// `status` with the time after which the same request passes, nanoseconds; replaces one given
// before.
absl::Status WithRetryAfter(absl::Status status, int64_t wait_ns);
std::optional<int64_t> RetryAfterNs(const absl::Status& status);

}  // namespace reticle

#endif  // RETICLE_BASE_RETRY_AFTER_H_
