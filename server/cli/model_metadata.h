// What the server itself needs of a model file: tokenizer, chat template, hyper-parameters. GGUF
// files and device images have them alike.
#ifndef RETICLE_SERVER_CLI_MODEL_METADATA_H_
#define RETICLE_SERVER_CLI_MODEL_METADATA_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "backends/hardwired/rom/rom_file.h"
#include "models/gguf.h"

namespace reticle::server::cli {

class ModelMetadata {
 public:
  // The errors of GgufFile::Open and RomFile::Open. The weights of an image are not verified: the
  // device that computes with them does that.
  static absl::StatusOr<ModelMetadata> Open(const std::string& path);

  // Without tensors for an image.
  const models::GgufFile& gguf() const { return rom_ != nullptr ? rom_->metadata() : *gguf_; }

 private:
  std::unique_ptr<models::GgufFile> gguf_;
  std::unique_ptr<backends::hardwired::RomFile> rom_;
};

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_MODEL_METADATA_H_
