// A weight matrix as the kernels want it: 16 rows ("a panel") side by side, so that one vector
// holds the same columns of 16 rows and no sum ever crosses vector lanes. The result of a product
// is then the same for every vector width, batch and split between threads.
//
// Layout of panel p, R = 16 rows, K columns (all arrays begin at multiples of 64 bytes):
//   kF32, kF16, kBF16  values   [K][R]
//   kInt8              quants   [K/4][R][4] int8
//   kNibbles           quants   [K/32][4][R][4] bytes: columns 4v.. in the low nibbles of vector v,
//                               columns 16+4v.. in the high ones; unsigned
//   kFiveBit           [K/32][5][R][4] bytes: four vectors as kNibbles has them, of the low four
//                               bits, then one of the fifth bits: bit j of its bytes belongs to
//                               columns 4j..
//   kSixBit            [K/16][3][R][4] bytes: byte-vector u holds columns 4u.. in bits 0 to 5 and
//                               bits 2u and 2u+1 of columns 12.. in bits 6 and 7
//   kThreeBit          [K/32][3][R][4] bytes: byte-vector u holds columns 4u.. in bits 0 to 2 and
//                               columns 12+4u.. in bits 3 to 5; bits 6 and 7 hold the low two bits
//                               of columns 24.. (u = 0) and 28.. (u = 2), and for u = 1 the third
//                               bits of both
//   scales of plain blocks      scales [K/32][R] half, mins [K/32][R] half
//   scales of super-blocks      scales [K/group][R] int8, mins [K/32][R] uint8,
//                               super_scales [K/256][R] half, super_mins [K/256][R] half
// The variants of a format share its quants. kSixBit and kThreeBit have super-blocks without mins
// and a group of 32; their last super-block may be shorter than 256 columns. Rows beyond the matrix
// are zero.
#ifndef RETICLE_BACKENDS_KERNELS_PACKED_MATRIX_H_
#define RETICLE_BACKENDS_KERNELS_PACKED_MATRIX_H_

#include <cstddef>
#include <cstdint>
#include <optional>

#include "models/tensor_type.h"

namespace reticle::backends::kernels {

inline constexpr size_t kPanelRows = 16;

// How the quants of a type are stored and scaled; the kernels are instantiated for each.
enum class PackedFormat {
  kF32,
  kF16,
  kBF16,
  kInt8,             // Q8_0
  kFiveBit,          // Q5_0: offset 16
  kFiveBitMin,       // Q5_1
  kFiveBitSuperMin,  // Q5_K
  kSixBit16,         // Q6_K: offset 32, a scale for 16 columns
  kNibbles,          // Q4_0: offset 8
  kNibblesMin,       // Q4_1
  kNibblesSuperMin,  // Q4_K
  kSixBit,           // of device images; offset 32
  kThreeBit,         // of device images; offset 4
};

PackedFormat FormatOf(models::TensorType type);
// What the stored quants of a format are too large by.
constexpr int QuantOffset(PackedFormat format) {
  switch (format) {
    case PackedFormat::kNibbles:
      return 8;
    case PackedFormat::kFiveBit:
      return 16;
    case PackedFormat::kSixBit16:
    case PackedFormat::kSixBit:
      return 32;
    case PackedFormat::kThreeBit:
      return 4;
    default:
      return 0;
  }
}
constexpr bool IsFloatFormat(PackedFormat format) { return format <= PackedFormat::kBF16; }

// Views into one allocation. Movable; immutable once packed, so shared by all threads.
struct PackedMatrix {
  PackedFormat format = PackedFormat::kF32;
  size_t rows = 0;
  size_t columns = 0;
  size_t panels = 0;
  std::byte* values = nullptr;
  size_t values_stride = 0;  // bytes a panel, as the other strides
  std::byte* scales = nullptr;
  size_t scales_stride = 0;
  std::byte* mins = nullptr;
  size_t mins_stride = 0;
  std::byte* super_scales = nullptr;
  std::byte* super_mins = nullptr;
  size_t super_stride = 0;

  size_t padded_rows() const { return panels * kPanelRows; }
};

// Bytes that a packed matrix takes.
size_t PackedBytes(PackedFormat format, size_t rows, size_t columns);

// Lays the arrays of a matrix of that format and shape into `memory` (PackedBytes long, at a
// multiple of 64); nothing is written, and what packs the weights expects zeros.
PackedMatrix LayOutMatrix(PackedFormat format, size_t rows, size_t columns, std::byte* memory);

// Packs panels first_panel .. end_panel-1 from the rows of a tensor as they lie in the file.
// Different panels may be packed by different threads. Returns the first row that holds a weight or
// scale that is not finite, or nothing.
std::optional<size_t> PackPanels(models::TensorType type, const std::byte* tensor,
                                 size_t first_panel, size_t end_panel, const PackedMatrix& matrix);

// ==== Formats of device images: kInt8, kSixBit, kThreeBit ====

constexpr bool IsImageFormat(PackedFormat format) {
  return format == PackedFormat::kInt8 || format == PackedFormat::kSixBit ||
         format == PackedFormat::kThreeBit;
}

// 32 weights of one row. Value i is quants[i] * scale * sub_scale; kInt8 has sub_scale 1, the
// others share the scale among 256 columns. kSixBit holds quants of -32..31, kThreeBit of -4..3.
struct PackedGroup {
  int8_t quants[32];
  uint16_t scale;  // half
  int8_t sub_scale;
};

// Writes group `group` (columns 32 * group ..) of row `row`, whose cells are still zero. Different
// panels may be written by different threads.
void PutGroup(const PackedMatrix& matrix, size_t row, size_t group, const PackedGroup& value);
PackedGroup GetGroup(const PackedMatrix& matrix, size_t row, size_t group);
// Writes the `columns` values of row `row` to `out`.
void UnpackRow(const PackedMatrix& matrix, size_t row, float* out);

}  // namespace reticle::backends::kernels

#endif  // RETICLE_BACKENDS_KERNELS_PACKED_MATRIX_H_
