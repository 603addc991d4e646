// The bytes of a device image, shared by its reader and writer. docs/tapeout.md describes them.
//
//   header     512 bytes
//   metadata   a GGUF file without tensors, at byte 512
//   table      one RomTensorRecord for each tensor, in the order of RomTensors
//   data       the tensors in that order, as the kernels use them
//
// Each part begins at a multiple of 64 bytes, each tensor too; gaps are zero. All numbers are
// little-endian. Nothing of this depends on when or where an image was made.
#ifndef RETICLE_BACKENDS_HARDWIRED_ROM_ROM_FORMAT_H_
#define RETICLE_BACKENDS_HARDWIRED_ROM_ROM_FORMAT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "backends/kernels/packed_matrix.h"
#include "models/llama_config.h"
#include "models/sha256.h"

namespace reticle::backends::hardwired {

inline constexpr std::string_view kRomMagic = "RETICROM";
inline constexpr uint32_t kRomVersion = 1;
inline constexpr size_t kRomAlignment = 64;

using models::HexOf;
using models::Sha256;
using models::Sha256Digest;

struct RomHeader {
  char magic[8];
  uint32_t version;
  uint32_t header_bytes;
  uint64_t file_bytes;
  uint64_t metadata_bytes;
  uint64_t table_offset;
  uint64_t data_offset;
  uint32_t tensor_count;
  uint32_t flags;          // kRom* below
  Sha256Digest data_seal;  // of the bytes from data_offset to the end
  Sha256Digest seal;       // of the bytes before data_offset, with this field zero: the identity
  Sha256Digest source_hash;
  char types[32];  // as asked for, padded with zeros
  // The model's shape, in the order of LlamaConfig.
  uint32_t vocab_size, dim, layers, heads, kv_heads, head_dim, ffn_dim, context_length;
  float norm_epsilon;
  uint32_t zero;
  double rope_base;
  double rope_linear_factor;
  uint8_t reserved[272];  // zero
};
static_assert(sizeof(RomHeader) == 512);

inline constexpr uint32_t kRomTiedEmbeddings = 1;
inline constexpr uint32_t kRomRopeFactors = 2;

// How a tensor's values are stored.
enum class RomEncoding : uint32_t {
  kFloat32 = 0,   // norms and rope factors
  kInt8 = 1,      // 8 bits and a half-precision scale for 32 columns
  kSixBit = 2,    // 6 bits, an 8-bit scale for 32 columns, a half-precision one for 256
  kThreeBit = 3,  // 3 bits, scales likewise
};

struct RomTensorRecord {
  char name[64];  // padded with zeros
  RomEncoding encoding;
  uint32_t zero;
  uint64_t rows;
  uint64_t columns;
  uint64_t offset;  // from data_offset
  uint64_t bytes;
};
static_assert(sizeof(RomTensorRecord) == 104);

std::string_view RomEncodingName(RomEncoding encoding);      // "3-bit", "f32", ...
kernels::PackedFormat PackedFormatOf(RomEncoding encoding);  // not for kFloat32

// A tensor that a model of some shape has.
struct RomTensorShape {
  std::string name;
  bool is_matrix = false;
  uint64_t rows = 0;
  uint64_t columns = 0;
};
// All of them, in the order of an image.
std::vector<RomTensorShape> RomTensors(const models::LlamaConfig& config);

// Bytes that a tensor takes in an image.
uint64_t RomTensorBytes(const RomTensorShape& shape, RomEncoding encoding);

// INVALID_ARGUMENT for a shape that no image can hold: rows of matrices must be whole groups of 32.
absl::Status CheckRomShape(const models::LlamaConfig& config);

// The config in a header, not validated, and the reverse.
models::LlamaConfig ConfigOf(const RomHeader& header);
void SetConfig(const models::LlamaConfig& config, RomHeader& header);

constexpr uint64_t AlignRom(uint64_t offset) {
  return (offset + kRomAlignment - 1) / kRomAlignment * kRomAlignment;
}

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_ROM_ROM_FORMAT_H_
