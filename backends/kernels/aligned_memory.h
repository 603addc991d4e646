// Large zeroed memory straight from the kernel: aligned, populated when first touched, with huge
// pages where the system allows them.
#ifndef RETICLE_BACKENDS_KERNELS_ALIGNED_MEMORY_H_
#define RETICLE_BACKENDS_KERNELS_ALIGNED_MEMORY_H_

#include <cstddef>
#include <utility>

#include "absl/status/statusor.h"

namespace reticle::backends::kernels {

// Owns one mapping; movable. The address is a multiple of the page size, from 2 MiB on of 2 MiB, so
// that every whole huge page can be one.
class AlignedMemory {
 public:
  // `bytes` may be 0. RESOURCE_EXHAUSTED, with the size, when the system refuses.
  static absl::StatusOr<AlignedMemory> Allocate(size_t bytes);

  AlignedMemory() = default;
  ~AlignedMemory();
  AlignedMemory(AlignedMemory&& other) noexcept { *this = std::move(other); }
  AlignedMemory& operator=(AlignedMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  // Makes the system give memory for bytes first .. end-1 now; what they hold stays. Different
  // ranges may be populated by different threads.
  void Populate(size_t first, size_t end) const;

  std::byte* data() const { return data_; }
  size_t size() const { return bytes_; }
  template <typename T>
  T* As() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace reticle::backends::kernels

#endif  // RETICLE_BACKENDS_KERNELS_ALIGNED_MEMORY_H_
