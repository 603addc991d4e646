#include "backends/hardwired/rom/rom_writer.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/status.h"
#include "models/gguf_writer.h"

namespace reticle::backends::hardwired {
namespace {

// All keys but the alignment, which is that of another file.
absl::StatusOr<std::vector<std::byte>> CopyMetadata(const models::GgufFile& source) {
  models::GgufWriter writer;
  for (const std::string_view key : source.Keys()) {
    if (key == "general.alignment") continue;
    ASSIGN_OR_RETURN(const models::GgufValue value, source.Get(key));
    writer.AddValue(key, value);
  }
  return writer.WriteBytes();
}

}  // namespace

absl::StatusOr<std::unique_ptr<RomWriter>> RomWriter::Create(const std::string& path,
                                                             const models::GgufFile& source,
                                                             const Options& options) {
  RETURN_IF_ERROR(options.config.Validate());
  RETURN_IF_ERROR(CheckRomShape(options.config));
  const std::vector<RomTensorShape> shapes = RomTensors(options.config);
  RETICLE_CHECK(shapes.size() == options.encodings.size());
  std::unique_ptr<RomWriter> writer(new RomWriter());
  ASSIGN_OR_RETURN(writer->metadata_and_table_, CopyMetadata(source));

  RomHeader& header = writer->header_;
  std::memcpy(header.magic, kRomMagic.data(), kRomMagic.size());
  header.version = kRomVersion;
  header.header_bytes = sizeof(RomHeader);
  header.metadata_bytes = writer->metadata_and_table_.size();
  header.table_offset = AlignRom(sizeof(RomHeader) + header.metadata_bytes);
  header.tensor_count = static_cast<uint32_t>(shapes.size());
  header.data_offset = AlignRom(header.table_offset + shapes.size() * sizeof(RomTensorRecord));
  header.source_hash = options.source_hash;
  if (options.types.size() >= sizeof(header.types)) {
    return InvalidArgumentError("types has %d bytes; at most %d fit", options.types.size(),
                                sizeof(header.types) - 1);
  }
  std::memcpy(header.types, options.types.data(), options.types.size());
  SetConfig(options.config, header);

  uint64_t offset = 0;
  writer->metadata_and_table_.resize(header.data_offset - sizeof(RomHeader));
  std::byte* at = writer->metadata_and_table_.data() + (header.table_offset - sizeof(RomHeader));
  for (size_t i = 0; i < shapes.size(); ++i) {
    RETICLE_CHECK(shapes[i].is_matrix == (options.encodings[i] != RomEncoding::kFloat32));
    RomTensorRecord record{};
    RETICLE_CHECK(shapes[i].name.size() < sizeof(record.name));
    std::memcpy(record.name, shapes[i].name.data(), shapes[i].name.size());
    record.encoding = options.encodings[i];
    record.rows = shapes[i].rows;
    record.columns = shapes[i].columns;
    record.offset = offset;
    record.bytes = RomTensorBytes(shapes[i], options.encodings[i]);
    std::memcpy(at + i * sizeof(record), &record, sizeof(record));
    writer->tensor_bytes_.push_back(record.bytes);
    offset = AlignRom(offset + record.bytes);
  }
  header.file_bytes = header.data_offset + offset;

  writer->path_ = path;
  writer->temporary_path_ = absl::StrFormat("%s.%d.partial", path, getpid());
  writer->file_ = std::fopen(writer->temporary_path_.c_str(), "wbx");
  if (writer->file_ == nullptr) {
    return InternalError("cannot write '%s': %s", writer->temporary_path_, std::strerror(errno));
  }
  RETURN_IF_ERROR(writer->Append(std::as_bytes(std::span(&header, 1))));
  RETURN_IF_ERROR(writer->Append(writer->metadata_and_table_));
  return writer;
}

RomWriter::~RomWriter() {
  if (file_ == nullptr) return;
  std::fclose(file_);
  std::remove(temporary_path_.c_str());
}

absl::Status RomWriter::Append(std::span<const std::byte> bytes) {
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_) == bytes.size()) return absl::OkStatus();
  return InternalError("cannot write '%s': %s", temporary_path_, std::strerror(errno));
}

absl::Status RomWriter::Write(std::span<const std::byte> data) {
  RETICLE_CHECK(next_ < tensor_bytes_.size());
  RETICLE_CHECK(data.size() == tensor_bytes_[next_]);
  ++next_;
  constexpr std::byte kZeros[kRomAlignment] = {};
  const auto gap = std::span(kZeros).first(AlignRom(data.size()) - data.size());
  data_sha_.Add(data);
  data_sha_.Add(gap);
  RETURN_IF_ERROR(Append(data));
  return Append(gap);
}

absl::StatusOr<std::string> RomWriter::Finish() {
  RETICLE_CHECK(next_ == tensor_bytes_.size());
  header_.data_seal = data_sha_.Finish();
  Sha256 sha;
  sha.Add(std::as_bytes(std::span(&header_, 1)));
  sha.Add(metadata_and_table_);
  header_.seal = sha.Finish();
  if (std::fseek(file_, 0, SEEK_SET) != 0) {
    return InternalError("cannot seek in '%s': %s", temporary_path_, std::strerror(errno));
  }
  RETURN_IF_ERROR(Append(std::as_bytes(std::span(&header_, 1))));
  const bool synced = std::fflush(file_) == 0 && fsync(fileno(file_)) == 0;
  if (!synced || std::fclose(std::exchange(file_, nullptr)) != 0 ||
      std::rename(temporary_path_.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    std::remove(temporary_path_.c_str());
    if (file_ != nullptr) std::fclose(std::exchange(file_, nullptr));
    return InternalError("cannot finish '%s': %s", path_, std::strerror(error));
  }
  return HexOf(header_.seal);
}

}  // namespace reticle::backends::hardwired
