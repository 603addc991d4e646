#include "models/gguf.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/escaping.h"
#include "base/status.h"
#include "models/gguf_cursor.h"

namespace reticle::models {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF files are read in place");

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint32_t kDefaultAlignment = 32;
constexpr uint32_t kMinAlignment = 8;
constexpr uint32_t kMaxAlignment = 1u << 24;
constexpr uint64_t kMaxKeyBytes = 65535;
constexpr uint64_t kMaxTensorNameBytes = 64;
// The least that a metadata entry (key length, one byte, type, one byte) and a tensor's entry (name
// length, one byte, dimension count, one dimension, type, offset) take.
constexpr uint64_t kMinEntryBytes = 8 + 1 + 4 + 1;
constexpr uint64_t kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;
constexpr size_t kPieceBytes = 4u << 20;  // part of what an identity is: not to be changed
constexpr std::string_view kAlignmentKey = "general.alignment";

struct Entry {
  std::string_view key;
  uint64_t offset;
  GgufValue value;
};

absl::Status Prefix(const absl::Status& status, std::string_view what, std::string_view name) {
  return absl::Status(status.code(), absl::StrFormat("%s '%s' %s", what, QuoteForMessage(name),
                                                     std::string(status.message())));
}

absl::Status CheckName(std::string_view name, std::string_view what, uint64_t offset,
                       uint64_t limit) {
  if (name.empty() || name.size() > limit) {
    return InvalidArgumentError("%s at byte %d has %d bytes; it must have 1 to %d", what, offset,
                                name.size(), limit);
  }
  if (name.find('\0') != std::string_view::npos) {
    return InvalidArgumentError("%s '%s' at byte %d contains a NUL", what, QuoteForMessage(name),
                                offset);
  }
  return absl::OkStatus();
}

// The indices of `items` in the order of their names, for binary search; the position in `items` of
// a name that occurs twice is put into `duplicate`.
template <typename T, typename Name>
std::vector<uint32_t> SortByName(const std::vector<T>& items, const Name& name,
                                 std::optional<uint32_t>& duplicate) {
  std::vector<uint32_t> order(items.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<uint32_t>(i);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    const int compared = name(items[a]).compare(name(items[b]));
    return compared != 0 ? compared < 0 : a < b;
  });
  for (size_t i = 1; i < order.size(); ++i) {
    if (name(items[order[i]]) == name(items[order[i - 1]])) duplicate = order[i];
  }
  return order;
}

template <typename T, typename Name>
const T* FindByName(const std::vector<T>& items, const std::vector<uint32_t>& order,
                    const Name& name, std::string_view wanted) {
  const auto it = std::lower_bound(
      order.begin(), order.end(), wanted,
      [&](uint32_t index, std::string_view key) { return name(items[index]) < key; });
  if (it == order.end() || name(items[*it]) != wanted) return nullptr;
  return &items[*it];
}

std::string_view EntryName(const Entry& entry) { return entry.key; }
std::string_view TensorName(const GgufTensor& tensor) { return tensor.name; }

}  // namespace

std::string QuoteForMessage(std::string_view text) {
  constexpr size_t kLimit = 80;
  std::string quoted = absl::CHexEscape(std::string(text.substr(0, kLimit)));
  if (text.size() > kLimit) quoted += "...";
  return quoted;
}

uint64_t GgufTensor::elements() const {
  uint64_t product = 1;
  for (const uint64_t length : shape) product *= length;
  return product;
}

uint64_t GgufTensor::rows() const { return elements() / shape[0]; }

struct GgufFile::Impl {
  ~Impl() {
    if (map != nullptr) munmap(map, bytes.size());
  }

  absl::Status ParseHeader();
  absl::Status ParseMetadata(GgufCursor& cursor, uint64_t count);
  absl::Status ParseTensor(GgufCursor& cursor);
  absl::Status PlaceTensors();
  const Entry* FindEntry(std::string_view key) const {
    return FindByName(entries, entry_order, EntryName, key);
  }

  // madvise for the pages that lie wholly in `part`.
  void Advise(std::span<const std::byte> part, int advice) const {
    if (map == nullptr) return;
    static const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(part.data()) + page - 1) / page * page;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(part.data()) + part.size()) / page * page;
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, advice);
  }

  void* map = nullptr;
  std::span<const std::byte> bytes;
  uint32_t version = 0;
  uint32_t alignment = kDefaultAlignment;
  uint64_t data_offset = 0;
  std::vector<Entry> entries;
  std::vector<uint32_t> entry_order;
  std::vector<GgufTensor> tensors;
  std::vector<uint32_t> tensor_order;
  std::vector<uint64_t> tensor_sizes;
};

absl::Status GgufFile::Impl::ParseHeader() {
  GgufCursor cursor(bytes);
  ASSIGN_OR_RETURN(const uint32_t magic, cursor.Read<uint32_t>("magic"));
  if (magic != kMagic) {
    return InvalidArgumentError("magic at byte 0 is 0x%08x; a GGUF file starts with 0x%08x", magic,
                                kMagic);
  }
  ASSIGN_OR_RETURN(version, cursor.Read<uint32_t>("version"));
  if (version != 0 && (version & 0xffffu) == 0) {
    return UnimplementedError(
        "version at byte 4 is 0x%08x: the file is big-endian, which is not "
        "read",
        version);
  }
  if (version != 2 && version != 3) {
    return UnimplementedError("version at byte 4 is %d; 2 and 3 are read", version);
  }
  const uint64_t tensor_count_offset = cursor.offset();
  ASSIGN_OR_RETURN(const uint64_t tensor_count, cursor.ReadCount(kMinTensorBytes, "tensor count"));
  ASSIGN_OR_RETURN(const uint64_t entry_count, cursor.ReadCount(kMinEntryBytes, "metadata count"));
  if (tensor_count > UINT32_MAX || entry_count > UINT32_MAX) {
    return InvalidArgumentError(
        "counts at byte %d are %d tensors and %d metadata entries; the "
        "limit is %d",
        tensor_count_offset, tensor_count, entry_count, UINT32_MAX);
  }
  RETURN_IF_ERROR(ParseMetadata(cursor, entry_count));

  for (uint64_t i = 0; i < tensor_count; ++i) RETURN_IF_ERROR(ParseTensor(cursor));
  std::optional<uint32_t> duplicate;
  tensor_order = SortByName(tensors, TensorName, duplicate);
  if (duplicate.has_value()) {
    return InvalidArgumentError("tensor '%s' occurs twice; the second is number %d of the file",
                                QuoteForMessage(tensors[*duplicate].name), *duplicate + 1);
  }
  data_offset = (cursor.offset() + alignment - 1) / alignment * alignment;
  return PlaceTensors();
}

absl::Status GgufFile::Impl::ParseMetadata(GgufCursor& cursor, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t offset = cursor.offset();
    ASSIGN_OR_RETURN(const std::string_view key, cursor.ReadString("metadata key"));
    RETURN_IF_ERROR(CheckName(key, "metadata key", offset, kMaxKeyBytes));
    absl::StatusOr<uint32_t> type = cursor.Read<uint32_t>("value type");
    if (!type.ok()) return Prefix(type.status(), "metadata", key);
    absl::StatusOr<GgufValue> value = GgufValue::Parse(GgufValueType{*type}, cursor);
    if (!value.ok()) return Prefix(value.status(), "metadata", key);
    entries.push_back({key, offset, *value});
  }
  std::optional<uint32_t> duplicate;
  entry_order = SortByName(entries, EntryName, duplicate);
  if (duplicate.has_value()) {
    return InvalidArgumentError("metadata key '%s' at byte %d occurs twice",
                                QuoteForMessage(entries[*duplicate].key),
                                entries[*duplicate].offset);
  }
  if (const Entry* entry = FindEntry(kAlignmentKey); entry != nullptr) {
    absl::StatusOr<uint64_t> value = entry->value.AsUint();
    if (!value.ok()) return Prefix(value.status(), "metadata", kAlignmentKey);
    if (!std::has_single_bit(*value) || *value < kMinAlignment || *value > kMaxAlignment) {
      return InvalidArgumentError(
          "metadata '%s' at byte %d is %d; it must be a power of two from "
          "%d to %d",
          kAlignmentKey, entry->offset, *value, kMinAlignment, kMaxAlignment);
    }
    alignment = static_cast<uint32_t>(*value);
  }
  return absl::OkStatus();
}

absl::Status GgufFile::Impl::ParseTensor(GgufCursor& cursor) {
  const uint64_t offset = cursor.offset();
  GgufTensor tensor;
  ASSIGN_OR_RETURN(tensor.name, cursor.ReadString("tensor name"));
  RETURN_IF_ERROR(CheckName(tensor.name, "tensor name", offset, kMaxTensorNameBytes));
  absl::Status status = [&]() -> absl::Status {
    const uint64_t dimensions_offset = cursor.offset();
    ASSIGN_OR_RETURN(const uint32_t dimensions, cursor.Read<uint32_t>("dimension count"));
    if (dimensions == 0 || dimensions > kMaxTensorDimensions) {
      return InvalidArgumentError("has %d dimensions at byte %d; it must have 1 to %d", dimensions,
                                  dimensions_offset, kMaxTensorDimensions);
    }
    tensor.shape.resize(dimensions);
    for (uint64_t& length : tensor.shape) {
      ASSIGN_OR_RETURN(length, cursor.Read<uint64_t>("dimension"));
    }
    const uint64_t type_offset = cursor.offset();
    ASSIGN_OR_RETURN(const uint32_t type, cursor.Read<uint32_t>("tensor type"));
    if (!GetTensorTypeTraits(type).has_value()) {
      const std::string_view name = GgmlTypeName(type);
      return UnimplementedError("at byte %d is of type %s (%d), which is not read", type_offset,
                                name.empty() ? "unknown" : name, type);
    }
    tensor.type = TensorType{type};
    absl::StatusOr<uint64_t> size = TensorSizeBytes(tensor.type, tensor.shape);
    if (!size.ok()) {
      return InvalidArgumentError("at byte %d %s", offset, std::string(size.status().message()));
    }
    const uint64_t place_offset = cursor.offset();
    ASSIGN_OR_RETURN(tensor.file_offset, cursor.Read<uint64_t>("tensor offset"));
    if (tensor.file_offset % alignment != 0) {
      return InvalidArgumentError("has offset %d at byte %d, no multiple of the alignment %d",
                                  tensor.file_offset, place_offset, alignment);
    }
    tensor_sizes.push_back(*size);
    return absl::OkStatus();
  }();
  if (!status.ok()) return Prefix(status, "tensor", tensor.name);
  tensors.push_back(std::move(tensor));
  return absl::OkStatus();
}

absl::Status GgufFile::Impl::PlaceTensors() {
  const uint64_t available = bytes.size() > data_offset ? bytes.size() - data_offset : 0;
  std::vector<uint32_t> by_offset(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    GgufTensor& tensor = tensors[i];
    if (tensor.file_offset > available || tensor_sizes[i] > available - tensor.file_offset) {
      return DataLossError(
          "tensor '%s' needs %d bytes at offset %d of the data, which begin at "
          "byte %d; the file has %d bytes",
          QuoteForMessage(tensor.name), tensor_sizes[i], tensor.file_offset, data_offset,
          bytes.size());
    }
    tensor.file_offset += data_offset;
    tensor.data = bytes.subspan(tensor.file_offset, tensor_sizes[i]);
    by_offset[i] = static_cast<uint32_t>(i);
  }
  std::sort(by_offset.begin(), by_offset.end(), [&](uint32_t a, uint32_t b) {
    return tensors[a].file_offset < tensors[b].file_offset;
  });
  for (size_t i = 1; i < by_offset.size(); ++i) {
    const GgufTensor& before = tensors[by_offset[i - 1]];
    const GgufTensor& tensor = tensors[by_offset[i]];
    if (before.file_offset + before.data.size() > tensor.file_offset) {
      return InvalidArgumentError("tensor '%s' at byte %d overlaps '%s', which ends at byte %d",
                                  QuoteForMessage(tensor.name), tensor.file_offset,
                                  QuoteForMessage(before.name),
                                  before.file_offset + before.data.size());
    }
  }
  return absl::OkStatus();
}

GgufFile::GgufFile() : impl_(std::make_unique<Impl>()) {}
GgufFile::~GgufFile() = default;

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return NotFoundError("%s cannot be opened: %s", path, std::strerror(errno));
  struct stat info = {};
  const bool regular = fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
  if (!regular || info.st_size == 0) {
    close(fd);
    return InvalidArgumentError("%s is %s", path, regular ? "empty" : "no regular file");
  }
  const size_t size = static_cast<size_t>(info.st_size);
  void* map = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  const int map_error = errno;
  close(fd);
  if (map == MAP_FAILED) {
    return ResourceExhaustedError("%s cannot be mapped (%d bytes): %s", path, size,
                                  std::strerror(map_error));
  }
  std::unique_ptr<GgufFile> file(new GgufFile);
  file->impl_->map = map;
  file->impl_->bytes = std::span(static_cast<const std::byte*>(map), size);
  if (const absl::Status status = file->impl_->ParseHeader(); !status.ok()) {
    return absl::Status(status.code(),
                        absl::StrFormat("%s: %s", path, std::string(status.message())));
  }
  return file;
}

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Parse(std::span<const std::byte> bytes) {
  if (reinterpret_cast<uintptr_t>(bytes.data()) % kMinAlignment != 0) {
    return InvalidArgumentError(
        "the bytes of the file start at an address that is no multiple of "
        "%d",
        kMinAlignment);
  }
  std::unique_ptr<GgufFile> file(new GgufFile);
  file->impl_->bytes = bytes;
  RETURN_IF_ERROR(file->impl_->ParseHeader());
  return file;
}

uint32_t GgufFile::version() const { return impl_->version; }
uint64_t GgufFile::size_bytes() const { return impl_->bytes.size(); }
uint32_t GgufFile::alignment() const { return impl_->alignment; }
uint64_t GgufFile::data_offset() const { return impl_->data_offset; }

bool GgufFile::Has(std::string_view key) const { return impl_->FindEntry(key) != nullptr; }

absl::StatusOr<GgufValue> GgufFile::Get(std::string_view key) const {
  const Entry* entry = impl_->FindEntry(key);
  if (entry == nullptr) return NotFoundError("metadata '%s' is missing", QuoteForMessage(key));
  return entry->value;
}

absl::StatusOr<GgufValueType> GgufFile::TypeOf(std::string_view key) const {
  ASSIGN_OR_RETURN(const GgufValue value, Get(key));
  return value.type();
}

namespace {

template <typename T>
absl::StatusOr<T> GetAs(const GgufFile& file, std::string_view key,
                        absl::StatusOr<T> (GgufValue::*as)() const) {
  ASSIGN_OR_RETURN(const GgufValue value, file.Get(key));
  absl::StatusOr<T> converted = (value.*as)();
  if (!converted.ok()) return Prefix(converted.status(), "metadata", key);
  return converted;
}

}  // namespace

absl::StatusOr<uint64_t> GgufFile::GetUint(std::string_view key) const {
  return GetAs(*this, key, &GgufValue::AsUint);
}
absl::StatusOr<int64_t> GgufFile::GetInt(std::string_view key) const {
  return GetAs(*this, key, &GgufValue::AsInt);
}
absl::StatusOr<double> GgufFile::GetFloat(std::string_view key) const {
  return GetAs(*this, key, &GgufValue::AsFloat);
}
absl::StatusOr<bool> GgufFile::GetBool(std::string_view key) const {
  return GetAs(*this, key, &GgufValue::AsBool);
}
absl::StatusOr<std::string_view> GgufFile::GetString(std::string_view key) const {
  return GetAs(*this, key, &GgufValue::AsString);
}
absl::StatusOr<std::vector<std::string_view>> GgufFile::GetStringArray(std::string_view key) const {
  return GetAs(*this, key, &GgufValue::AsStringArray);
}
absl::StatusOr<std::vector<int64_t>> GgufFile::GetIntArray(std::string_view key) const {
  return GetAs(*this, key, &GgufValue::AsIntArray);
}
absl::StatusOr<std::vector<float>> GgufFile::GetFloatArray(std::string_view key) const {
  return GetAs(*this, key, &GgufValue::AsFloatArray);
}

std::vector<std::string_view> GgufFile::Keys() const {
  std::vector<std::string_view> keys;
  keys.reserve(impl_->entries.size());
  for (const Entry& entry : impl_->entries) keys.push_back(entry.key);
  return keys;
}

std::span<const GgufTensor> GgufFile::tensors() const { return impl_->tensors; }

const GgufTensor* GgufFile::FindTensor(std::string_view name) const {
  return FindByName(impl_->tensors, impl_->tensor_order, TensorName, name);
}

void GgufFile::ReleasePages() const { impl_->Advise(impl_->bytes, MADV_DONTNEED); }

void GgufFile::ReadOnce(std::span<const std::byte> part, absl::FunctionRef<void()> read) const {
  // Before Linux 5.14 the first call fails, and the pages come one by one.
  impl_->Advise(part, MADV_POPULATE_READ);
  read();
  impl_->Advise(part, MADV_DONTNEED);
}

std::string GgufFile::Identity(ParallelFor parallel_for) const {
  const std::span<const std::byte> bytes = impl_->bytes;
  std::vector<XXH128_canonical_t> digests((bytes.size() + kPieceBytes - 1) / kPieceBytes);
  parallel_for(digests.size(), [&](size_t i) {
    const size_t at = i * kPieceBytes;
    const auto piece = bytes.subspan(at, std::min(kPieceBytes, bytes.size() - at));
    ReadOnce(piece, [&] {
      XXH128_canonicalFromHash(&digests[i], XXH3_128bits(piece.data(), piece.size()));
    });
  });
  Sha256 sha;
  sha.Add(std::as_bytes(std::span(digests)));
  return HexOf(sha.Finish());
}

Sha256Digest GgufFile::FileSha256() const {
  const std::span<const std::byte> bytes = impl_->bytes;
  Sha256 sha;
  for (size_t at = 0; at < bytes.size(); at += kPieceBytes) {
    const auto piece = bytes.subspan(at, std::min(kPieceBytes, bytes.size() - at));
    ReadOnce(piece, [&] { sha.Add(piece); });
  }
  return sha.Finish();
}

}  // namespace reticle::models
