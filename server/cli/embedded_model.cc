#include "server/cli/embedded_model.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/status.h"

#define RETICLE_EMBED(name, file)     \
  __asm__(                            \
      ".section .rodata\n"            \
      ".balign 64\n"                  \
      ".global " name "_begin\n" name \
      "_begin:\n"                     \
      ".incbin \"" file               \
      "\"\n"                          \
      ".global " name "_end\n" name   \
      "_end:\n"                       \
      ".byte 0\n"                     \
      ".text\n")
extern "C" {
#ifdef RETICLE_HOUSE_MODEL
RETICLE_EMBED("reticle_house_model", RETICLE_HOUSE_MODEL);
__attribute__((visibility("hidden"))) extern const std::byte reticle_house_model_begin[];
__attribute__((visibility("hidden"))) extern const std::byte reticle_house_model_end[];
#endif
#ifdef RETICLE_HOUSE_IMAGE
RETICLE_EMBED("reticle_house_image", RETICLE_HOUSE_IMAGE);
__attribute__((visibility("hidden"))) extern const std::byte reticle_house_image_begin[];
__attribute__((visibility("hidden"))) extern const std::byte reticle_house_image_end[];
#endif
}

namespace reticle::server::cli {
namespace {

absl::StatusOr<std::string> FileInMemory(const char* name, std::span<const std::byte> bytes) {
  if (bytes.empty()) {
    return FailedPreconditionError(
        "this binary was built without %s; name a model file with --model", name);
  }
  const int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return InternalError("memfd_create: %s", std::strerror(errno));
  size_t written = 0;
  while (written < bytes.size()) {
    const ssize_t n = write(fd, bytes.data() + written, bytes.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      const int error = errno;
      close(fd);
      return InternalError("writing %s to memory: %s", name, std::strerror(error));
    }
    written += static_cast<size_t>(n);
  }
  if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) != 0) {
    const int error = errno;
    close(fd);
    return InternalError("sealing %s: %s", name, std::strerror(error));
  }
  return absl::StrFormat("/proc/%d/fd/%d", getpid(), fd);
}

}  // namespace

std::span<const std::byte> EmbeddedModel() {
#ifdef RETICLE_HOUSE_MODEL
  return {reticle_house_model_begin, reticle_house_model_end};
#else
  return {};
#endif
}

std::span<const std::byte> EmbeddedImage() {
#ifdef RETICLE_HOUSE_IMAGE
  return {reticle_house_image_begin, reticle_house_image_end};
#else
  return {};
#endif
}

absl::StatusOr<std::string> EmbeddedModelPath() {
  return FileInMemory("house.gguf", EmbeddedModel());
}

absl::StatusOr<std::string> EmbeddedImagePath() {
  return FileInMemory("house.rom", EmbeddedImage());
}

}  // namespace reticle::server::cli
