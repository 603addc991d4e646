#include "backends/hardwired/rom/quantizer.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <span>

#include "backends/kernels/block_decode.h"
#include "base/check.h"
#include "base/status.h"
#include "models/half.h"

namespace reticle::backends::hardwired {
namespace {

using kernels::PackedGroup;
using kernels::PackedMatrix;
using models::TensorType;

constexpr size_t kGroup = 32;
constexpr size_t kBlock = InputStatistics::kBlock;
// Share of the mean diagonal added to the products of inputs, so that directions that calibration
// never saw count a little.
constexpr double kDamping = 0.01;
// Beyond it a scale would not fit half precision.
constexpr float kLargest = 4e6f;
// Scales tried for a group, as factors of the one that reaches its largest weight.
constexpr float kFirstFactor = 0.6f;
constexpr float kFactorStep = 0.04f;
constexpr int kFactors = 14;

struct Codes {
  int lowest;
  int highest;
};
constexpr Codes CodesOf(RomEncoding encoding) {
  return encoding == RomEncoding::kSixBit ? Codes{-32, 31} : Codes{-4, 3};
}

int Round(float value, const Codes& codes) {
  const float bounded =
      std::clamp(value, static_cast<float>(codes.lowest), static_cast<float>(codes.highest));
  return static_cast<int>(std::nearbyint(bounded));
}

// How errors in a block of columns count, prepared for rounding column by column.
struct BlockWeights {
  size_t columns = 0;
  std::vector<float> importance;  // of each column
  // Row i: how the error of column i, divided by its diagonal, changes the columns behind it. Empty
  // when columns are independent.
  std::vector<float> feedback;
};

// In place: the lower triangle becomes L with L L^T = A. False when A is not positive definite.
bool Cholesky(std::vector<double>& a, size_t n) {
  for (size_t j = 0; j < n; ++j) {
    double diagonal = a[j * n + j];
    for (size_t k = 0; k < j; ++k) diagonal -= a[j * n + k] * a[j * n + k];
    if (!(diagonal > 0.0)) return false;
    a[j * n + j] = std::sqrt(diagonal);
    for (size_t i = j + 1; i < n; ++i) {
      double sum = a[i * n + j];
      for (size_t k = 0; k < j; ++k) sum -= a[i * n + k] * a[j * n + k];
      a[i * n + j] = sum / a[j * n + j];
    }
  }
  return true;
}

// The inverse of A from its Cholesky factor, lower triangle.
std::vector<double> Inverse(const std::vector<double>& l, size_t n) {
  std::vector<double> inverse_l(n * n, 0.0);  // of L
  for (size_t j = 0; j < n; ++j) {
    inverse_l[j * n + j] = 1.0 / l[j * n + j];
    for (size_t i = j + 1; i < n; ++i) {
      double sum = 0.0;
      for (size_t k = j; k < i; ++k) sum -= l[i * n + k] * inverse_l[k * n + j];
      inverse_l[i * n + j] = sum / l[i * n + i];
    }
  }
  std::vector<double> inverse(n * n, 0.0);
  for (size_t k = 0; k < n; ++k) {
    const double* row = &inverse_l[k * n];
    for (size_t i = 0; i <= k; ++i) {
      for (size_t j = 0; j <= i; ++j) inverse[i * n + j] += row[i] * row[j];
    }
  }
  return inverse;
}

BlockWeights MakeBlockWeights(const InputStatistics* inputs, size_t block, size_t columns) {
  BlockWeights weights;
  weights.columns = columns;
  weights.importance.assign(columns, 1.0f);
  if (inputs == nullptr || inputs->tokens() == 0) return weights;
  const std::vector<float>& products = inputs->products(block);
  double mean = 0.0;
  for (size_t i = 0; i < columns; ++i) mean += products[i * columns + i];
  mean /= static_cast<double>(columns);
  if (!(mean > 0.0)) return weights;
  std::vector<double> h(columns * columns);
  for (size_t i = 0; i < columns; ++i) {
    for (size_t j = 0; j <= i; ++j) h[i * columns + j] = products[i * columns + j];
    h[i * columns + i] += kDamping * mean;
    weights.importance[i] = static_cast<float>(h[i * columns + i] / mean);
  }
  // The upper factor U of the inverse H^-1 = U^T U, row by row: the compensation of Optimal Brain
  // Surgeon in the order of the columns (https://arxiv.org/abs/2210.17323).
  if (!Cholesky(h, columns)) return weights;
  std::vector<double> inverse = Inverse(h, columns);
  if (!Cholesky(inverse, columns)) return weights;
  weights.feedback.assign(columns * columns, 0.0f);
  for (size_t i = 0; i < columns; ++i) {
    for (size_t j = i + 1; j < columns; ++j) {
      weights.feedback[i * columns + j] =
          static_cast<float>(inverse[j * columns + i] / inverse[i * columns + i]);
    }
  }
  return weights;
}

// The scale that loses least of a group, by importance; either sign, since codes reach further
// below zero.
float BestScale(const float* w, const float* importance, const Codes& codes) {
  float largest = 0.0f;  // by magnitude, with its sign
  for (size_t i = 0; i < kGroup; ++i) {
    if (std::fabs(w[i]) > std::fabs(largest)) largest = w[i];
  }
  if (largest == 0.0f) return 0.0f;
  float best = 0.0f;
  float best_gain = -1.0f;
  for (const float sign : {1.0f, -1.0f}) {
    const float reach = sign * largest / static_cast<float>(codes.lowest);
    for (int f = 0; f < kFactors; ++f) {
      const float scale = reach * (kFirstFactor + kFactorStep * static_cast<float>(f));
      const float inverse = 1.0f / scale;
      float wq = 0.0f, qq = 0.0f;
      for (size_t i = 0; i < kGroup; ++i) {
        const auto q = static_cast<float>(Round(w[i] * inverse, codes));
        wq += importance[i] * w[i] * q;
        qq += importance[i] * q * q;
      }
      // With the codes fixed the best scale is wq / qq, and what it gains is wq^2 / qq.
      if (qq > 0.0f && wq * wq > best_gain * qq) {
        best_gain = wq * wq / qq;
        best = wq / qq;
      }
    }
  }
  return best;
}

// Quantises one row's block of columns; `w` is used up.
void QuantizeBlock(float* w, const BlockWeights& weights, RomEncoding encoding, size_t row,
                   size_t first_group, const PackedMatrix& out) {
  const Codes codes = CodesOf(encoding);
  const size_t groups = weights.columns / kGroup;
  float largest_scale = 0.0f;
  for (size_t g = 0; g < groups; ++g) {
    const float scale = BestScale(w + g * kGroup, &weights.importance[g * kGroup], codes);
    largest_scale = std::max(largest_scale, std::fabs(scale));
  }
  // A little more than needed: what earlier columns lose can make later weights larger.
  const float room = weights.feedback.empty() ? 1.0f : 1.05f;
  const uint16_t super = models::FloatToHalf(largest_scale * room / 127.0f);
  const float super_scale = models::HalfToFloat(super);
  for (size_t g = 0; g < groups; ++g) {
    float* group = w + g * kGroup;
    PackedGroup packed{};
    packed.scale = super;
    if (super_scale > 0.0f) {
      const float wanted = BestScale(group, &weights.importance[g * kGroup], codes);
      packed.sub_scale =
          static_cast<int8_t>(std::nearbyint(std::clamp(wanted / super_scale, -127.0f, 127.0f)));
    }
    const float scale = super_scale * static_cast<float>(packed.sub_scale);
    const float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
    for (size_t i = 0; i < kGroup; ++i) {
      const int q = Round(group[i] * inverse, codes);
      packed.quants[i] = static_cast<int8_t>(q);
      if (weights.feedback.empty()) continue;
      const float error = group[i] - scale * static_cast<float>(q);
      const size_t column = g * kGroup + i;
      const float* feedback = &weights.feedback[column * weights.columns];
      for (size_t j = column + 1; j < weights.columns; ++j) w[j] -= error * feedback[j];
    }
    PutGroup(out, row, first_group + g, packed);
  }
}

// Types whose groups are codes times a half-precision scale already.
bool KeepsCodes(TensorType type) {
  return type == TensorType::kQ8_0 || type == TensorType::kQ5_0 || type == TensorType::kQ4_0;
}

bool CopyCodes(TensorType type, const std::byte* source, size_t row, const PackedMatrix& out) {
  bool finite = true;
  for (size_t g = 0; g < out.columns / kGroup; ++g) {
    kernels::Group32 group;
    kernels::DecodeGroup(type, source, g, &group);
    finite &= std::isfinite(group.scale);
    PackedGroup packed{};
    std::memcpy(packed.quants, group.quants, sizeof(packed.quants));
    packed.scale = models::FloatToHalf(group.scale);
    packed.sub_scale = 1;
    PutGroup(out, row, g, packed);
  }
  return finite;
}

void QuantizeTo8Bits(const float* w, size_t row, const PackedMatrix& out) {
  for (size_t g = 0; g < out.columns / kGroup; ++g) {
    const float* group = w + g * kGroup;
    float largest = 0.0f;
    for (size_t i = 0; i < kGroup; ++i) largest = std::max(largest, std::fabs(group[i]));
    PackedGroup packed{};
    packed.scale = models::FloatToHalf(largest / 127.0f);
    packed.sub_scale = 1;
    const float scale = models::HalfToFloat(packed.scale);
    const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
    for (size_t i = 0; i < kGroup; ++i) {
      packed.quants[i] = static_cast<int8_t>(Round(group[i] * inverse, {-127, 127}));
    }
    PutGroup(out, row, g, packed);
  }
}

}  // namespace

InputStatistics::InputStatistics(size_t columns) : columns_(columns) {
  for (size_t block = 0; block < blocks(); ++block) {
    products_.emplace_back(block_columns(block) * block_columns(block), 0.0f);
  }
}

size_t InputStatistics::block_columns(size_t block) const {
  return std::min(kBlock, columns_ - block * kBlock);
}

void InputStatistics::Add(const float* row) {
  ++tokens_;
  for (size_t block = 0; block < blocks(); ++block) {
    const size_t n = block_columns(block);
    const float* x = row + block * kBlock;
    float* products = products_[block].data();
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = 0; j <= i; ++j) products[i * n + j] += x[i] * x[j];
    }
  }
}

absl::Status QuantizeMatrix(const models::GgufTensor& tensor, RomEncoding encoding,
                            const InputStatistics* inputs, kernels::ThreadPool& pool,
                            const PackedMatrix& out) {
  RETICLE_CHECK(out.rows == tensor.rows() && out.columns == tensor.shape[0]);
  RETICLE_CHECK(inputs == nullptr || inputs->columns() == out.columns);
  std::vector<BlockWeights> blocks((out.columns + kBlock - 1) / kBlock);
  const models::TensorTypeTraits traits = models::Traits(tensor.type);
  const size_t row_bytes = out.columns / traits.elements * traits.bytes;
  std::atomic<uint64_t> bad_row{~uint64_t{0}};
  pool.Run([&](int worker) {
    if (encoding != RomEncoding::kInt8) {
      for (size_t b = worker; b < blocks.size(); b += pool.threads()) {
        blocks[b] = MakeBlockWeights(inputs, b, std::min(kBlock, out.columns - b * kBlock));
      }
      pool.Barrier();
    }
    std::vector<float> row(out.columns);
    // Whole panels: two rows of one panel share bytes.
    const auto [first, end] = kernels::StaticRange(out.panels, worker, pool.threads());
    for (size_t r = first * kernels::kPanelRows; r < std::min(out.rows, end * kernels::kPanelRows);
         ++r) {
      const std::byte* source = tensor.data.data() + r * row_bytes;
      bool finite = true;
      if (encoding == RomEncoding::kInt8 && KeepsCodes(tensor.type)) {
        finite = CopyCodes(tensor.type, source, r, out);
      } else {
        kernels::DecodeRow(tensor.type, source, out.columns, row.data());
        finite = std::ranges::all_of(row, [](float w) { return std::fabs(w) <= kLargest; });
        if (finite && encoding == RomEncoding::kInt8) QuantizeTo8Bits(row.data(), r, out);
        for (size_t b = 0; finite && encoding != RomEncoding::kInt8 && b < blocks.size(); ++b) {
          QuantizeBlock(&row[b * kBlock], blocks[b], encoding, r, b * kBlock / kGroup, out);
        }
      }
      uint64_t seen = bad_row.load();
      while (!finite && r < seen && !bad_row.compare_exchange_weak(seen, r)) {
      }
    }
  });
  if (bad_row.load() == ~uint64_t{0}) return absl::OkStatus();
  return InvalidArgumentError(
      "row %d of tensor '%s' holds a weight or scale that is not finite or "
      "beyond 4e6",
      bad_row.load(), tensor.name);
}

}  // namespace reticle::backends::hardwired
