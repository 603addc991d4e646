// A model's weights as the kernels want them, in a file: the next opening maps it instead of
// repacking, is ready at once, and shares the pages with every other process that does.
#ifndef RETICLE_BACKENDS_CPU_PACKED_FILE_H_
#define RETICLE_BACKENDS_CPU_PACKED_FILE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace reticle::backends::cpu {

// What a packed file was made of. A model file that was replaced or written to is another source.
struct PackedSource {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t bytes = 0;
  int64_t modified_ns = 0;

  // NOT_FOUND when there is no such file.
  static absl::StatusOr<PackedSource> Of(const std::string& model_path);
  bool operator==(const PackedSource&) const = default;
};

// Where the packed weights of a model lie in `folder`: one file for each path of a model.
std::string PackedPath(const std::string& folder, const std::string& model_path);

// A read-only mapping; movable. Any bit pattern of its weights is safe to compute with.
class PackedFile {
 public:
  // NOT_FOUND when there is none, or one of another source, of another number of weight bytes or of
  // another version of the layout; DATA_LOSS when the file is shorter than it says.
  static absl::StatusOr<PackedFile> Open(const std::string& path, const PackedSource& source,
                                         uint64_t weight_bytes);
  PackedFile() = default;
  PackedFile(PackedFile&& other) noexcept { *this = std::move(other); }
  PackedFile& operator=(PackedFile&& other) noexcept;
  ~PackedFile();

  std::span<const std::byte> weights() const;
  // That of the model file when this was written.
  const std::string& identity() const { return identity_; }

 private:
  const std::byte* data_ = nullptr;
  size_t bytes_ = 0;  // of the mapping
  std::string identity_;
};

// Writes a packed file beside the work of the device: as PATH.part until everything is on the disk,
// so that a crash never leaves half a file where it would be mapped.
class PackedFileWriter {
 public:
  // `weights` must outlive the writer. `done` is called once, by the writer's thread, unless the
  // writer is destroyed before.
  PackedFileWriter(std::string path, const PackedSource& source, std::string identity,
                   std::span<const std::byte> weights, std::function<void(absl::Status)> done);
  // Gives up what is not written.
  ~PackedFileWriter();
  PackedFileWriter(const PackedFileWriter&) = delete;
  PackedFileWriter& operator=(const PackedFileWriter&) = delete;

 private:
  // CANCELLED when the writer is being destroyed, UNAVAILABLE when another process writes the file.
  absl::Status Write(const std::string& path, const PackedSource& source,
                     const std::string& identity, std::span<const std::byte> weights);

  std::atomic<bool> stopping_{false};
  std::thread thread_;  // last: uses everything above
};

}  // namespace reticle::backends::cpu

#endif  // RETICLE_BACKENDS_CPU_PACKED_FILE_H_
