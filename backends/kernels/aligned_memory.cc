#include "backends/kernels/aligned_memory.h"

#include <sys/mman.h>

#include "base/status.h"

namespace reticle::backends::kernels {
namespace {
constexpr size_t kHugePage = size_t{2} << 20;
}

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

AlignedMemory::~AlignedMemory() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

}  // namespace reticle::backends::kernels
