// The house model that is linked into the binary.
#ifndef RETICLE_SERVER_CLI_EMBEDDED_MODEL_H_
#define RETICLE_SERVER_CLI_EMBEDDED_MODEL_H_

#include <cstddef>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace reticle::server::cli {

// The bytes of models/house/house.gguf as they were at build time; empty in a build without it.
std::span<const std::byte> EmbeddedModel();

// A path under which drivers can open the embedded model: a sealed, anonymous file in memory, which
// lives as long as the process. FAILED_PRECONDITION when there is none. Call it once.
absl::StatusOr<std::string> EmbeddedModelPath();

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_EMBEDDED_MODEL_H_
