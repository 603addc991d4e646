// A weight matrix as the kernels want it: 16 rows ("a panel") side by side, so that one vector
// holds the same columns of 16 rows and no sum ever crosses vector lanes. The result of a product
// is then the same for every vector width, batch and split between threads.
//
// Layout of a panel of R = 16 rows and K columns. Panels begin at multiples of 64 bytes; rows
// beyond the matrix are zero. kF32, kF16, kBF16: [K][R].
//
// Quants of a group of 32 columns (16 for kSixBit16 and kSixBit), one byte-vector [R][4] after the
// other; "columns 4v.." are four of them:
//   kInt8, kImageInt8  vector v holds columns 4v..
//   kNibbles           vector v holds columns 4v.. in the low nibbles, columns 16+4v.. in the high
//                      ones; unsigned
//   kFiveBit           four vectors as kNibbles has them, of the low four bits, then one of the
//                      fifth bits: bit j of its bytes belongs to columns 4j..
//   kSixBit            vector u of three holds columns 4u.. in bits 0 to 5, and bits 2u and 2u+1 of
//                      columns 12.. in bits 6 and 7
//   kThreeBit          vector u of three holds columns 4u.. in bits 0 to 2, columns 12+4u.. in bits
//                      3 to 5; bits 6 and 7 are the low two bits of columns 24.. (u = 0) and 28..
//                      (u = 2), and for u = 1 the third bits of both
// The variants of a format (kNibblesMin ..) share its quants.
//
// Scales and quants lie together in units (UnitLayout), so that a panel is one stream of memory:
//   plain blocks       64 columns a unit: scales [2][R] half, mins [2][R] half, quants. The last
//                      unit may be of 32 columns, the second row of its scales unused.
//   super-blocks       256 columns a unit: super_scales [R] half, super_mins [R] half, scales
//                      [8][R] int8, mins [8][R] uint8, quants. kSixBit16 has no mins, scales
//                      [16][R], and its quants begin at the next multiple of 64.
//
// Not so in device images (kImageInt8, kSixBit, kThreeBit): the quants of all panels come first,
// then their scales [K/32][R], half for kImageInt8 and int8 for the others, then the others'
// super_scales [K/256][R] half, where the last may be for fewer columns. Each panel's part begins
// at a multiple of 64.
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
  kImageInt8,        // the same, of device images
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

constexpr bool IsNibbles(PackedFormat format) {
  return format == PackedFormat::kNibbles || format == PackedFormat::kNibblesMin ||
         format == PackedFormat::kNibblesSuperMin;
}
constexpr bool IsFiveBit(PackedFormat format) {
  return format == PackedFormat::kFiveBit || format == PackedFormat::kFiveBitMin ||
         format == PackedFormat::kFiveBitSuperMin;
}
constexpr bool HasMin(PackedFormat format) {
  return format == PackedFormat::kFiveBitMin || format == PackedFormat::kFiveBitSuperMin ||
         format == PackedFormat::kNibblesMin || format == PackedFormat::kNibblesSuperMin;
}
// Whether 256 columns share a scale.
constexpr bool IsSuper(PackedFormat format) {
  return format == PackedFormat::kFiveBitSuperMin || format == PackedFormat::kSixBit16 ||
         format == PackedFormat::kNibblesSuperMin || format == PackedFormat::kSixBit ||
         format == PackedFormat::kThreeBit;
}
// Those of device images; the others may be packed from tensors.
constexpr bool IsImageFormat(PackedFormat format) {
  return format == PackedFormat::kImageInt8 || format == PackedFormat::kSixBit ||
         format == PackedFormat::kThreeBit;
}
constexpr bool HasUnits(PackedFormat format) {
  return !IsFloatFormat(format) && !IsImageFormat(format);
}

// Byte-vectors that hold the quants of 32 columns.
constexpr size_t VectorsOfGroup(PackedFormat format) {
  if (IsNibbles(format)) return 4;
  if (IsFiveBit(format)) return 5;
  switch (format) {
    case PackedFormat::kSixBit16:
    case PackedFormat::kSixBit:
      return 6;
    case PackedFormat::kThreeBit:
      return 3;
    default:
      return 8;
  }
}

// Where the parts of a unit begin, in bytes; super_scales begin at 0.
struct UnitLayout {
  size_t groups;  // of 32 columns
  size_t super_mins;
  size_t scales;
  size_t mins;
  size_t quants;
  size_t group_bytes;  // quants of 32 columns

  constexpr size_t bytes() const { return quants + groups * group_bytes; }
  // Where the unit of group `group` of a panel begins in it, and that group's quants.
  constexpr size_t UnitAt(size_t group) const { return group / groups * bytes(); }
  constexpr size_t QuantsAt(size_t group) const {
    return UnitAt(group) + quants + group % groups * group_bytes;
  }
  // Bytes of a panel of `count` groups.
  constexpr size_t BytesOf(size_t count) const {
    const size_t rest = count % groups;
    return count / groups * bytes() + (rest > 0 ? quants + rest * group_bytes : 0);
  }
};

// Of formats with units.
constexpr UnitLayout UnitOf(PackedFormat format) {
  constexpr size_t kRows = kPanelRows;
  UnitLayout unit = {};
  unit.group_bytes = VectorsOfGroup(format) * kRows * 4;
  if (IsSuper(format)) {
    unit.groups = 8;
    unit.super_mins = 2 * kRows;
    unit.scales = (HasMin(format) ? 4 : 2) * kRows;
    unit.mins = unit.scales + (format == PackedFormat::kSixBit16 ? 16 : 8) * kRows;
    unit.quants = (unit.mins + (HasMin(format) ? 8 : 0) * kRows + 63) / 64 * 64;
  } else {
    unit.groups = 2;
    unit.mins = 4 * kRows;
    unit.quants = (HasMin(format) ? 8 : 4) * kRows;
  }
  return unit;
}

// Views into one allocation. Movable; immutable once packed, so shared by all threads.
struct PackedMatrix {
  PackedFormat format = PackedFormat::kF32;
  size_t rows = 0;
  size_t columns = 0;
  size_t panels = 0;
  std::byte* values = nullptr;  // units, or quants or floats alone
  size_t values_stride = 0;     // bytes a panel, as the other strides
  // Of device images only.
  std::byte* scales = nullptr;
  size_t scales_stride = 0;
  std::byte* super_scales = nullptr;
  size_t super_stride = 0;

  size_t padded_rows() const { return panels * kPanelRows; }
};

// Bytes that a packed matrix takes.
size_t PackedBytes(PackedFormat format, size_t rows, size_t columns);

// Lays the arrays of a matrix of that format and shape into `memory` (PackedBytes long, at a
// multiple of 64); nothing is written, and what packs the weights expects zeros.
PackedMatrix LayOutMatrix(PackedFormat format, size_t rows, size_t columns, std::byte* memory);

// Packs panels first_panel .. end_panel-1 from the rows of a tensor as they lie in the file; the
// matrix has the format FormatOf(type).
// Different panels may be packed by different threads. Returns the first row that holds a weight or
// scale that is not finite, or nothing.
std::optional<size_t> PackPanels(models::TensorType type, const std::byte* tensor,
                                 size_t first_panel, size_t end_panel, const PackedMatrix& matrix);

// ==== Formats of device images ====

// 32 weights of one row. Value i is quants[i] * scale * sub_scale; kImageInt8 has sub_scale 1, the
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
