#include "backends/cpu/packed_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_format.h"
#include "base/status.h"

namespace reticle::backends::cpu {
namespace {

constexpr char kMagic[8] = {'R', 'E', 'T', 'P', 'A', 'C', 'K', '\n'};
// Of the layout in backends/kernels/packed_matrix.h, too: to be raised when that changes.
constexpr uint32_t kVersion = 3;
// Weights begin at a page.
constexpr size_t kHeaderBytes = 4096;
constexpr size_t kChunkBytes = size_t{16} << 20;

struct Header {
  char magic[8];
  uint32_t version;
  uint32_t byte_order;  // kVersion's bytes in another order are another number
  uint64_t weight_bytes;
  uint64_t source_device;
  uint64_t source_inode;
  uint64_t source_bytes;
  int64_t source_modified_ns;
  char identity[72];  // ends with a zero
};
static_assert(sizeof(Header) <= kHeaderBytes);

constexpr uint32_t kByteOrder = 0x01020304;

Header MakeHeader(const PackedSource& source, uint64_t weight_bytes) {
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.version = kVersion;
  header.byte_order = kByteOrder;
  header.weight_bytes = weight_bytes;
  header.source_device = source.device;
  header.source_inode = source.inode;
  header.source_bytes = source.bytes;
  header.source_modified_ns = source.modified_ns;
  return header;
}

absl::Status Errno(std::string_view what, const std::string& path) {
  const int error = errno;
  return error == ENOENT ? NotFoundError("%s %s: %s", what, path, std::strerror(error))
                         : InternalError("%s %s: %s", what, path, std::strerror(error));
}

// FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv/.
uint64_t Fingerprint(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char letter : text) {
    hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001b3;
  }
  return hash;
}

absl::Status WriteAll(int file, const std::string& path, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(file, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return Errno("cannot write", path);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PackedSource> PackedSource::Of(const std::string& model_path) {
  struct stat facts {};
  if (stat(model_path.c_str(), &facts) != 0) return Errno("cannot look at", model_path);
  PackedSource source;
  source.device = facts.st_dev;
  source.inode = facts.st_ino;
  source.bytes = static_cast<uint64_t>(facts.st_size);
  source.modified_ns = int64_t{facts.st_mtim.tv_sec} * 1'000'000'000 + facts.st_mtim.tv_nsec;
  return source;
}

std::string PackedPath(const std::string& folder, const std::string& model_path) {
  std::error_code error;
  std::filesystem::path whole = std::filesystem::canonical(model_path, error);
  if (error) whole = model_path;
  return absl::StrFormat("%s/%s.%016x.packed", folder, whole.filename().string(),
                         Fingerprint(whole.string()));
}

absl::StatusOr<PackedFile> PackedFile::Open(const std::string& path, const PackedSource& source,
                                            uint64_t weight_bytes) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return Errno("cannot open", path);
  const absl::Cleanup closing = [file] { close(file); };
  Header header{};
  const ssize_t got = pread(file, &header, sizeof(header), 0);
  if (got < 0) return Errno("cannot read", path);
  if (got != sizeof(header))
    return DataLossError("%s has %d bytes; its header alone has %d", path, got, sizeof(header));
  const Header expected = MakeHeader(source, weight_bytes);
  if (std::memcmp(&header, &expected, offsetof(Header, identity)) != 0) {
    return NotFoundError("%s was made of another model file or by another version", path);
  }
  struct stat facts {};
  if (fstat(file, &facts) != 0) return Errno("cannot look at", path);
  const uint64_t bytes = kHeaderBytes + weight_bytes;
  if (static_cast<uint64_t>(facts.st_size) != bytes) {
    return DataLossError("%s has %d bytes; it must have %d", path, facts.st_size, bytes);
  }
  void* const data = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file, 0);
  if (data == MAP_FAILED) return ResourceExhaustedError("cannot map %s, %d bytes", path, bytes);
  madvise(data, bytes, MADV_HUGEPAGE);
  PackedFile packed;
  packed.data_ = static_cast<const std::byte*>(data);
  packed.bytes_ = bytes;
  header.identity[sizeof(header.identity) - 1] = '\0';
  packed.identity_ = header.identity;
  return packed;
}

PackedFile& PackedFile::operator=(PackedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(identity_, other.identity_);
  return *this;
}

PackedFile::~PackedFile() {
  if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), bytes_);
}

std::span<const std::byte> PackedFile::weights() const {
  return {data_ + kHeaderBytes, bytes_ - kHeaderBytes};
}

PackedFileWriter::PackedFileWriter(std::string path, const PackedSource& source,
                                   std::string identity, std::span<const std::byte> weights,
                                   std::function<void(absl::Status)> done) {
  thread_ = std::thread([this, path = std::move(path), source, identity = std::move(identity),
                         weights, done = std::move(done)] {
    // Of this thread only, on Linux: the device computes meanwhile.
    setpriority(PRIO_PROCESS, 0, 19);
    absl::Status status = Write(path, source, identity, weights);
    if (!stopping_.load()) done(std::move(status));
  });
}

PackedFileWriter::~PackedFileWriter() {
  stopping_ = true;
  thread_.join();
}

absl::Status PackedFileWriter::Write(const std::string& path, const PackedSource& source,
                                     const std::string& identity,
                                     std::span<const std::byte> weights) {
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  // One name, so that what a crash leaves is written over.
  const std::string temporary = path + ".part";
  const int file = open(temporary.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0) return Errno("cannot create", temporary);
  bool owned = false;
  bool finished = false;
  const absl::Cleanup closing = [&] {
    if (owned && !finished) unlink(temporary.c_str());
    close(file);
  };
  // Another process may have renamed it between the two calls: it is in use then.
  struct stat mine {
  }, named{};
  owned = flock(file, LOCK_EX | LOCK_NB) == 0 && fstat(file, &mine) == 0 &&
          stat(temporary.c_str(), &named) == 0 && mine.st_ino == named.st_ino;
  if (!owned) return UnavailableError("another process is writing %s", temporary);
  if (ftruncate(file, 0) != 0) return Errno("cannot write", temporary);
  Header header = MakeHeader(source, weights.size());
  identity.copy(header.identity, sizeof(header.identity) - 1);
  std::array<std::byte, kHeaderBytes> page{};
  std::memcpy(page.data(), &header, sizeof(header));
  RETURN_IF_ERROR(WriteAll(file, temporary, page));
  for (size_t at = 0; at < weights.size(); at += kChunkBytes) {
    if (stopping_.load()) return absl::CancelledError("the device was closed");
    RETURN_IF_ERROR(
        WriteAll(file, temporary, weights.subspan(at, std::min(kChunkBytes, weights.size() - at))));
  }
  // Readers of a file that is only half on the disk would compute with zeros after a crash.
  if (fsync(file) != 0) return Errno("cannot store", temporary);
  if (rename(temporary.c_str(), path.c_str()) != 0) return Errno("cannot rename to", path);
  finished = true;
  return absl::OkStatus();
}

}  // namespace reticle::backends::cpu
