// Writer of GGUF version 3 files: for tests, synthetic models and tools. The bytes depend only on
// what was added and in which order.
//
//   GgufWriter writer;
//   writer.AddString("general.architecture", "llama");
//   writer.AddTensor("output_norm.weight", TensorType::kF32, {64}, std::as_bytes(std::span(norm)));
//   RETURN_IF_ERROR(writer.WriteFile("model.gguf"));
#ifndef RETICLE_MODELS_GGUF_WRITER_H_
#define RETICLE_MODELS_GGUF_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/gguf_value.h"
#include "models/tensor_type.h"

namespace reticle::models {

// Not thread-safe. The Add functions return nothing: the first error (a bad or repeated name, a
// shape that GgufFile would refuse) is kept, and returned by what writes.
class GgufWriter {
 public:
  // Takes the next bytes of a file or of one tensor's data.
  using Sink = std::function<absl::Status(std::span<const std::byte>)>;
  // Gives the data of one tensor to a sink, in as many pieces as it likes. Called once for each
  // file written, so that tensors need never be in memory together.
  using Producer = std::function<absl::Status(const Sink&)>;

  // `alignment` of tensor data, bytes: a power of two from 8 to 2^24. Any but 32, the format's
  // default, is also written as general.alignment.
  explicit GgufWriter(uint32_t alignment = 32);

  void AddUint8(std::string_view key, uint8_t value);
  void AddInt8(std::string_view key, int8_t value);
  void AddUint16(std::string_view key, uint16_t value);
  void AddInt16(std::string_view key, int16_t value);
  void AddUint32(std::string_view key, uint32_t value);
  void AddInt32(std::string_view key, int32_t value);
  void AddUint64(std::string_view key, uint64_t value);
  void AddInt64(std::string_view key, int64_t value);
  void AddFloat32(std::string_view key, float value);
  void AddFloat64(std::string_view key, double value);
  void AddBool(std::string_view key, bool value);
  void AddString(std::string_view key, std::string_view value);
  void AddStringArray(std::string_view key, std::span<const std::string> values);
  void AddInt32Array(std::string_view key, std::span<const int32_t> values);
  void AddFloat32Array(std::string_view key, std::span<const float> values);
  // Copies a value of another file, whatever its type.
  void AddValue(std::string_view key, const GgufValue& value);
  // A value in its encoded form (GgufValue::encoded), which is written as it is.
  void AddEncoded(std::string_view key, GgufValueType type, std::span<const std::byte> encoded);

  // `data` must outlive the writing, and have as many bytes as the shape needs (innermost first).
  void AddTensor(std::string_view name, TensorType type, std::span<const uint64_t> shape,
                 std::span<const std::byte> data);
  void AddTensor(std::string_view name, TensorType type, std::initializer_list<uint64_t> shape,
                 std::span<const std::byte> data);
  // A tensor whose data `producer` gives when the file is written.
  void AddTensor(std::string_view name, TensorType type, std::span<const uint64_t> shape,
                 Producer producer);

  // The first error of an Add so far.
  const absl::Status& status() const { return status_; }

  // Bytes of the file that would be written.
  absl::StatusOr<uint64_t> FileBytes() const;
  // Writes the whole file to `sink`. INTERNAL when a producer gives more or fewer bytes than its
  // tensor has; else the first error of an Add, a producer or the sink.
  absl::Status Write(const Sink& sink) const;
  absl::StatusOr<std::vector<std::byte>> WriteBytes() const;
  // Writes beside `path` and renames, so that no half-written file is ever seen there.
  absl::Status WriteFile(const std::string& path) const;
  // As WriteFile, but tensor data are a hole that reads as zeros and takes no disk: for tests and
  // benchmarks of large shapes. Producers are not called.
  absl::Status WriteSparseFile(const std::string& path) const;

 private:
  struct Tensor {
    std::string name;
    TensorType type;
    std::vector<uint64_t> shape;
    uint64_t offset;
    uint64_t size;
    Producer producer;
  };

  void AddKey(std::string_view key, GgufValueType type);
  template <typename T>
  void AddScalar(std::string_view key, GgufValueType type, T value);
  template <typename T>
  void AddArray(std::string_view key, GgufValueType type, std::span<const T> values);
  absl::StatusOr<std::vector<std::byte>> Header() const;
  absl::Status WriteFileWith(const std::string& path, bool sparse) const;

  uint32_t alignment_;
  absl::Status status_;
  uint64_t entry_count_ = 0;
  std::vector<std::byte> metadata_;
  std::vector<Tensor> tensors_;
  uint64_t data_size_ = 0;
  std::set<std::string> keys_;
  std::set<std::string> tensor_names_;
};

}  // namespace reticle::models

#endif  // RETICLE_MODELS_GGUF_WRITER_H_
