#include "backends/kernels/aligned_memory.h"

#include <sys/mman.h>

#include <atomic>

#include "base/status.h"

namespace reticle::backends::kernels {
namespace {
constexpr size_t kSmallestPage = 4096;
constexpr size_t kHugePage = size_t{2} << 20;
}  // namespace

absl::StatusOr<AlignedMemory> AlignedMemory::Allocate(size_t bytes) {
  AlignedMemory memory;
  if (bytes == 0) return memory;
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) return ResourceExhaustedError("cannot map %d bytes of memory", bytes);
  if (bytes >= kHugePage) madvise(data, bytes, MADV_HUGEPAGE);
  memory.data_ = static_cast<std::byte*>(data);
  memory.bytes_ = bytes;
  return memory;
}

void AlignedMemory::Populate(size_t first, size_t end) const {
  for (size_t at = first; at < end; at += kSmallestPage) {
    std::atomic_ref<char>(*reinterpret_cast<char*>(data_ + at))
        .fetch_add(0, std::memory_order_relaxed);
  }
}

AlignedMemory::~AlignedMemory() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

}  // namespace reticle::backends::kernels
