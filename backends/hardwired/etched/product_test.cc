// Products for constant row sizes give the bits of the generic ones, on every instruction set, from
// both layouts of the weights.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "backends/hardwired/etched/spread_matrix.h"
#include "backends/kernels/aligned_memory.h"
#include "backends/kernels/kernels.h"
#include "backends/kernels/packed_matrix.h"
#include "backends/kernels/targets.h"
#include "models/half.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/hardwired/etched/product_test.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// Highway's headers come after foreach_target.h.
#include "backends/hardwired/etched/product-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace reticle::backends::hardwired::HWY_NAMESPACE {

template <class F, bool kVnni>
void ProductAs(const kernels::PackedMatrix& w, bool spread, const kernels::QuantizedRows& x,
               float* out, bool add) {
  if (w.columns == 256) {
    if (spread) return SuperProduct<F, kVnni, Layout::kSpread, 256>(w, x, out, add);
    return SuperProduct<F, kVnni, Layout::kImage, 256>(w, x, out, add);
  }
  if (spread) return SuperProduct<F, kVnni, Layout::kSpread, 512>(w, x, out, add);
  SuperProduct<F, kVnni, Layout::kImage, 512>(w, x, out, add);
}

void ProductTarget(const kernels::PackedMatrix& w, bool spread, const kernels::QuantizedRows& x,
                   float* out, bool add, int vnni_bits) {
  using Three = k::Format<kernels::PackedFormat::kThreeBit>;
  using Six = k::Format<kernels::PackedFormat::kSixBit>;
  const bool three = w.format == kernels::PackedFormat::kThreeBit;
  if (k::UsesVnni(vnni_bits)) {
    if (three) return ProductAs<Three, true>(w, spread, x, out, add);
    return ProductAs<Six, true>(w, spread, x, out, add);
  }
  if (three) return ProductAs<Three, false>(w, spread, x, out, add);
  ProductAs<Six, false>(w, spread, x, out, add);
}

}  // namespace reticle::backends::hardwired::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace reticle::backends::hardwired {
namespace {

HWY_EXPORT(ProductTarget);

using kernels::AlignedMemory;
using kernels::PackedFormat;
using kernels::PackedMatrix;

// Two panels and a third that is not full.
constexpr size_t kRows = 40;
constexpr size_t kPaddedRows = 48;

enum class Kind { kRandom, kLargest };

// Activations, quantised.
struct Input {
  explicit Input(const std::vector<float>& x)
      : quants(x.size()),
        scales(x.size() / 32),
        scaled_sums(x.size() / 32),
        sums(x.size() / 32),
        half_sums(x.size() / 16),
        rows{x.size(),           quants.data(), scales.data(),
             scaled_sums.data(), sums.data(),   half_sums.data()} {
    kernels::QuantizeColumns(x.data(), 0, x.size(), 0, rows);
  }
  std::vector<int8_t> quants;
  std::vector<float> scales, scaled_sums;
  std::vector<int32_t> sums, half_sums;
  kernels::QuantizedRows rows;
};

class ProductTest : public testing::TestWithParam<PackedFormat> {
 protected:
  std::vector<float> MakeInput(size_t columns, Kind kind, bool positive) {
    std::uniform_real_distribution<float> values(-3.0f, 3.0f);
    std::vector<float> x(columns);
    for (float& value : x) {
      value = kind == Kind::kRandom ? values(random_) : (positive ? 1.5f : -1.5f);
    }
    return x;
  }

  // Of Kind::kLargest: rows of the smallest code, of the largest, and of both in turn.
  void Fill(const PackedMatrix& matrix, Kind kind) {
    const int offset = kernels::QuantOffset(matrix.format);
    for (size_t row = 0; row < kRows; ++row) {
      for (size_t group = 0; group < matrix.columns / 32; ++group) {
        kernels::PackedGroup codes;
        for (size_t i = 0; i < 32; ++i) {
          const bool low = row % 3 == 0 || (row % 3 == 1 && i % 2 == 0);
          const int code = kind == Kind::kRandom ? static_cast<int>(random_() % (2 * offset))
                                                 : (low ? 0 : 2 * offset - 1);
          codes.quants[i] = static_cast<int8_t>(code - offset);
        }
        const size_t block = group / 8;  // of 256 columns, which share a scale
        codes.scale = models::FloatToHalf(0.01f * static_cast<float>(row + block + 1));
        codes.sub_scale = static_cast<int8_t>(static_cast<int>(random_() % 255) - 127);
        kernels::PutGroup(matrix, row, group, codes);
      }
    }
  }

  std::mt19937 random_{7};
};

TEST_P(ProductTest, GivesTheBitsOfTheGenericOne) {
  for (const size_t columns : {256u, 512u}) {
    for (const Kind kind : {Kind::kRandom, Kind::kLargest}) {
      const AlignedMemory memory =
          AlignedMemory::Allocate(kernels::PackedBytes(GetParam(), kRows, columns)).value();
      const PackedMatrix image = kernels::LayOutMatrix(GetParam(), kRows, columns, memory.data());
      Fill(image, kind);
      const AlignedMemory codes = AlignedMemory::Allocate(SpreadBytes(image)).value();
      const PackedMatrix spread = SpreadMatrix(image, codes.data());
      for (const kernels::Target& target : kernels::SupportedTargets()) {
        const kernels::ScopedTarget scoped(target);
        for (const bool positive : {false, true}) {
          const Input input(MakeInput(columns, kind, positive));
          for (const bool add : {false, true}) {
            std::vector<float> want(kPaddedRows, 0.25f), got(kPaddedRows);
            kernels::MatMul(image, 0, image.panels, {.quantized = input.rows}, 1, want.data(),
                            kPaddedRows, add);
            for (const bool is_spread : {false, true}) {
              std::fill(got.begin(), got.end(), 0.25f);
              HWY_DYNAMIC_DISPATCH(ProductTarget)
              (is_spread ? spread : image, is_spread, input.rows, got.data(), add,
               kernels::VnniBits());
              ASSERT_EQ(got, want) << "target " << target.highway << " vnni " << target.vnni
                                   << " columns " << columns << " spread " << is_spread;
            }
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, ProductTest,
                         testing::Values(PackedFormat::kThreeBit, PackedFormat::kSixBit),
                         [](const auto& info) -> std::string {
                           return info.param == PackedFormat::kThreeBit ? "ThreeBits" : "SixBits";
                         });

TEST(SpreadMatrixTest, LeavesOtherFormatsAlone) {
  PackedMatrix matrix;
  matrix.format = PackedFormat::kImageInt8;
  matrix.columns = 256;
  matrix.panels = 2;
  EXPECT_EQ(SpreadBytes(matrix), 0u);
}

}  // namespace
}  // namespace reticle::backends::hardwired

#endif  // HWY_ONCE
