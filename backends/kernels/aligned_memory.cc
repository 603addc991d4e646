#include "backends/kernels/aligned_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

#include "base/status.h"

namespace reticle::backends::kernels {
namespace {
constexpr size_t kSmallestPage = 4096;
constexpr size_t kHugePage = size_t{2} << 20;
}  // namespace

absl::StatusOr<AlignedMemory> AlignedMemory::Allocate(size_t bytes) {
  AlignedMemory memory;
  if (bytes == 0) return memory;
  const bool huge = bytes >= kHugePage;
  // Room to begin at a huge page; what is left on either side is given back.
  const size_t mapped = bytes + (huge ? kHugePage : 0);
  void* const data = mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) return ResourceExhaustedError("cannot map %d bytes of memory", bytes);
  std::byte* begin = static_cast<std::byte*>(data);
  if (huge) {
    const size_t over = reinterpret_cast<uintptr_t>(begin) % kHugePage;
    const size_t before = over == 0 ? 0 : kHugePage - over;
    if (before > 0) munmap(begin, before);
    begin += before;
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t kept = (bytes + page - 1) / page * page;
    if (mapped - before > kept) munmap(begin + kept, mapped - before - kept);
    madvise(begin, bytes, MADV_HUGEPAGE);
  }
  memory.data_ = begin;
  memory.bytes_ = bytes;
  return memory;
}

void AlignedMemory::Populate(size_t first, size_t end) const {
  for (size_t at = first; at < end; at += kSmallestPage) {
    // Written, not only read: a page that is read first is one that all share.
    volatile std::byte* const byte = data_ + at;
    *byte = *byte;
  }
}

AlignedMemory::~AlignedMemory() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

}  // namespace reticle::backends::kernels
