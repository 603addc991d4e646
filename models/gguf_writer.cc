#include "models/gguf_writer.h"

#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <utility>

#include "base/status.h"
#include "models/gguf_cursor.h"

namespace reticle::models {
namespace {

constexpr uint32_t kDefaultAlignment = 32;

template <typename T>
void Append(std::vector<std::byte>& out, const T& value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

void AppendString(std::vector<std::byte>& out, std::string_view text) {
  Append(out, static_cast<uint64_t>(text.size()));
  const auto bytes = std::as_bytes(std::span(text));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

uint64_t AlignUp(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

absl::Status CheckName(std::string_view name, std::string_view what, size_t limit) {
  if (name.empty() || name.size() > limit || name.find('\0') != std::string_view::npos) {
    return InvalidArgumentError("%s '%s' has %d bytes; it must have 1 to %d and no NUL", what,
                                QuoteForMessage(name), name.size(), limit);
  }
  return absl::OkStatus();
}

absl::Status FileError(const std::string& path, std::string_view action) {
  return UnavailableError("%s cannot be %s: %s", path, action, std::strerror(errno));
}

}  // namespace

GgufWriter::GgufWriter(uint32_t alignment) : alignment_(alignment) {
  if (!std::has_single_bit(alignment) || alignment < 8 || alignment > (1u << 24)) {
    status_ = InvalidArgumentError("alignment is %d; it must be a power of two from 8 to %d",
                                   alignment, 1u << 24);
    alignment_ = kDefaultAlignment;
  }
  if (alignment_ != kDefaultAlignment) AddUint32("general.alignment", alignment_);
}

void GgufWriter::AddKey(std::string_view key, GgufValueType type) {
  status_.Update(CheckName(key, "metadata key", 65535));
  if (!keys_.insert(std::string(key)).second) {
    status_.Update(AlreadyExistsError("metadata key '%s' was added twice", QuoteForMessage(key)));
  }
  ++entry_count_;
  AppendString(metadata_, key);
  Append(metadata_, type);
}

template <typename T>
void GgufWriter::AddScalar(std::string_view key, GgufValueType type, T value) {
  AddKey(key, type);
  Append(metadata_, value);
}

template <typename T>
void GgufWriter::AddArray(std::string_view key, GgufValueType type, std::span<const T> values) {
  AddKey(key, GgufValueType::kArray);
  Append(metadata_, type);
  Append(metadata_, static_cast<uint64_t>(values.size()));
  const auto bytes = std::as_bytes(values);
  metadata_.insert(metadata_.end(), bytes.begin(), bytes.end());
}

void GgufWriter::AddUint8(std::string_view key, uint8_t value) {
  AddScalar(key, GgufValueType::kUint8, value);
}
void GgufWriter::AddInt8(std::string_view key, int8_t value) {
  AddScalar(key, GgufValueType::kInt8, value);
}
void GgufWriter::AddUint16(std::string_view key, uint16_t value) {
  AddScalar(key, GgufValueType::kUint16, value);
}
void GgufWriter::AddInt16(std::string_view key, int16_t value) {
  AddScalar(key, GgufValueType::kInt16, value);
}
void GgufWriter::AddUint32(std::string_view key, uint32_t value) {
  AddScalar(key, GgufValueType::kUint32, value);
}
void GgufWriter::AddInt32(std::string_view key, int32_t value) {
  AddScalar(key, GgufValueType::kInt32, value);
}
void GgufWriter::AddUint64(std::string_view key, uint64_t value) {
  AddScalar(key, GgufValueType::kUint64, value);
}
void GgufWriter::AddInt64(std::string_view key, int64_t value) {
  AddScalar(key, GgufValueType::kInt64, value);
}
void GgufWriter::AddFloat32(std::string_view key, float value) {
  AddScalar(key, GgufValueType::kFloat32, value);
}
void GgufWriter::AddFloat64(std::string_view key, double value) {
  AddScalar(key, GgufValueType::kFloat64, value);
}
void GgufWriter::AddBool(std::string_view key, bool value) {
  AddScalar(key, GgufValueType::kBool, static_cast<uint8_t>(value ? 1 : 0));
}
void GgufWriter::AddString(std::string_view key, std::string_view value) {
  AddKey(key, GgufValueType::kString);
  AppendString(metadata_, value);
}
void GgufWriter::AddStringArray(std::string_view key, std::span<const std::string> values) {
  AddKey(key, GgufValueType::kArray);
  Append(metadata_, GgufValueType::kString);
  Append(metadata_, static_cast<uint64_t>(values.size()));
  for (const std::string& value : values) AppendString(metadata_, value);
}
void GgufWriter::AddInt32Array(std::string_view key, std::span<const int32_t> values) {
  AddArray(key, GgufValueType::kInt32, values);
}
void GgufWriter::AddFloat32Array(std::string_view key, std::span<const float> values) {
  AddArray(key, GgufValueType::kFloat32, values);
}
void GgufWriter::AddValue(std::string_view key, const GgufValue& value) {
  AddEncoded(key, value.type(), value.encoded());
}
void GgufWriter::AddEncoded(std::string_view key, GgufValueType type,
                            std::span<const std::byte> encoded) {
  AddKey(key, type);
  metadata_.insert(metadata_.end(), encoded.begin(), encoded.end());
}

void GgufWriter::AddTensor(std::string_view name, TensorType type, std::span<const uint64_t> shape,
                           std::span<const std::byte> data) {
  AddTensor(name, type, shape, [data](const Sink& sink) { return sink(data); });
}

void GgufWriter::AddTensor(std::string_view name, TensorType type,
                           std::initializer_list<uint64_t> shape, std::span<const std::byte> data) {
  AddTensor(name, type, std::span(shape.begin(), shape.size()), data);
}

void GgufWriter::AddTensor(std::string_view name, TensorType type, std::span<const uint64_t> shape,
                           Producer producer) {
  status_.Update(CheckName(name, "tensor name", 64));
  if (!tensor_names_.insert(std::string(name)).second) {
    status_.Update(AlreadyExistsError("tensor '%s' was added twice", QuoteForMessage(name)));
  }
  absl::StatusOr<uint64_t> size = TensorSizeBytes(type, shape);
  if (!size.ok()) {
    status_.Update(InvalidArgumentError("tensor '%s' %s", QuoteForMessage(name),
                                        std::string(size.status().message())));
    return;
  }
  const uint64_t offset = AlignUp(data_size_, alignment_);
  tensors_.push_back({std::string(name), type, std::vector<uint64_t>(shape.begin(), shape.end()),
                      offset, *size, std::move(producer)});
  data_size_ = offset + *size;
}

absl::StatusOr<std::vector<std::byte>> GgufWriter::Header() const {
  RETURN_IF_ERROR(status_);
  std::vector<std::byte> header;
  Append(header, std::array{'G', 'G', 'U', 'F'});
  Append(header, uint32_t{3});
  Append(header, static_cast<uint64_t>(tensors_.size()));
  Append(header, entry_count_);
  header.insert(header.end(), metadata_.begin(), metadata_.end());
  for (const Tensor& tensor : tensors_) {
    AppendString(header, tensor.name);
    Append(header, static_cast<uint32_t>(tensor.shape.size()));
    for (const uint64_t length : tensor.shape) Append(header, length);
    Append(header, tensor.type);
    Append(header, tensor.offset);
  }
  header.resize(AlignUp(header.size(), alignment_));
  return header;
}

absl::StatusOr<uint64_t> GgufWriter::FileBytes() const {
  ASSIGN_OR_RETURN(const std::vector<std::byte> header, Header());
  return header.size() + AlignUp(data_size_, alignment_);
}

absl::Status GgufWriter::Write(const Sink& sink) const {
  ASSIGN_OR_RETURN(const std::vector<std::byte> header, Header());
  RETURN_IF_ERROR(sink(header));
  const std::vector<std::byte> padding(alignment_);
  for (const Tensor& tensor : tensors_) {
    uint64_t written = 0;
    RETURN_IF_ERROR(tensor.producer([&](std::span<const std::byte> piece) -> absl::Status {
      if (piece.size() > tensor.size - written) {
        return InternalError("tensor '%s' was given %d bytes and %d more; it has %d",
                             QuoteForMessage(tensor.name), written, piece.size(), tensor.size);
      }
      written += piece.size();
      return sink(piece);
    }));
    if (written != tensor.size) {
      return InternalError("tensor '%s' was given %d bytes; it has %d",
                           QuoteForMessage(tensor.name), written, tensor.size);
    }
    RETURN_IF_ERROR(sink(std::span(padding).first(AlignUp(written, alignment_) - written)));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::byte>> GgufWriter::WriteBytes() const {
  std::vector<std::byte> bytes;
  RETURN_IF_ERROR(Write([&bytes](std::span<const std::byte> piece) {
    bytes.insert(bytes.end(), piece.begin(), piece.end());
    return absl::OkStatus();
  }));
  return bytes;
}

absl::Status GgufWriter::WriteFile(const std::string& path) const {
  return WriteFileWith(path, false);
}

absl::Status GgufWriter::WriteSparseFile(const std::string& path) const {
  return WriteFileWith(path, true);
}

absl::Status GgufWriter::WriteFileWith(const std::string& path, bool sparse) const {
  const std::string partial = absl::StrFormat("%s.%d.partial", path, getpid());
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(partial.c_str(), "wb"),
                                                       &std::fclose);
  if (file == nullptr) return FileError(partial, "created");
  const Sink sink = [&](std::span<const std::byte> piece) -> absl::Status {
    if (std::fwrite(piece.data(), 1, piece.size(), file.get()) != piece.size()) {
      return FileError(partial, "written");
    }
    return absl::OkStatus();
  };
  absl::Status status = [&]() -> absl::Status {
    if (!sparse) return Write(sink);
    ASSIGN_OR_RETURN(const std::vector<std::byte> header, Header());
    RETURN_IF_ERROR(sink(header));
    ASSIGN_OR_RETURN(const uint64_t size, FileBytes());
    if (std::fflush(file.get()) != 0 ||
        ftruncate(fileno(file.get()), static_cast<off_t>(size)) != 0) {
      return FileError(partial, "extended");
    }
    return absl::OkStatus();
  }();
  if (std::fclose(file.release()) != 0) status.Update(FileError(partial, "closed"));
  if (status.ok() && std::rename(partial.c_str(), path.c_str()) != 0) {
    status = FileError(path, "replaced");
  }
  if (!status.ok()) std::remove(partial.c_str());
  return status;
}

}  // namespace reticle::models
