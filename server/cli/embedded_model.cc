#include "server/cli/embedded_model.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/status.h"

#ifdef RETICLE_HOUSE_MODEL
__asm__(
    ".section .rodata\n"
    ".balign 64\n"
    ".global reticle_house_model_begin\n"
    "reticle_house_model_begin:\n"
    ".incbin \"" RETICLE_HOUSE_MODEL
    "\"\n"
    ".global reticle_house_model_end\n"
    "reticle_house_model_end:\n"
    ".byte 0\n"
    ".text\n");
extern "C" {
__attribute__((visibility("hidden"))) extern const std::byte reticle_house_model_begin[];
__attribute__((visibility("hidden"))) extern const std::byte reticle_house_model_end[];
}
#endif

namespace reticle::server::cli {

std::span<const std::byte> EmbeddedModel() {
#ifdef RETICLE_HOUSE_MODEL
  return {reticle_house_model_begin, reticle_house_model_end};
#else
  return {};
#endif
}

absl::StatusOr<std::string> EmbeddedModelPath() {
  const std::span<const std::byte> model = EmbeddedModel();
  if (model.empty()) {
    return FailedPreconditionError(
        "this binary was built without the house model; name a model file with --model");
  }
  const int fd = memfd_create("house.gguf", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return InternalError("memfd_create: %s", std::strerror(errno));
  size_t written = 0;
  while (written < model.size()) {
    const ssize_t n = write(fd, model.data() + written, model.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      const int error = errno;
      close(fd);
      return InternalError("writing the embedded model to memory: %s", std::strerror(error));
    }
    written += static_cast<size_t>(n);
  }
  if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) != 0) {
    const int error = errno;
    close(fd);
    return InternalError("sealing the embedded model: %s", std::strerror(error));
  }
  return absl::StrFormat("/proc/self/fd/%d", fd);
}

}  // namespace reticle::server::cli
