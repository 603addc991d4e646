// The target of a request line.
#ifndef RETICLE_SERVER_HTTP_REQUEST_TARGET_H_
#define RETICLE_SERVER_HTTP_REQUEST_TARGET_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace reticle::server::http {

// The path of `target` (origin form or absolute form), percent-decoded, without query and fragment.
// INVALID_ARGUMENT for a target that is no path, a bad escape, or a control character behind one.
absl::StatusOr<std::string> PathOfTarget(std::string_view target);

}  // namespace reticle::server::http

#endif  // RETICLE_SERVER_HTTP_REQUEST_TARGET_H_
