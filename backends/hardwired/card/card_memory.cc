#include "backends/hardwired/card/card_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <new>

#include "base/status.h"

namespace reticle::backends::hardwired {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kRegisterBytes = (sizeof(CardRegisters) + kPage - 1) / kPage * kPage;
constexpr uint64_t kMaxSubmissionBytes = 1ull << 28;
constexpr uint32_t kMaxCells = 1u << 20;
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW;

size_t TotalBytes(uint64_t submission_bytes, uint32_t cells) {
  return kRegisterBytes + submission_bytes + size_t{cells} * sizeof(CompletionCell);
}

absl::StatusOr<void*> Map(int fd, size_t size) {
  void* const base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) {
    return ResourceExhaustedError("mapping %u bytes of card memory: %s", size,
                                  std::strerror(errno));
  }
  return base;
}

}  // namespace

uint32_t CheckWord(const void* bytes, size_t size) {
  constexpr uint64_t kFactor = 0x9E3779B97F4A7C15u;
  uint64_t even = 0x243F6A8885A308D3u ^ size;
  uint64_t odd = 0x13198A2E03707344u;
  const auto* from = static_cast<const char*>(bytes);
  for (; size >= 16; size -= 16, from += 16) {
    uint64_t words[2];
    std::memcpy(words, from, 16);
    even = std::rotl((even ^ words[0]) * kFactor, 29);
    odd = std::rotl((odd ^ words[1]) * kFactor, 31);
  }
  if (size > 0) {
    uint64_t words[2] = {0, 0};
    std::memcpy(words, from, size);
    even = std::rotl((even ^ words[0]) * kFactor, 29);
    odd = std::rotl((odd ^ words[1]) * kFactor, 31);
  }
  const uint64_t all = (even ^ std::rotl(odd, 17)) * kFactor;
  return static_cast<uint32_t>(all >> 32);
}

absl::StatusOr<std::shared_ptr<CardMemory>> CardMemory::Create(uint64_t submission_bytes,
                                                               uint32_t completion_cells) {
  submission_bytes = std::bit_ceil(submission_bytes);
  completion_cells = std::bit_ceil(completion_cells);
  if (submission_bytes > kMaxSubmissionBytes || completion_cells > kMaxCells) {
    return InvalidArgumentError("rings of %u bytes and %u cells; at most %u and %u",
                                submission_bytes, completion_cells, kMaxSubmissionBytes, kMaxCells);
  }
  const int fd = memfd_create("reticle-card", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return ResourceExhaustedError("memfd_create: %s", std::strerror(errno));
  const size_t size = TotalBytes(submission_bytes, completion_cells);
  if (ftruncate(fd, static_cast<off_t>(size)) != 0 ||
      fcntl(fd, F_ADD_SEALS, kSeals | F_SEAL_SEAL) != 0) {
    const int error = errno;
    close(fd);
    return ResourceExhaustedError("%u bytes of card memory: %s", size, std::strerror(error));
  }
  absl::StatusOr<void*> base = Map(fd, size);
  if (!base.ok()) {
    close(fd);
    return base.status();
  }
  auto* const registers = new (*base) CardRegisters();
  registers->magic = kCardMagic;
  registers->version = kCardVersion;
  registers->submission_bytes = submission_bytes;
  registers->completion_cells = completion_cells;
  registers->next_event_ns.store(INT64_MAX, std::memory_order_relaxed);
  return std::shared_ptr<CardMemory>(
      new CardMemory(fd, *base, size, submission_bytes, completion_cells));
}

absl::StatusOr<std::shared_ptr<CardMemory>> CardMemory::Attach(int fd) {
  const auto refuse = [fd](const char* why) {
    close(fd);
    return DataLossError("the card's memory is refused: %s", why);
  };
  struct stat info {};
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & kSeals) != kSeals) return refuse("its size may change");
  if (fstat(fd, &info) != 0 || static_cast<size_t>(info.st_size) < kRegisterBytes) {
    return refuse("it is too small");
  }
  const auto size = static_cast<size_t>(info.st_size);
  absl::StatusOr<void*> base = Map(fd, size);
  if (!base.ok()) {
    close(fd);
    return base.status();
  }
  const auto& registers = *static_cast<const CardRegisters*>(*base);
  uint64_t submission_bytes = 0;
  uint32_t cells = 0;
  std::memcpy(&submission_bytes, &registers.submission_bytes, sizeof(submission_bytes));
  std::memcpy(&cells, &registers.completion_cells, sizeof(cells));
  const bool fits = std::has_single_bit(submission_bytes) && std::has_single_bit(cells) &&
                    submission_bytes >= kPage && submission_bytes <= kMaxSubmissionBytes &&
                    cells > kMaxExtraCells && cells <= kMaxCells &&
                    TotalBytes(submission_bytes, cells) == size;
  if (registers.magic != kCardMagic || registers.version != kCardVersion || !fits) {
    munmap(*base, size);
    return refuse("magic, version or sizes do not match");
  }
  return std::shared_ptr<CardMemory>(new CardMemory(fd, *base, size, submission_bytes, cells));
}

CardMemory::~CardMemory() {
  munmap(base_, size_);
  close(fd_);
}

std::span<std::byte> CardMemory::submissions() const {
  return {static_cast<std::byte*>(base_) + kRegisterBytes, submission_bytes_};
}

std::span<CompletionCell> CardMemory::completions() const {
  auto* const first = static_cast<std::byte*>(base_) + kRegisterBytes + submission_bytes_;
  return {reinterpret_cast<CompletionCell*>(first), cells_};
}

}  // namespace reticle::backends::hardwired
