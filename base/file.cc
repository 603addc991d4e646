#include "base/file.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "base/status.h"

namespace reticle {

absl::StatusOr<std::string> ReadFile(const std::string& what, const std::string& path) {
  const auto refusal = [&] {
    return NotFoundError("%s %s cannot be read: %s", what, path, std::strerror(errno));
  };
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                             &std::fclose);
  if (file == nullptr) return refusal();
  std::string text;
  char buffer[1 << 14];
  while (const size_t got = std::fread(buffer, 1, sizeof(buffer), file.get())) {
    text.append(buffer, got);
  }
  // A directory opens, but cannot be read.
  if (std::ferror(file.get()) != 0) return refusal();
  return text;
}

}  // namespace reticle
