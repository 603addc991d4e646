#include "server/cli/model_source.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "backends/hardwired/rom/tapeout.h"
#include "base/log.h"
#include "base/status.h"
#include "server/cli/embedded_model.h"

namespace reticle::server::cli {

using backends::hardwired::RomFile;
using backends::hardwired::TapeOut;
using backends::hardwired::TapeoutOptions;

ModelSource::~ModelSource() {
  if (image_fd_ >= 0) close(image_fd_);
}

absl::StatusOr<std::unique_ptr<ModelSource>> ModelSource::Open(const std::string& path) {
  std::unique_ptr<ModelSource> source(new ModelSource);
  source->path_ = path;
  if (path.empty()) {
    source->is_house_ = true;
    ASSIGN_OR_RETURN(source->path_, EmbeddedModelPath());
  } else if (backends::hardwired::IsRomFile(path)) {
    // The device that computes with it checks the seal.
    ASSIGN_OR_RETURN(source->rom_, RomFile::Open(path, /*verify_seal=*/false));
    return source;
  }
  ASSIGN_OR_RETURN(source->gguf_, models::GgufFile::Open(source->path_));
  return source;
}

absl::StatusOr<std::string> ModelSource::ImagePath() {
  if (rom_ != nullptr) return path_;
  if (is_house_) {
    if (house_image_.empty()) {
      ASSIGN_OR_RETURN(house_image_, EmbeddedImagePath());
    }
    return house_image_;
  }
  if (image_fd_ < 0) {
    std::string folder = (std::filesystem::temp_directory_path() / "reticle-XXXXXX").string();
    if (mkdtemp(folder.data()) == nullptr) {
      return InternalError("mkdtemp %s: %s", folder, std::strerror(errno));
    }
    const std::string file = folder + "/image.rom";
    LogInfo("taping the model out with 8-bit weights");
    TapeoutOptions options;
    options.types = TapeoutOptions::Types::k8;
    const absl::Status made = TapeOut(*gguf_, file, options).status();
    if (made.ok()) image_fd_ = open(file.c_str(), O_RDONLY | O_CLOEXEC);
    // The descriptor keeps the image.
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
    if (!made.ok()) {
      return absl::Status(made.code(),
                          absl::StrFormat("the model cannot be taped out: %s", made.message()));
    }
    if (image_fd_ < 0) return InternalError("cannot open the image: %s", std::strerror(errno));
  }
  return absl::StrFormat("/proc/%d/fd/%d", getpid(), image_fd_);
}

}  // namespace reticle::server::cli
