// Whole files as text.
#ifndef RETICLE_BASE_FILE_H_
#define RETICLE_BASE_FILE_H_

#include <string>

#include "absl/status/statusor.h"

namespace reticle {

// All bytes of the file at `path`. NOT_FOUND naming `what` ("config file"), the path and the reason
// when it cannot be read. Thread-safe.
absl::StatusOr<std::string> ReadFile(const std::string& what, const std::string& path);

}  // namespace reticle

#endif  // RETICLE_BASE_FILE_H_
