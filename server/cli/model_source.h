// The file that a model is served from: a GGUF model or a device image.
#ifndef RETICLE_SERVER_CLI_MODEL_SOURCE_H_
#define RETICLE_SERVER_CLI_MODEL_SOURCE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "backends/hardwired/rom/rom_file.h"
#include "models/gguf.h"

namespace reticle::server::cli {

class ModelSource {
 public:
  // `path` names a GGUF file or a device image (.rom); empty: the embedded house model.
  static absl::StatusOr<std::unique_ptr<ModelSource>> Open(const std::string& path);
  ~ModelSource();

  // Tokenizer, template and hyper-parameters.
  const models::GgufFile& metadata() const { return rom_ != nullptr ? rom_->metadata() : *gguf_; }
  const std::string& path() const { return path_; }
  bool is_house() const { return is_house_; }
  bool is_image() const { return rom_ != nullptr; }
  // A path of the model's device image: the file itself; the embedded one of the house model, in 3
  // and 6 bits; else an image with 8-bit weights that is taped out at the first call and lives as
  // long as this.
  absl::StatusOr<std::string> ImagePath();

 private:
  ModelSource() = default;

  std::string path_;
  bool is_house_ = false;
  std::string house_image_;
  std::unique_ptr<models::GgufFile> gguf_;
  std::unique_ptr<backends::hardwired::RomFile> rom_;
  int image_fd_ = -1;
};

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_MODEL_SOURCE_H_
