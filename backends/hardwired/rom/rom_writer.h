// Writes device images, tensor by tensor. The bytes depend on what is given only.
#ifndef RETICLE_BACKENDS_HARDWIRED_ROM_ROM_WRITER_H_
#define RETICLE_BACKENDS_HARDWIRED_ROM_ROM_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backends/hardwired/rom/rom_format.h"
#include "models/gguf.h"

namespace reticle::backends::hardwired {

// Not thread-safe. The file appears under its name when it is whole: until Finish it lies beside,
// and it is removed when the writer goes before that.
class RomWriter {
 public:
  struct Options {
    models::LlamaConfig config;
    std::string types;                   // as asked for, at most 31 bytes
    Sha256Digest source_hash{};          // of the GGUF file
    std::vector<RomEncoding> encodings;  // of RomTensors(config)
  };

  // `source` gives the metadata. INVALID_ARGUMENT for a shape that no image holds; INTERNAL when
  // the file cannot be written.
  static absl::StatusOr<std::unique_ptr<RomWriter>> Create(const std::string& path,
                                                           const models::GgufFile& source,
                                                           const Options& options);
  ~RomWriter();
  RomWriter(const RomWriter&) = delete;
  RomWriter& operator=(const RomWriter&) = delete;

  // The next tensor: RomTensorBytes of it.
  absl::Status Write(std::span<const std::byte> data);
  // After the last tensor: seals the image and gives it its name. Returns the image's hash.
  absl::StatusOr<std::string> Finish();

 private:
  RomWriter() = default;
  absl::Status Append(std::span<const std::byte> bytes);

  std::string path_;
  std::string temporary_path_;
  std::FILE* file_ = nullptr;
  RomHeader header_{};
  std::vector<std::byte> metadata_and_table_;
  std::vector<uint64_t> tensor_bytes_;
  size_t next_ = 0;
  Sha256 data_sha_;
};

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_ROM_ROM_WRITER_H_
