// Reader of device images (".rom"): a model as it was taped out, weights quantised and laid out for
// the kernels, with the metadata of the GGUF file it came from. docs/tapeout.md describes the
// format.
//
// Every offset, count and shape is checked before it is used, and a SHA-256 seal covers the whole
// file: a tampered, truncated or foreign image gives a Status that says which check failed and
// where.
#ifndef RETICLE_BACKENDS_HARDWIRED_ROM_ROM_FILE_H_
#define RETICLE_BACKENDS_HARDWIRED_ROM_ROM_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "backends/hardwired/rom/rom_format.h"
#include "backends/kernels/model.h"
#include "models/gguf.h"
#include "models/llama_config.h"

namespace reticle::backends::hardwired {

// What an image says about itself.
struct RomInfo {
  std::string model_name;   // general.name of the source; may be empty
  std::string image_hash;   // SHA-256 over the image, lower-case hex: its identity
  std::string source_hash;  // of the GGUF file that it was made from
  std::string types;        // as asked for: "8", "3/6", ...
  models::LlamaConfig config;
  uint64_t parameters = 0;
  uint64_t weight_bytes = 0;     // of all tensors in the image
  double bits_per_weight = 0.0;  // scales, norms and the like included
};

// One tensor of an image; `data` points into the map.
struct RomTensor {
  RomTensorShape shape;
  RomEncoding encoding = RomEncoding::kFloat32;
  std::span<const std::byte> data;
};

// True when the file at `path` begins with the magic number of an image.
bool IsRomFile(const std::string& path);

// Immutable after Open, so thread-safe. Views handed out live as long as the object. The file must
// not change while it is open.
class RomFile {
 public:
  // Maps `path` read-only and checks it. NOT_FOUND when it cannot be opened; INVALID_ARGUMENT for a
  // foreign file, UNIMPLEMENTED for another version, DATA_LOSS for a truncated or tampered one.
  // Without `verify_seal` the bytes of the weights are not read.
  static absl::StatusOr<std::unique_ptr<RomFile>> Open(const std::string& path,
                                                       bool verify_seal = true);
  // Reads an image in memory, which must outlive the file and begin at a multiple of 64.
  static absl::StatusOr<std::unique_ptr<RomFile>> Parse(std::span<const std::byte> bytes,
                                                        bool verify_seal = true);

  ~RomFile();
  RomFile(const RomFile&) = delete;
  RomFile& operator=(const RomFile&) = delete;

  const RomInfo& info() const;
  uint64_t size_bytes() const;
  // The metadata of the source (tokenizer, chat template, hyper-parameters) as a GGUF file without
  // tensors: what tokenizer::Tokenizer::Create takes.
  const models::GgufFile& metadata() const;
  // In the order of RomTensors.
  std::span<const RomTensor> tensors() const;
  // The model for the kernels, computing from the mapped bytes; the file must outlive it.
  // INVALID_ARGUMENT for rope factors that are not finite and positive.
  absl::StatusOr<std::unique_ptr<kernels::Model>> MakeModel() const;

 private:
  RomFile();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Open, and only what the image says about itself.
absl::StatusOr<RomInfo> ReadRomInfo(const std::string& path, bool verify_seal = true);

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_ROM_ROM_FILE_H_
