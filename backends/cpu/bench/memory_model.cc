#include "backends/cpu/bench/memory_model.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <utility>
#include <vector>

#include "base/status.h"

namespace reticle::backends::cpu::bench {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 20;

absl::Status WriteAll(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      return ResourceExhaustedError("the model cannot be written to memory: %s",
                                    std::strerror(errno));
    }
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<MemoryModel> MemoryModel::Create(const models::GgufWriter& writer) {
  MemoryModel model;
  model.fd_ = memfd_create("synthetic.gguf", MFD_CLOEXEC);
  if (model.fd_ < 0) {
    return ResourceExhaustedError("memfd_create: %s", std::strerror(errno));
  }
  std::vector<std::byte> buffer;
  buffer.reserve(kBufferBytes);
  const auto flush = [&] {
    const absl::Status status = WriteAll(model.fd_, buffer);
    buffer.clear();
    return status;
  };
  RETURN_IF_ERROR(writer.Write([&](std::span<const std::byte> piece) -> absl::Status {
    model.bytes_ += piece.size();
    if (buffer.size() + piece.size() > kBufferBytes) RETURN_IF_ERROR(flush());
    if (piece.size() > kBufferBytes) return WriteAll(model.fd_, piece);
    buffer.insert(buffer.end(), piece.begin(), piece.end());
    return absl::OkStatus();
  }));
  RETURN_IF_ERROR(flush());
  return model;
}

MemoryModel::~MemoryModel() {
  if (fd_ >= 0) close(fd_);
}

MemoryModel::MemoryModel(MemoryModel&& other) noexcept { *this = std::move(other); }

MemoryModel& MemoryModel::operator=(MemoryModel&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

std::string MemoryModel::path() const { return absl::StrFormat("/proc/%d/fd/%d", getpid(), fd_); }

}  // namespace reticle::backends::cpu::bench
