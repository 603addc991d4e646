// Bounds-checked reading of a GGUF header. Internal to models/.
#ifndef RETICLE_MODELS_GGUF_CURSOR_H_
#define RETICLE_MODELS_GGUF_CURSOR_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/status.h"

namespace reticle::models {

// `text` from a file made fit for a message: printable ASCII, at most 80 bytes of it.
std::string QuoteForMessage(std::string_view text);

// Reads little-endian values from `bytes` in order; never beyond their end. `what` names the field
// in errors, all of which are DATA_LOSS with the byte offset.
class GgufCursor {
 public:
  explicit GgufCursor(std::span<const std::byte> bytes) : bytes_(bytes) {}

  uint64_t offset() const { return offset_; }
  uint64_t remaining() const { return bytes_.size() - offset_; }
  // The bytes from `begin` to the current offset.
  std::span<const std::byte> Since(uint64_t begin) const {
    return bytes_.subspan(begin, offset_ - begin);
  }

  template <typename T>
  absl::StatusOr<T> Read(std::string_view what) {
    if (remaining() < sizeof(T)) return Truncated(what, sizeof(T));
    T value;
    std::memcpy(&value, bytes_.data() + offset_, sizeof(T));
    offset_ += sizeof(T);
    return value;
  }

  absl::StatusOr<std::span<const std::byte>> Take(uint64_t size, std::string_view what) {
    if (remaining() < size) return Truncated(what, size);
    const std::span<const std::byte> taken = bytes_.subspan(offset_, size);
    offset_ += size;
    return taken;
  }

  // A 64-bit length and that many bytes.
  absl::StatusOr<std::string_view> ReadString(std::string_view what) {
    ASSIGN_OR_RETURN(const uint64_t length, Read<uint64_t>(what));
    ASSIGN_OR_RETURN(const std::span<const std::byte> taken, Take(length, what));
    return std::string_view(reinterpret_cast<const char*>(taken.data()), taken.size());
  }

  // A 64-bit count of things that take at least `min_size` bytes each, so that no count is believed
  // which the bytes left cannot hold.
  absl::StatusOr<uint64_t> ReadCount(uint64_t min_size, std::string_view what) {
    const uint64_t begin = offset_;
    ASSIGN_OR_RETURN(const uint64_t count, Read<uint64_t>(what));
    if (count > remaining() / min_size) {
      return DataLossError("%s at byte %d is %d; the %d bytes left hold at most %d", what, begin,
                           count, remaining(), remaining() / min_size);
    }
    return count;
  }

 private:
  absl::Status Truncated(std::string_view what, uint64_t size) const {
    return DataLossError("%s at byte %d needs %d bytes; %d are left", what, offset_, size,
                         remaining());
  }

  std::span<const std::byte> bytes_;
  uint64_t offset_ = 0;
};

}  // namespace reticle::models

#endif  // RETICLE_MODELS_GGUF_CURSOR_H_
