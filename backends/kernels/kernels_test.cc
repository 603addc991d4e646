// The kernels on every instruction set against plain double arithmetic, extreme values included.
#include "backends/kernels/kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "backends/kernels/block_decode.h"
#include "backends/kernels/packed_matrix.h"
#include "backends/kernels/targets.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/half.h"

namespace reticle::backends::kernels {
namespace {

using models::TensorType;

constexpr TensorType kTypes[] = {TensorType::kF32,  TensorType::kF16,  TensorType::kBF16,
                                 TensorType::kQ8_0, TensorType::kQ4_0, TensorType::kQ4_1,
                                 TensorType::kQ5_0, TensorType::kQ5_1, TensorType::kQ4_K,
                                 TensorType::kQ5_K, TensorType::kQ6_K};

// Rows of random blocks, all bits of the quants at random or all ones, with small finite scales.
std::vector<std::byte> RandomRows(TensorType type, size_t rows, size_t columns, bool extreme) {
  std::mt19937 random(static_cast<uint32_t>(type) + 77);
  const models::TensorTypeTraits traits = models::Traits(type);
  std::vector<std::byte> bytes(rows * columns / traits.elements * traits.bytes);
  if (traits.elements == 1) {
    std::uniform_real_distribution<float> value(-1.0f, 1.0f);
    for (size_t i = 0; i < bytes.size(); i += traits.bytes) {
      const float x = value(random);
      const uint16_t half =
          type == TensorType::kF16 ? models::FloatToHalf(x) : models::FloatToBfloat16(x);
      if (type == TensorType::kF32) {
        std::memcpy(&bytes[i], &x, 4);
      } else {
        std::memcpy(&bytes[i], &half, 2);
      }
    }
    return bytes;
  }
  // As signed bytes 0x80 is -128, the most that a product of pairs can meet.
  for (std::byte& byte : bytes) {
    byte = static_cast<std::byte>(extreme ? (type == TensorType::kQ8_0 ? 0x80 : 0xff) : random());
  }
  const uint16_t scale = models::FloatToHalf(0.0625f);
  const uint16_t min = models::FloatToHalf(-0.5f);
  const bool has_min = type == TensorType::kQ4_1 || type == TensorType::kQ5_1 ||
                       type == TensorType::kQ4_K || type == TensorType::kQ5_K;
  for (size_t i = 0; i < bytes.size(); i += traits.bytes) {
    std::memcpy(&bytes[i + (type == TensorType::kQ6_K ? 208 : 0)], &scale, 2);
    if (has_min) std::memcpy(&bytes[i + 2], &min, 2);
  }
  return bytes;
}

struct Inputs {
  Inputs(const Inputs&) = delete;
  Inputs& operator=(const Inputs&) = delete;
  Inputs(Inputs&&) = default;  // vectors keep their memory
  Inputs(size_t tokens, size_t columns, bool extreme) : floats(tokens * columns) {
    std::mt19937 random(5);
    std::normal_distribution<float> value;
    for (float& x : floats) x = extreme ? -3.0f : value(random);
    quants.resize(tokens * columns);
    scales.resize(tokens * columns / 32);
    scaled_sums.resize(scales.size());
    sums.resize(scales.size());
    half_sums.resize(2 * scales.size());
    view.floats = floats.data();
    view.float_stride = columns;
    view.quantized = {columns,     quants.data(),   scales.data(), scaled_sums.data(),
                      sums.data(), half_sums.data()};
    if (NeedsWideQuants()) {
      wide.resize(quants.size());
      view.quantized.wide = wide.data();
    }
    if (columns % 32 != 0) return;
    for (size_t t = 0; t < tokens; ++t) {
      QuantizeColumns(floats.data() + t * columns, 0, columns, t, view.quantized);
    }
  }
  // The inputs of one token.
  Inputs Token(size_t t) const {
    Inputs one(1, view.float_stride, false);
    const size_t columns = view.float_stride;
    std::copy_n(&floats[t * columns], columns, one.floats.begin());
    QuantizeColumns(one.floats.data(), 0, columns, 0, one.view.quantized);
    return one;
  }
  // What the kernels see of a value.
  double At(size_t t, size_t k, bool quantized) const {
    const size_t i = t * view.float_stride + k;
    return quantized ? double{scales[i / 32]} * quants[i] : double{floats[i]};
  }

  std::vector<float> floats;
  std::vector<int8_t> quants;
  std::vector<float> scales, scaled_sums;
  std::vector<int32_t> sums, half_sums;
  std::vector<int16_t> wide;
  Activations view;
};

void CheckMatMul(TensorType type, size_t rows, size_t columns, size_t tokens, bool extreme) {
  const std::vector<std::byte> bytes = RandomRows(type, rows, columns, extreme);
  std::vector<std::byte> memory(PackedBytes(FormatOf(type), rows, columns) + 64);
  std::byte* aligned = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
  const PackedMatrix matrix = LayOutMatrix(FormatOf(type), rows, columns, aligned);
  ASSERT_EQ(PackPanels(type, bytes.data(), 0, matrix.panels, matrix), std::nullopt);
  const Inputs inputs(tokens, columns, extreme);
  const size_t stride = matrix.padded_rows();
  std::vector<float> out(tokens * stride, 1.0f);
  MatMul(matrix, 0, matrix.panels, inputs.view, tokens, out.data(), stride, true);

  const models::TensorTypeTraits traits = models::Traits(type);
  const size_t row_bytes = columns / traits.elements * traits.bytes;
  std::vector<float> row(columns);
  for (size_t r = 0; r < rows; ++r) {
    DecodeRow(type, bytes.data() + r * row_bytes, columns, row.data());
    for (size_t t = 0; t < tokens; ++t) {
      double sum = 1.0, size = 1.0;
      for (size_t k = 0; k < columns; ++k) {
        const double product = row[k] * inputs.At(t, k, !IsFloatFormat(matrix.format));
        sum += product;
        size += std::abs(product);
      }
      ASSERT_NEAR(out[t * stride + r], sum, 2e-6 * size)
          << KernelTarget() << " " << models::TensorTypeName(type) << " row " << r << " token "
          << t;
    }
  }
}

TEST(KernelsTest, MatMulOfEveryTypeAndTarget) {
  for (const Target& target : SupportedTargets()) {
    const ScopedTarget scoped(target);
    for (const TensorType type : kTypes) {
      CheckMatMul(type, 70, 512, 1, false);
      CheckMatMul(type, 37, 256, 15, false);
      CheckMatMul(type, 21, 1280, 7, false);
      CheckMatMul(type, 16, 256, 2, true);
      CheckMatMul(type, 16, 256, 1, true);
      CheckMatMul(type, 48, 1024, 6, true);
      if (models::Traits(type).elements == 256) continue;
      CheckMatMul(type, 70, 608, 1, false);  // half a unit at the end
      CheckMatMul(type, 37, 608, 15, false);
      CheckMatMul(type, 16, 32, 1, true);
    }
    for (const TensorType type : {TensorType::kF32, TensorType::kF16, TensorType::kBF16}) {
      CheckMatMul(type, 21, 3, 5, false);
    }
    CheckMatMul(TensorType::kQ8_0, 1, 32, 3, false);
  }
}

// Every tile and block size against one token at a time, to the bit.
TEST(KernelsTest, MatMulOfManyTokensIsThatOfEach) {
  constexpr size_t kRows = 101, kColumns = 768, kTokens = 103;
  for (const Target& target : SupportedTargets()) {
    const ScopedTarget scoped(target);
    const Inputs inputs(kTokens, kColumns, false);
    for (const TensorType type : kTypes) {
      const std::vector<std::byte> bytes = RandomRows(type, kRows, kColumns, false);
      std::vector<std::byte> memory(PackedBytes(FormatOf(type), kRows, kColumns) + 64);
      std::byte* aligned =
          memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
      const PackedMatrix matrix = LayOutMatrix(FormatOf(type), kRows, kColumns, aligned);
      ASSERT_EQ(PackPanels(type, bytes.data(), 0, matrix.panels, matrix), std::nullopt);
      const size_t stride = matrix.padded_rows();
      std::vector<float> one_by_one(kTokens * stride, 2.0f);
      for (size_t t = 0; t < kTokens; ++t) {
        const Inputs one = inputs.Token(t);
        MatMul(matrix, 0, matrix.panels, one.view, 1, &one_by_one[t * stride], stride, true);
      }
      for (const size_t tokens : {1u, 2u, 3u, 4u, 5u, 6u, 7u, 8u, 9u, 15u, 103u}) {
        std::vector<float> together(tokens * stride, 2.0f);
        MatMul(matrix, 0, 2, inputs.view, tokens, together.data(), stride, true);
        MatMul(matrix, 2, matrix.panels, inputs.view, tokens, together.data(), stride, true);
        ASSERT_EQ(std::memcmp(together.data(), one_by_one.data(), together.size() * sizeof(float)),
                  0)
            << KernelTarget() << " " << models::TensorTypeName(type) << " " << tokens;
      }
    }
  }
}

// Packed weights take at most a twentieth more than in the file.
TEST(KernelsTest, PackedWeightsAreAsSmallAsTheFile) {
  for (const TensorType type : kTypes) {
    const models::TensorTypeTraits traits = models::Traits(type);
    const size_t in_file = 4096 * 4096 / traits.elements * traits.bytes;
    EXPECT_LE(PackedBytes(FormatOf(type), 4096, 4096), in_file + in_file / 20)
        << models::TensorTypeName(type);
  }
}

// Random groups of an image's format; also that they read back as they were put.
void CheckImageMatMul(PackedFormat format, size_t rows, size_t columns, size_t tokens,
                      bool extreme) {
  const int limit = format == PackedFormat::kImageInt8 ? 128
                    : format == PackedFormat::kSixBit  ? 32
                                                       : 4;
  std::mt19937 random(static_cast<uint32_t>(format) + 5);
  std::vector<std::byte> memory(PackedBytes(format, rows, columns) + 64);
  std::byte* aligned = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
  const PackedMatrix matrix = LayOutMatrix(format, rows, columns, aligned);
  const size_t groups = columns / 32;
  std::vector<PackedGroup> put(rows * groups);
  for (size_t i = 0; i < put.size(); ++i) {
    for (int8_t& q : put[i].quants) {
      const int code = static_cast<int>(random() % (2 * static_cast<unsigned>(limit))) - limit;
      q = static_cast<int8_t>(extreme ? -limit : code);
    }
    const bool shares_scale = format != PackedFormat::kImageInt8 && i % groups % 8 != 0;
    put[i].scale = shares_scale ? put[i - 1].scale
                                : models::FloatToHalf(0.01f * static_cast<float>(random() % 9 + 1));
    put[i].sub_scale = format == PackedFormat::kImageInt8 ? 1 : static_cast<int8_t>(random());
    PutGroup(matrix, i / groups, i % groups, put[i]);
  }
  const Inputs inputs(tokens, columns, extreme);
  const size_t stride = matrix.padded_rows();
  std::vector<float> out(tokens * stride);
  MatMul(matrix, 0, matrix.panels, inputs.view, tokens, out.data(), stride, false);
  std::vector<float> row(columns);
  for (size_t r = 0; r < rows; ++r) {
    UnpackRow(matrix, r, row.data());
    for (size_t g = 0; g < groups; ++g) {
      const PackedGroup& want = put[r * groups + g];
      const PackedGroup got = GetGroup(matrix, r, g);
      ASSERT_EQ(std::memcmp(got.quants, want.quants, 32), 0);
      ASSERT_EQ(got.scale, want.scale);
      ASSERT_EQ(got.sub_scale, want.sub_scale);
      for (size_t i = 0; i < 32; ++i) {
        ASSERT_FLOAT_EQ(row[32 * g + i],
                        models::HalfToFloat(want.scale) * want.sub_scale * want.quants[i]);
      }
    }
    for (size_t t = 0; t < tokens; ++t) {
      double sum = 0.0, size = 1.0;
      for (size_t k = 0; k < columns; ++k) {
        const double product = row[k] * inputs.At(t, k, true);
        sum += product;
        size += std::abs(product);
      }
      ASSERT_NEAR(out[t * stride + r], sum, 2e-6 * size)
          << KernelTarget() << " format " << static_cast<int>(format) << " row " << r;
    }
  }
}

TEST(KernelsTest, MatMulOfImageFormatsOnEveryTarget) {
  for (const Target& target : SupportedTargets()) {
    const ScopedTarget scoped(target);
    for (const PackedFormat format :
         {PackedFormat::kImageInt8, PackedFormat::kSixBit, PackedFormat::kThreeBit}) {
      CheckImageMatMul(format, 70, 512, 1, false);
      CheckImageMatMul(format, 37, 288, 15, false);
      CheckImageMatMul(format, 16, 32, 2, true);
      CheckImageMatMul(format, 16, 256, 1, true);
    }
  }
}

TEST(KernelsTest, QuantizedActivationsAreNearestOfTheScale) {
  for (const Target& target : SupportedTargets()) {
    const ScopedTarget scoped(target);
    Inputs inputs(3, 96, false);
    for (size_t group = 0; group < 9; ++group) {
      float largest = 0;
      int32_t sums[2] = {0, 0};
      for (size_t i = group * 32; i < group * 32 + 32; ++i) {
        largest = std::max(largest, std::abs(inputs.floats[i]));
        EXPECT_LE(std::abs(inputs.floats[i] - inputs.scales[group] * inputs.quants[i]),
                  0.501f * inputs.scales[group]);
        sums[i % 32 / 16] += inputs.quants[i];
      }
      EXPECT_FLOAT_EQ(inputs.scales[group], largest / 127);
      EXPECT_EQ(inputs.half_sums[2 * group], sums[0]);
      EXPECT_EQ(inputs.half_sums[2 * group + 1], sums[1]);
      EXPECT_EQ(inputs.sums[group], sums[0] + sums[1]);
      EXPECT_FLOAT_EQ(inputs.scaled_sums[group],
                      inputs.scales[group] * static_cast<float>(sums[0] + sums[1]));
    }
  }
}

TEST(KernelsTest, ZeroActivationsStayZero) {
  std::vector<float> zeros(32, 0.0f);
  Inputs inputs(1, 32, false);
  QuantizeColumns(zeros.data(), 0, 32, 0, inputs.view.quantized);
  EXPECT_THAT(inputs.quants, testing::Each(0));
  EXPECT_EQ(inputs.scales[0], 0.0f);
  EXPECT_EQ(inputs.scaled_sums[0], 0.0f);
}

TEST(KernelsTest, NormAndGateOfAnySize) {
  for (const Target& target : SupportedTargets()) {
    const ScopedTarget scoped(target);
    for (const size_t size : {1u, 15u, 16u, 22u, 90u, 256u}) {
      std::mt19937 random(static_cast<uint32_t>(size));
      std::normal_distribution<float> value(0.0f, 3.0f);
      std::vector<float> x(size), w(size), out(size);
      for (size_t i = 0; i < size; ++i) {
        x[i] = value(random);
        w[i] = value(random);
      }
      RmsNorm(x.data(), w.data(), size, 1e-5f, out.data());
      double sum = 0;
      for (const float v : x) sum += double{v} * v;
      const double scale = 1.0 / std::sqrt(sum / static_cast<double>(size) + 1e-5);
      for (size_t i = 0; i < size; ++i) EXPECT_NEAR(out[i], x[i] * scale * w[i], 2e-5);
      SwiGlu(x.data(), w.data(), size, out.data());
      for (size_t i = 0; i < size; ++i) {
        EXPECT_NEAR(out[i], x[i] / (1.0 + std::exp(-double{x[i]})) * w[i], 1e-4);
      }
    }
  }
}

TEST(KernelsTest, PackingFindsWhatIsNotFinite) {
  for (const TensorType type : kTypes) {
    std::vector<std::byte> bytes = RandomRows(type, 20, 256, false);
    const size_t row_bytes = bytes.size() / 20;
    std::vector<std::byte> memory(PackedBytes(FormatOf(type), 20, 256));
    const PackedMatrix matrix = LayOutMatrix(FormatOf(type), 20, 256, memory.data());
    // Infinity in the first scale or value of row 17.
    const size_t at = 17 * row_bytes + (type == TensorType::kQ6_K ? 208 : 0);
    const uint32_t wide = 0x7f800000u;
    const uint16_t narrow = type == TensorType::kBF16 ? 0x7f80 : 0x7c00;
    if (type == TensorType::kF32) {
      std::memcpy(&bytes[at], &wide, 4);
    } else {
      std::memcpy(&bytes[at], &narrow, 2);
    }
    EXPECT_EQ(PackPanels(type, bytes.data(), 0, matrix.panels, matrix), 17u);
    EXPECT_EQ(PackPanels(type, bytes.data(), 0, 1, matrix), std::nullopt);
  }
}

}  // namespace
}  // namespace reticle::backends::kernels
