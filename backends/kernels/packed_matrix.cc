#include "backends/kernels/packed_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "backends/kernels/block_decode.h"
#include "backends/kernels/pack_panel.h"
#include "base/check.h"
#include "models/half.h"

namespace reticle::backends::kernels {
namespace {

using models::TensorType;

constexpr size_t kVectorBytes = 4 * kPanelRows;

constexpr size_t RoundUp(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

struct Strides {
  size_t values = 0;
  size_t scales = 0;
  size_t super = 0;
  size_t Total() const { return values + scales + super; }
};

Strides StridesOf(PackedFormat format, size_t columns) {
  constexpr size_t kRows = kPanelRows;
  const size_t groups = columns / 32;
  Strides strides;
  if (IsFloatFormat(format)) {
    const size_t bytes = format == PackedFormat::kF32 ? 4 : 2;
    strides.values = RoundUp(columns * kRows * bytes, 64);
  } else if (HasUnits(format)) {
    strides.values = UnitOf(format).BytesOf(groups);
  } else {
    strides.values = groups * VectorsOfGroup(format) * kVectorBytes;
    strides.scales = RoundUp(groups * kRows * (IsSuper(format) ? 1 : 2), 64);
    if (IsSuper(format)) {
      strides.super = RoundUp(RoundUp(columns, 256) / 256 * kRows * 2, 64);
    }
  }
  return strides;
}

// Returns false when an element's exponent, the bits of `exponent`, is all ones: infinite or NaN.
template <typename T>
bool PackFloatRow(const std::byte* row, size_t lane, size_t columns, T exponent, std::byte* panel) {
  T* out = reinterpret_cast<T*>(panel);
  bool finite = true;
  for (size_t k = 0; k < columns; ++k) {
    T bits;
    std::memcpy(&bits, row + k * sizeof(T), sizeof(T));
    finite &= (bits & exponent) != exponent;
    out[k * kPanelRows + lane] = bits;
  }
  return finite;
}

// The bytes of one lane's four columns in byte-vector `vector` of a group.
uint8_t* LaneBytes(uint8_t* group, size_t vector, size_t lane) {
  return group + vector * kVectorBytes + lane * 4;
}

// Writes 32 quants of a row into their group of a panel. `offset` makes them unsigned.
void PutQuants(PackedFormat format, const int8_t* quants, int offset, size_t lane, uint8_t* group) {
  const auto put = [&](size_t vector, size_t i, int bits) {
    LaneBytes(group, vector, lane)[i] = static_cast<uint8_t>(bits);
  };
  if (format == PackedFormat::kInt8 || format == PackedFormat::kImageInt8) {
    for (size_t v = 0; v < 8; ++v) std::memcpy(LaneBytes(group, v, lane), quants + 4 * v, 4);
    return;
  }
  const auto code = [&](size_t column) { return quants[column] + offset; };
  if (IsNibbles(format) || IsFiveBit(format)) {
    for (size_t i = 0; i < 16; ++i) put(i / 4, i % 4, (code(i) & 15) | (code(i + 16) & 15) << 4);
    if (IsNibbles(format)) return;
    for (size_t i = 0; i < 4; ++i) {
      int fifths = 0;
      for (size_t j = 0; j < 8; ++j) fifths |= code(4 * j + i) >> 4 << j;
      put(4, i, fifths);
    }
    return;
  }
  for (size_t i = 0; i < 4; ++i) {
    if (format == PackedFormat::kThreeBit) {
      put(0, i, code(i) | code(12 + i) << 3 | (code(24 + i) & 3) << 6);
      put(1, i, code(4 + i) | code(16 + i) << 3 | code(24 + i) >> 2 << 6 | code(28 + i) >> 2 << 7);
      put(2, i, code(8 + i) | code(20 + i) << 3 | (code(28 + i) & 3) << 6);
      continue;
    }
    for (size_t half = 0; half < 2; ++half) {
      const int rest = code(16 * half + 12 + i);
      for (size_t u = 0; u < 3; ++u) {
        put(3 * half + u, i, code(16 * half + 4 * u + i) | ((rest >> (2 * u)) & 3) << 6);
      }
    }
  }
}

struct Scale {
  uint16_t scale;  // halves
  uint16_t min;
};

// Writes the scales of group `g` of a unit at `unit`.
void PutScales(PackedFormat format, const Group32& group, Scale scale, size_t g, size_t lane,
               std::byte* unit) {
  const UnitLayout layout = UnitOf(format);
  const auto halves = [unit](size_t at) { return reinterpret_cast<uint16_t*>(unit + at); };
  const size_t cell = g * kPanelRows + lane;
  if (!IsSuper(format)) {
    halves(layout.scales)[cell] = scale.scale;
    if (HasMin(format)) halves(layout.mins)[cell] = scale.min;
    return;
  }
  auto* const scales = reinterpret_cast<int8_t*>(unit + layout.scales);
  if (format == PackedFormat::kSixBit16) {
    scales[2 * g * kPanelRows + lane] = group.sub_scale[0];
    scales[(2 * g + 1) * kPanelRows + lane] = group.sub_scale[1];
  } else {
    scales[cell] = group.sub_scale[0];
  }
  halves(0)[lane] = scale.scale;
  if (!HasMin(format)) return;
  reinterpret_cast<uint8_t*>(unit + layout.mins)[cell] = group.sub_min;
  halves(layout.super_mins)[lane] = scale.min;
}

bool PackQuantRow(TensorType type, const std::byte* row, size_t lane, size_t panel,
                  const PackedMatrix& m) {
  const UnitLayout layout = UnitOf(m.format);
  const int offset = QuantOffset(m.format);
  std::byte* const values = m.values + panel * m.values_stride;
  Group32 group;
  bool finite = true;
  for (size_t g = 0; g < m.columns / 32; ++g) {
    DecodeGroup(type, row, g, &group);
    finite &= std::isfinite(group.scale) && std::isfinite(group.min);
    const Scale scale = {models::FloatToHalf(group.scale), models::FloatToHalf(group.min)};
    PutScales(m.format, group, scale, g % layout.groups, lane, values + layout.UnitAt(g));
    PutQuants(m.format, group.quants, offset, lane,
              reinterpret_cast<uint8_t*>(values + layout.QuantsAt(g)));
  }
  return finite;
}

bool PackRow(TensorType type, const std::byte* row, size_t lane, size_t panel,
             const PackedMatrix& m) {
  std::byte* values = m.values + panel * m.values_stride;
  switch (m.format) {
    case PackedFormat::kF32:
      return PackFloatRow<uint32_t>(row, lane, m.columns, 0x7f800000u, values);
    case PackedFormat::kF16:
      return PackFloatRow<uint16_t>(row, lane, m.columns, 0x7c00u, values);
    case PackedFormat::kBF16:
      return PackFloatRow<uint16_t>(row, lane, m.columns, 0x7f80u, values);
    default:
      return PackQuantRow(type, row, lane, panel, m);
  }
}

}  // namespace

PackedFormat FormatOf(TensorType type) {
  switch (type) {
    case TensorType::kF32:
      return PackedFormat::kF32;
    case TensorType::kF16:
      return PackedFormat::kF16;
    case TensorType::kBF16:
      return PackedFormat::kBF16;
    case TensorType::kQ8_0:
      return PackedFormat::kInt8;
    case TensorType::kQ5_0:
      return PackedFormat::kFiveBit;
    case TensorType::kQ5_1:
      return PackedFormat::kFiveBitMin;
    case TensorType::kQ5_K:
      return PackedFormat::kFiveBitSuperMin;
    case TensorType::kQ6_K:
      return PackedFormat::kSixBit16;
    case TensorType::kQ4_0:
      return PackedFormat::kNibbles;
    case TensorType::kQ4_1:
      return PackedFormat::kNibblesMin;
    case TensorType::kQ4_K:
      return PackedFormat::kNibblesSuperMin;
  }
  RETICLE_CHECK(false);
  return PackedFormat::kF32;
}

size_t PackedBytes(PackedFormat format, size_t rows, size_t columns) {
  return RoundUp(rows, kPanelRows) / kPanelRows * StridesOf(format, columns).Total();
}

PackedMatrix LayOutMatrix(PackedFormat format, size_t rows, size_t columns, std::byte* memory) {
  PackedMatrix m;
  m.format = format;
  m.rows = rows;
  m.columns = columns;
  m.panels = RoundUp(rows, kPanelRows) / kPanelRows;
  const Strides strides = StridesOf(m.format, columns);
  m.values_stride = strides.values;
  m.scales_stride = strides.scales;
  m.super_stride = strides.super;
  m.values = memory;
  m.scales = m.values + m.panels * strides.values;
  m.super_scales = m.scales + m.panels * strides.scales;
  return m;
}

std::optional<size_t> PackPanels(TensorType type, const std::byte* tensor, size_t first_panel,
                                 size_t end_panel, const PackedMatrix& matrix) {
  RETICLE_CHECK(matrix.format == FormatOf(type));
  const models::TensorTypeTraits traits = models::Traits(type);
  const size_t row_bytes = matrix.columns / traits.elements * traits.bytes;
  std::optional<size_t> bad_row;
  for (size_t panel = first_panel; panel < end_panel; ++panel) {
    const size_t end_row = std::min(matrix.rows, (panel + 1) * kPanelRows);
    if (end_row == (panel + 1) * kPanelRows &&
        PackWholePanel(type, tensor + panel * kPanelRows * row_bytes, panel, matrix)) {
      continue;
    }
    for (size_t r = panel * kPanelRows; r < end_row; ++r) {
      const bool finite = PackRow(type, tensor + r * row_bytes, r % kPanelRows, panel, matrix);
      if (!finite && !bad_row.has_value()) bad_row = r;
    }
  }
  return bad_row;
}

namespace {

void GetPlanes(PackedFormat format, uint8_t* group, size_t lane, int8_t* quants) {
  for (size_t i = 0; i < 4; ++i) {
    const auto byte = [&](size_t vector) -> int { return LaneBytes(group, vector, lane)[i]; };
    if (format == PackedFormat::kSixBit) {
      const auto put = [&](size_t column, int code) {
        quants[column + i] = static_cast<int8_t>(code - 32);
      };
      for (size_t half = 0; half < 2; ++half) {
        const int a = byte(3 * half), b = byte(3 * half + 1), c = byte(3 * half + 2);
        put(16 * half, a & 63);
        put(16 * half + 4, b & 63);
        put(16 * half + 8, c & 63);
        put(16 * half + 12, a >> 6 | b >> 6 << 2 | c >> 6 << 4);
      }
    } else {
      const auto put = [&](size_t column, int code) {
        quants[column + i] = static_cast<int8_t>(code - 4);
      };
      const int a = byte(0), b = byte(1), c = byte(2);
      put(0, a & 7);
      put(4, b & 7);
      put(8, c & 7);
      put(12, a >> 3 & 7);
      put(16, b >> 3 & 7);
      put(20, c >> 3 & 7);
      put(24, a >> 6 | (b >> 6 & 1) << 2);
      put(28, c >> 6 | (b >> 7) << 2);
    }
  }
}

// Where group `group` of a row's panel begins.
uint8_t* GroupBytes(const PackedMatrix& m, size_t panel, size_t group) {
  const size_t bytes = VectorsOfGroup(m.format) * kVectorBytes;
  return reinterpret_cast<uint8_t*>(m.values + panel * m.values_stride) + group * bytes;
}

struct ScaleCells {
  uint16_t* scale;
  int8_t* sub_scale;  // null for kInt8
};

ScaleCells CellsOf(const PackedMatrix& m, size_t panel, size_t lane, size_t group) {
  std::byte* scales = m.scales + panel * m.scales_stride;
  const size_t cell = group * kPanelRows + lane;
  if (m.format == PackedFormat::kImageInt8) {
    return {reinterpret_cast<uint16_t*>(scales) + cell, nullptr};
  }
  uint16_t* super = reinterpret_cast<uint16_t*>(m.super_scales + panel * m.super_stride);
  return {super + group / 8 * kPanelRows + lane, reinterpret_cast<int8_t*>(scales) + cell};
}

}  // namespace

void PutGroup(const PackedMatrix& matrix, size_t row, size_t group, const PackedGroup& value) {
  const size_t panel = row / kPanelRows;
  const size_t lane = row % kPanelRows;
  uint8_t* bytes = GroupBytes(matrix, panel, group);
  PutQuants(matrix.format, value.quants, QuantOffset(matrix.format), lane, bytes);
  const ScaleCells cells = CellsOf(matrix, panel, lane, group);
  *cells.scale = value.scale;
  if (cells.sub_scale != nullptr) *cells.sub_scale = value.sub_scale;
}

PackedGroup GetGroup(const PackedMatrix& matrix, size_t row, size_t group) {
  const size_t panel = row / kPanelRows;
  const size_t lane = row % kPanelRows;
  PackedGroup value;
  uint8_t* bytes = GroupBytes(matrix, panel, group);
  if (matrix.format == PackedFormat::kImageInt8) {
    for (size_t v = 0; v < 8; ++v) std::memcpy(value.quants + 4 * v, LaneBytes(bytes, v, lane), 4);
  } else {
    GetPlanes(matrix.format, bytes, lane, value.quants);
  }
  const ScaleCells cells = CellsOf(matrix, panel, lane, group);
  value.scale = *cells.scale;
  value.sub_scale = cells.sub_scale != nullptr ? *cells.sub_scale : int8_t{1};
  return value;
}

void UnpackRow(const PackedMatrix& matrix, size_t row, float* out) {
  for (size_t g = 0; g < matrix.columns / 32; ++g) {
    const PackedGroup group = GetGroup(matrix, row, g);
    const float scale = models::HalfToFloat(group.scale) * static_cast<float>(group.sub_scale);
    for (size_t i = 0; i < 32; ++i) {
      // Adding zero is what the rows of a file go through (DecodeRow): no negative zeros.
      out[32 * g + i] = scale * static_cast<float>(group.quants[i]) + 0.0f;
    }
  }
}

}  // namespace reticle::backends::kernels
