#include "backends/hardwired/etched/spread_matrix.h"

#include <cstring>

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

size_t CodeBytes(const PackedMatrix& matrix) {
  return matrix.columns / 32 * VectorsOf(matrix.format) * kPanelRows * 4;
}

size_t PanelBytes(const PackedMatrix& matrix) {
  const size_t codes = CodeBytes(matrix);
  if (codes == 0) return 0;
  return (codes + matrix.scales_stride + matrix.super_stride + 63) / 64 * 64;
}

}  // namespace

size_t SpreadBytes(const PackedMatrix& matrix) { return matrix.panels * PanelBytes(matrix); }

PackedMatrix SpreadMatrix(const PackedMatrix& matrix, std::byte* memory) {
  const size_t stride = PanelBytes(matrix);
  PackedMatrix spread = matrix;
  spread.values = memory;
  spread.scales = memory + CodeBytes(matrix);
  spread.super_scales = spread.scales + matrix.scales_stride;
  spread.values_stride = spread.scales_stride = spread.super_stride = stride;
  for (size_t p = 0; p < matrix.panels; ++p) {
    std::memcpy(spread.scales + p * stride, matrix.scales + p * matrix.scales_stride,
                matrix.scales_stride);
    std::memcpy(spread.super_scales + p * stride, matrix.super_scales + p * matrix.super_stride,
                matrix.super_stride);
  }
  const size_t vectors = VectorsOf(matrix.format);
  const int offset = kernels::QuantOffset(matrix.format);
  for (size_t row = 0; row < matrix.rows; ++row) {
    std::byte* const panel = memory + row / kPanelRows * stride;
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
