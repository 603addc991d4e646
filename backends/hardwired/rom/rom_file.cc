#include "backends/hardwired/rom/rom_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "base/status.h"
#include "models/rope.h"

namespace reticle::backends::hardwired {
namespace {

static_assert(std::endian::native == std::endian::little, "images are mapped as they are");

using kernels::ModelLayer;
using kernels::PackedMatrix;

// A file descriptor and a map of its file.
class FileMap {
 public:
  FileMap() = default;
  ~FileMap() {
    if (data_ != nullptr) munmap(data_, size_);
    if (fd_ >= 0) close(fd_);
  }
  FileMap(const FileMap&) = delete;
  FileMap& operator=(const FileMap&) = delete;

  absl::Status Open(const std::string& path) {
    fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd_ < 0) return NotFoundError("cannot open '%s': %s", path, std::strerror(errno));
    struct stat status = {};
    if (fstat(fd_, &status) != 0 || !S_ISREG(status.st_mode)) {
      return InvalidArgumentError("'%s' is no regular file", path);
    }
    size_ = static_cast<size_t>(status.st_size);
    if (size_ == 0) return DataLossError("'%s' is empty", path);
    void* const data = mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd_, 0);
    if (data == MAP_FAILED) return InternalError("cannot map '%s': %s", path, std::strerror(errno));
    data_ = data;
    return absl::OkStatus();
  }
  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(data_), size_}; }

 private:
  int fd_ = -1;
  void* data_ = nullptr;
  size_t size_ = 0;
};

absl::Status CheckMagic(std::span<const std::byte> bytes) {
  const std::string_view begin(reinterpret_cast<const char*>(bytes.data()),
                               std::min(bytes.size(), kRomMagic.size()));
  if (begin == kRomMagic) return absl::OkStatus();
  if (begin.starts_with("GGUF")) {
    return InvalidArgumentError(
        "this is a GGUF model, no device image; `reticle tapeout` makes an image of it");
  }
  if (kRomMagic.starts_with(begin)) {
    return DataLossError("truncated: %d bytes are left of a header of %d", bytes.size(),
                         sizeof(RomHeader));
  }
  return InvalidArgumentError("no device image: it begins with \"%s\" instead of \"%s\"",
                              absl::CHexEscape(std::string(begin)), kRomMagic);
}

// Where the parts must lie follows from their lengths.
absl::Status CheckLayout(const RomHeader& header, uint64_t file_bytes) {
  if (header.version != kRomVersion) {
    return UnimplementedError("image version is %d (byte 8); this program reads version %d",
                              header.version, kRomVersion);
  }
  if (header.header_bytes != sizeof(RomHeader)) {
    return DataLossError("header length is %d (byte 12); version %d has %d", header.header_bytes,
                         kRomVersion, sizeof(RomHeader));
  }
  if (header.file_bytes != file_bytes) {
    return DataLossError("%s: the file has %d bytes, its header says %d",
                         file_bytes < header.file_bytes ? "truncated" : "bytes were added",
                         file_bytes, header.file_bytes);
  }
  if (header.metadata_bytes > file_bytes ||
      header.table_offset != AlignRom(sizeof(RomHeader) + header.metadata_bytes)) {
    return DataLossError("metadata of %d bytes do not fit a table at byte %d of %d",
                         header.metadata_bytes, header.table_offset, file_bytes);
  }
  const uint64_t table_bytes = uint64_t{header.tensor_count} * sizeof(RomTensorRecord);
  if (header.data_offset != AlignRom(header.table_offset + table_bytes) ||
      header.data_offset > file_bytes) {
    return DataLossError("a table of %d tensors at byte %d does not fit data at byte %d of %d",
                         header.tensor_count, header.table_offset, header.data_offset, file_bytes);
  }
  return absl::OkStatus();
}

absl::Status CheckHeaderSeal(const RomHeader& header, std::span<const std::byte> bytes) {
  RomHeader unsealed = header;
  unsealed.seal = {};
  Sha256 sha;
  sha.Add(std::as_bytes(std::span(&unsealed, 1)));
  sha.Add(bytes.subspan(sizeof(RomHeader), header.data_offset - sizeof(RomHeader)));
  const Sha256Digest digest = sha.Finish();
  if (digest == header.seal) return absl::OkStatus();
  return DataLossError(
      "tampered: the seal over header, metadata and table (bytes 0 to %d) is %s, the header says "
      "%s",
      header.data_offset, HexOf(digest), HexOf(header.seal));
}

absl::Status CheckDataSeal(const RomHeader& header, std::span<const std::byte> bytes) {
  Sha256 sha;
  sha.Add(bytes.subspan(header.data_offset));
  const Sha256Digest digest = sha.Finish();
  if (digest == header.data_seal) return absl::OkStatus();
  return DataLossError(
      "tampered: the seal over the weights (bytes %d to %d) is %s, the header says %s",
      header.data_offset, header.file_bytes, HexOf(digest), HexOf(header.data_seal));
}

absl::StatusOr<std::vector<RomTensor>> ReadTable(const RomHeader& header,
                                                 const models::LlamaConfig& config,
                                                 std::span<const std::byte> bytes) {
  const std::vector<RomTensorShape> shapes = RomTensors(config);
  if (shapes.size() != header.tensor_count) {
    return DataLossError("the table has %d tensors; a model of this shape has %d",
                         header.tensor_count, shapes.size());
  }
  std::vector<RomTensor> tensors;
  uint64_t offset = 0;
  for (size_t i = 0; i < shapes.size(); ++i) {
    const uint64_t at = header.table_offset + i * sizeof(RomTensorRecord);
    RomTensorRecord record;
    std::memcpy(&record, bytes.data() + at, sizeof(record));
    const RomTensorShape& shape = shapes[i];
    const auto wrong = [&](std::string_view field) {
      return DataLossError("tensor %d ('%s', byte %d): its %s is not that of the model's shape", i,
                           shape.name, at, field);
    };
    if (std::string_view(record.name, strnlen(record.name, sizeof(record.name))) != shape.name) {
      return wrong("name");
    }
    if (record.rows != shape.rows || record.columns != shape.columns) return wrong("shape");
    if (shape.is_matrix != (record.encoding != RomEncoding::kFloat32) ||
        record.encoding > RomEncoding::kThreeBit) {
      return wrong("encoding");
    }
    if (record.bytes != RomTensorBytes(shape, record.encoding)) return wrong("length");
    if (record.offset != offset) return wrong("offset");
    if (record.bytes > bytes.size() - header.data_offset - offset) {
      return DataLossError("tensor %d ('%s', byte %d): %d bytes at offset %d reach beyond the file",
                           i, shape.name, at, record.bytes, offset);
    }
    tensors.push_back(
        {shape, record.encoding, bytes.subspan(header.data_offset + offset, record.bytes)});
    offset = AlignRom(offset + record.bytes);
    if (offset > bytes.size() - header.data_offset) {
      return DataLossError("tensor %d ('%s', byte %d): the file ends in the gap behind it", i,
                           shape.name, at);
    }
  }
  if (header.data_offset + offset != bytes.size()) {
    return DataLossError("the tensors end at byte %d, the file at byte %d",
                         header.data_offset + offset, bytes.size());
  }
  return tensors;
}

std::span<const float> FloatsOf(const RomTensor& tensor) {
  return {reinterpret_cast<const float*>(tensor.data.data()), tensor.data.size() / sizeof(float)};
}

PackedMatrix MatrixOf(const RomTensor& tensor) {
  // PackedMatrix has one type for what is packed and what is read; this map is never written.
  return kernels::LayOutMatrix(PackedFormatOf(tensor.encoding), tensor.shape.rows,
                               tensor.shape.columns, const_cast<std::byte*>(tensor.data.data()));
}

}  // namespace

struct RomFile::Impl {
  FileMap map;
  uint64_t size_bytes = 0;
  RomInfo info;
  std::unique_ptr<models::GgufFile> metadata;
  std::vector<RomTensor> tensors;

  absl::Status Read(std::span<const std::byte> bytes, bool verify_seal);
};

absl::Status RomFile::Impl::Read(std::span<const std::byte> bytes, bool verify_seal) {
  RETURN_IF_ERROR(CheckMagic(bytes));
  if (bytes.size() < sizeof(RomHeader)) {
    return DataLossError("truncated: %d bytes are left of a header of %d", bytes.size(),
                         sizeof(RomHeader));
  }
  RomHeader header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  RETURN_IF_ERROR(CheckLayout(header, bytes.size()));
  RETURN_IF_ERROR(CheckHeaderSeal(header, bytes));

  size_bytes = bytes.size();
  info.config = ConfigOf(header);
  RETURN_IF_ERROR(info.config.Validate());
  RETURN_IF_ERROR(CheckRomShape(info.config));
  ASSIGN_OR_RETURN(tensors, ReadTable(header, info.config, bytes));
  ASSIGN_OR_RETURN(
      metadata, models::GgufFile::Parse(bytes.subspan(sizeof(RomHeader), header.metadata_bytes)));
  if (verify_seal) RETURN_IF_ERROR(CheckDataSeal(header, bytes));

  if (metadata->Has("general.name")) {
    ASSIGN_OR_RETURN(info.model_name, metadata->GetString("general.name"));
    info.config.name = info.model_name;
  }
  info.image_hash = HexOf(header.seal);
  info.source_hash = HexOf(header.source_hash);
  info.types = std::string(header.types, strnlen(header.types, sizeof(header.types)));
  info.parameters = info.config.parameters();
  for (const RomTensor& tensor : tensors) info.weight_bytes += tensor.data.size();
  info.bits_per_weight =
      8.0 * static_cast<double>(info.weight_bytes) / static_cast<double>(info.parameters);
  return absl::OkStatus();
}

bool IsRomFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  char begin[8] = {};
  const ssize_t size = pread(fd, begin, sizeof(begin), 0);
  close(fd);
  return size == sizeof(begin) && std::string_view(begin, sizeof(begin)) == kRomMagic;
}

RomFile::RomFile() : impl_(std::make_unique<Impl>()) {}
RomFile::~RomFile() = default;

absl::StatusOr<std::unique_ptr<RomFile>> RomFile::Open(const std::string& path, bool verify_seal) {
  std::unique_ptr<RomFile> file(new RomFile());
  RETURN_IF_ERROR(file->impl_->map.Open(path));
  const absl::Status status = file->impl_->Read(file->impl_->map.bytes(), verify_seal);
  if (!status.ok()) {
    return absl::Status(status.code(),
                        absl::StrFormat("image '%s': %s", path, std::string(status.message())));
  }
  return file;
}

absl::StatusOr<std::unique_ptr<RomFile>> RomFile::Parse(std::span<const std::byte> bytes,
                                                        bool verify_seal) {
  std::unique_ptr<RomFile> file(new RomFile());
  RETURN_IF_ERROR(file->impl_->Read(bytes, verify_seal));
  return file;
}

const RomInfo& RomFile::info() const { return impl_->info; }
uint64_t RomFile::size_bytes() const { return impl_->size_bytes; }
const models::GgufFile& RomFile::metadata() const { return *impl_->metadata; }
std::span<const RomTensor> RomFile::tensors() const { return impl_->tensors; }

absl::StatusOr<std::unique_ptr<kernels::Model>> RomFile::MakeModel() const {
  kernels::Model::Parts parts;
  parts.config = impl_->info.config;
  auto next = impl_->tensors.begin();
  models::LlamaWeights rope{};
  models::GgufTensor factors{};
  if (parts.config.has_rope_factors) {
    factors.type = models::TensorType::kF32;
    factors.shape = {next->shape.columns};
    factors.data = next++->data;
    rope.rope_freqs = &factors;
  }
  ASSIGN_OR_RETURN(parts.rope_frequencies, models::RopeFrequencies(parts.config, rope));
  parts.embedding = MatrixOf(*next++);
  for (uint32_t i = 0; i < parts.config.layers; ++i) {
    ModelLayer& layer = parts.layers.emplace_back();
    layer.attn_norm = FloatsOf(*next++);
    for (PackedMatrix* matrix : {&layer.q, &layer.k, &layer.v, &layer.o}) {
      *matrix = MatrixOf(*next++);
    }
    layer.ffn_norm = FloatsOf(*next++);
    for (PackedMatrix* matrix : {&layer.gate, &layer.up, &layer.down}) *matrix = MatrixOf(*next++);
  }
  parts.output_norm = FloatsOf(*next++);
  parts.output = parts.config.tied_embeddings ? parts.embedding : MatrixOf(*next++);
  return kernels::Model::FromParts(std::move(parts));
}

absl::StatusOr<RomInfo> ReadRomInfo(const std::string& path, bool verify_seal) {
  ASSIGN_OR_RETURN(const std::unique_ptr<RomFile> file, RomFile::Open(path, verify_seal));
  return file->info();
}

}  // namespace reticle::backends::hardwired
