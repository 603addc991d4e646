// Reader of GGUF model files (versions 2 and 3, little-endian) over a read-only memory map.
// Specification: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
//
// Every offset, count, string and shape is checked before it is used: a hostile file gives a Status
// that says what is wrong and at which byte, never a crash, an endless loop or an allocation larger
// than the file justifies. Opening reads the header only; no page of a weight is touched.
#ifndef RETICLE_MODELS_GGUF_H_
#define RETICLE_MODELS_GGUF_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/gguf_value.h"
#include "models/sha256.h"
#include "models/tensor_type.h"

namespace reticle::models {

// One tensor of the file. `data` points into the map and lives as long as the GgufFile.
struct GgufTensor {
  std::string_view name;
  TensorType type;
  // Innermost first, as in the file: shape[0] is the row length (number of input features of a
  // matrix).
  std::vector<uint64_t> shape;
  std::span<const std::byte> data;
  uint64_t file_offset;  // of `data`, from the start of the file

  uint64_t elements() const;
  uint64_t rows() const;  // product of shape[1..]
};

// Immutable after Open, so thread-safe. Views handed out live as long as the object. The file must
// not be changed or truncated while it is open: the map would change with it.
class GgufFile {
 public:
  // Maps and parses `path`. NOT_FOUND when it cannot be opened, INVALID_ARGUMENT or DATA_LOSS
  // (truncated) with the byte offset when it is no valid GGUF, UNIMPLEMENTED for a version or
  // tensor type that is not read.
  static absl::StatusOr<std::unique_ptr<GgufFile>> Open(const std::string& path);
  // Parses `bytes`, which must outlive the file and start at a multiple of 8 (as `new` and malloc
  // give), so that tensors of floats are aligned. For tests and embedded models.
  static absl::StatusOr<std::unique_ptr<GgufFile>> Parse(std::span<const std::byte> bytes);

  ~GgufFile();
  GgufFile(const GgufFile&) = delete;
  GgufFile& operator=(const GgufFile&) = delete;

  uint32_t version() const;
  uint64_t size_bytes() const;
  uint32_t alignment() const;    // of tensor data, bytes
  uint64_t data_offset() const;  // where tensor data begin

  // Metadata. Get* return NOT_FOUND when the key is absent and INVALID_ARGUMENT, naming the key and
  // both types, when the value is of another type. GetUint and GetInt accept any integer type whose
  // value fits, GetFloat both float types.
  bool Has(std::string_view key) const;
  absl::StatusOr<uint64_t> GetUint(std::string_view key) const;
  absl::StatusOr<int64_t> GetInt(std::string_view key) const;
  absl::StatusOr<double> GetFloat(std::string_view key) const;
  absl::StatusOr<bool> GetBool(std::string_view key) const;
  absl::StatusOr<std::string_view> GetString(std::string_view key) const;
  absl::StatusOr<std::vector<std::string_view>> GetStringArray(std::string_view key) const;
  absl::StatusOr<std::vector<int64_t>> GetIntArray(std::string_view key) const;  // any integer type
  absl::StatusOr<std::vector<float>> GetFloatArray(std::string_view key) const;  // F32 or F64
  // The value itself, for arrays within arrays and for copying it to another file.
  absl::StatusOr<GgufValue> Get(std::string_view key) const;
  // Keys in the order of the file.
  std::vector<std::string_view> Keys() const;
  absl::StatusOr<GgufValueType> TypeOf(std::string_view key) const;

  // Tensors in the order of the file.
  std::span<const GgufTensor> tensors() const;
  // The tensor of that name, or nullptr.
  const GgufTensor* FindTensor(std::string_view name) const;

  // Gives back the memory that the map's pages take in this process; they come again from the page
  // cache, or the disk, when they are read. Does nothing for bytes in memory. Any thread at any
  // time.
  void ReleasePages() const;

  // Calls `read`, which goes over `part` of the file once. The pages are asked for together before
  // and given back after. Any thread at any time.
  void ReadOnce(std::span<const std::byte> part, absl::FunctionRef<void()> read) const;

  // Calls body(i) once for each i < count, on whatever threads, and returns when all have returned.
  using ParallelFor = absl::FunctionRef<void(size_t count, absl::FunctionRef<void(size_t)> body)>;
  // The model's identity, 64 lower-case hex digits: SHA-256 over the 128-bit XXH3 (canonical form,
  // https://xxhash.com) of each 4 MiB of the file in turn. It tells files apart, as fast as memory
  // gives them, and is no proof against somebody who wants two to agree: FileSha256 is.
  std::string Identity(ParallelFor parallel_for) const;
  // Of the whole file, as sha256sum has it.
  Sha256Digest FileSha256() const;

 private:
  GgufFile();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace reticle::models

#endif  // RETICLE_MODELS_GGUF_H_
