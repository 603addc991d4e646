#include "server/cli/model_metadata.h"

#include "base/status.h"

namespace reticle::server::cli {

absl::StatusOr<ModelMetadata> ModelMetadata::Open(const std::string& path) {
  ModelMetadata metadata;
  if (backends::hardwired::IsRomFile(path)) {
    ASSIGN_OR_RETURN(metadata.rom_,
                     backends::hardwired::RomFile::Open(path, /*verify_seal=*/false));
  } else {
    ASSIGN_OR_RETURN(metadata.gguf_, models::GgufFile::Open(path));
  }
  return metadata;
}

}  // namespace reticle::server::cli
