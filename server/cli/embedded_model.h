// The house model that is linked into the binary: its GGUF file and its device image.
#ifndef RETICLE_SERVER_CLI_EMBEDDED_MODEL_H_
#define RETICLE_SERVER_CLI_EMBEDDED_MODEL_H_

#include <cstddef>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace reticle::server::cli {

// The bytes of models/house/house.gguf as they were at build time; empty in a build without it.
std::span<const std::byte> EmbeddedModel();

// Likewise of models/house/house.rom, taped out in 3 and 6 bits.
std::span<const std::byte> EmbeddedImage();

// Paths under which drivers can open the two, those in processes of their own as well: sealed,
// anonymous files in memory, which live as long as this process. FAILED_PRECONDITION when there is
// none. Call each once.
absl::StatusOr<std::string> EmbeddedModelPath();
absl::StatusOr<std::string> EmbeddedImagePath();

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_EMBEDDED_MODEL_H_
