#include "backends/hardwired/etched/spread_matrix.h"

namespace reticle::backends::hardwired {
namespace {

using kernels::kPanelRows;
using kernels::PackedFormat;
using kernels::PackedGroup;
using kernels::PackedMatrix;

size_t VectorsOf(PackedFormat format) {
  switch (format) {
    case PackedFormat::kThreeBit:
      return kSpreadThreeBits;
    case PackedFormat::kSixBit:
      return kSpreadSixBits;
    default:
      return 0;
  }
}

size_t PanelBytes(const PackedMatrix& matrix) {
  return matrix.columns / 32 * VectorsOf(matrix.format) * kPanelRows * 4;
}

}  // namespace

size_t SpreadBytes(const PackedMatrix& matrix) { return matrix.panels * PanelBytes(matrix); }

PackedMatrix SpreadMatrix(const PackedMatrix& matrix, std::byte* memory) {
  PackedMatrix spread = matrix;
  spread.values = memory;
  spread.values_stride = PanelBytes(matrix);
  const size_t vectors = VectorsOf(matrix.format);
  const int offset = kernels::QuantOffset(matrix.format);
  for (size_t row = 0; row < matrix.rows; ++row) {
    std::byte* const panel = memory + row / kPanelRows * spread.values_stride;
    for (size_t group = 0; group < matrix.columns / 32; ++group) {
      const PackedGroup codes = kernels::GetGroup(matrix, row, group);
      for (size_t i = 0; i < 32; ++i) {
        const size_t vector = group * vectors + i / 4 % vectors;
        const int shift = i / 4 < vectors ? 0 : 3;
        panel[(vector * kPanelRows + row % kPanelRows) * 4 + i % 4] |=
            static_cast<std::byte>((codes.quants[i] + offset) << shift);
      }
    }
  }
  return spread;
}

}  // namespace reticle::backends::hardwired
