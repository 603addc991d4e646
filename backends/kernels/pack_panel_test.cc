#include "backends/kernels/pack_panel.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "models/quantization.h"

namespace reticle::backends::kernels {
namespace {

using models::TensorType;

constexpr size_t kColumns = 768;
constexpr TensorType kQuick[] = {TensorType::kQ8_0, TensorType::kQ4_0, TensorType::kQ4_1,
                                 TensorType::kQ5_0, TensorType::kQ5_1, TensorType::kQ4_K,
                                 TensorType::kQ5_K, TensorType::kQ6_K};

// The byte of a block that holds the exponent of its scale.
size_t ScaleByte(TensorType type) { return type == TensorType::kQ6_K ? 209 : 1; }

// Random blocks, all of whose scales are finite.
std::vector<std::byte> RandomRows(TensorType type, size_t rows) {
  const models::TensorTypeTraits traits = models::Traits(type);
  std::vector<std::byte> bytes(rows * kColumns / traits.elements * traits.bytes);
  std::mt19937 random(7);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  for (size_t at = 0; at < bytes.size(); at += traits.bytes) {
    for (const size_t half : {size_t{3}, ScaleByte(type)}) bytes[at + half] &= std::byte{0xbb};
  }
  return bytes;
}

struct Packed {
  Packed(TensorType type, size_t rows)
      : memory(PackedBytes(FormatOf(type), rows, kColumns) + 64),
        matrix(LayOutMatrix(FormatOf(type), rows, kColumns, Aligned())) {}
  std::byte* Aligned() {
    return memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
  }
  std::vector<std::byte> memory;
  PackedMatrix matrix;
};

TEST(PackPanelTest, WholePanelsAreThoseThatArePackedRowByRow) {
  for (const TensorType type : kQuick) {
    SCOPED_TRACE(models::TensorTypeName(type));
    const std::vector<std::byte> rows = RandomRows(type, 2 * kPanelRows);
    // A panel that is not whole goes row by row: each of 15 rows, and the last as another's first.
    Packed quick(type, 2 * kPanelRows), slow(type, 2 * kPanelRows - 1);
    ASSERT_FALSE(PackPanels(type, rows.data(), 0, 2, quick.matrix).has_value());
    ASSERT_FALSE(PackPanels(type, rows.data(), 0, 2, slow.matrix).has_value());
    const size_t lanes = kPanelRows - 1;
    // [count][kPanelRows] cells of `cell` bytes, of both.
    const auto compare = [&](const std::byte* a, const std::byte* b, size_t count, size_t cell) {
      for (size_t i = 0; i < count; ++i) {
        const size_t at = i * kPanelRows * cell;
        ASSERT_EQ(std::memcmp(a + at, b + at, cell * lanes), 0) << "cells " << i;
      }
    };
    const PackedFormat format = quick.matrix.format;
    const std::byte* a = quick.matrix.values + quick.matrix.values_stride;
    const std::byte* b = slow.matrix.values + slow.matrix.values_stride;
    const UnitLayout unit = UnitOf(format);
    for (size_t group = 0; group < kColumns / 32; group += unit.groups) {
      const size_t groups = std::min(unit.groups, kColumns / 32 - group);
      const bool super = IsSuper(format);
      if (super) compare(a, b, HasMin(format) ? 2 : 1, 2);
      const size_t cells = groups * (format == PackedFormat::kSixBit16 ? 2 : 1);
      compare(a + unit.scales, b + unit.scales, cells, super ? 1 : 2);
      if (HasMin(format)) compare(a + unit.mins, b + unit.mins, groups, super ? 1 : 2);
      compare(a + unit.quants, b + unit.quants, groups * VectorsOfGroup(format), 4);
      a += unit.BytesOf(groups);
      b += unit.BytesOf(groups);
    }
  }
}

TEST(PackPanelTest, AScaleThatIsNotFiniteIsFoundInItsRow) {
  for (const TensorType type : kQuick) {
    const models::TensorTypeTraits traits = models::Traits(type);
    std::vector<std::byte> rows = RandomRows(type, 2 * kPanelRows);
    const size_t row_bytes = kColumns / traits.elements * traits.bytes;
    rows[21 * row_bytes + 2 * traits.bytes + ScaleByte(type)] |= std::byte{0x7c};
    Packed packed(type, 2 * kPanelRows);
    EXPECT_EQ(PackPanels(type, rows.data(), 0, 2, packed.matrix), 21u)
        << models::TensorTypeName(type);
  }
}

TEST(PackPanelTest, FloatsHaveNoQuickWay) {
  const std::vector<std::byte> rows(kPanelRows * kColumns * 2);
  Packed packed(TensorType::kF16, kPanelRows);
  EXPECT_FALSE(PackWholePanel(TensorType::kF16, rows.data(), 0, packed.matrix));
}

}  // namespace
}  // namespace reticle::backends::kernels
