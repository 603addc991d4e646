// The encoders of quantization.h. Determinism: scalar arithmetic in a fixed order, no fused
// multiply-add, so that any build writes the same bytes.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/check.h"
#include "base/status.h"
#include "models/half.h"
#include "models/quantization.h"

namespace reticle::models {
namespace {

// Scales tried on each side of the one that just covers the range, and their distance.
constexpr int kCandidates = 7;
constexpr double kCandidateStep = 0.04;
// How often the quants of the best one are rounded again for the scale that fits them best.
constexpr int kRefinements = 3;

// Adding and subtracting it rounds a double of magnitude below 2^51 to the nearest integer, ties to
// even, without a call into the mathematical library.
constexpr double kRounder = 0x1.8p52;

// The q in [low, high] nearest to value * inverse_scale.
int QuantAt(double value, double inverse_scale, int low, int high) {
  const double clamped = std::clamp(value * inverse_scale, double(low), double(high));
  return static_cast<int>((clamped + kRounder) - kRounder);
}

double InverseOrZero(double scale) { return scale == 0.0 ? 0.0 : 1.0 / scale; }

int QuantFor(double value, double scale, int low, int high) {
  return QuantAt(value, InverseOrZero(scale), low, high);
}

// The best fit found from candidate(stretch) for stretches around 1. evaluate(fit, fitted) rounds
// the values to the quants of `fit`, puts the least-squares fit to those quants into `fitted` and
// returns the squared error that it leaves.
template <typename Fit, typename Candidate, typename Evaluate>
Fit Search(const Fit& fallback, const Candidate& candidate, const Evaluate& evaluate) {
  Fit best = fallback;
  double best_error = std::numeric_limits<double>::infinity();
  for (int i = -kCandidates; i <= kCandidates; ++i) {
    Fit fitted;
    const double error = evaluate(candidate(1.0 + kCandidateStep * i), fitted);
    if (error < best_error) {
      best_error = error;
      best = fitted;
    }
  }
  for (int i = 0; i < kRefinements; ++i) {
    Fit fitted;
    const double error = evaluate(best, fitted);
    if (error >= best_error) break;
    best_error = error;
    best = fitted;
  }
  return best;
}

// The scale s for which s * q, q in [low, high], comes closest to `x`; negative when the largest
// magnitude is better put at `low` (which has one step more).
double FitScale(std::span<const float> x, int low, int high) {
  double extreme = 0.0;
  double sum_xx = 0.0;
  for (const float value : x) {
    if (std::fabs(value) > std::fabs(extreme)) extreme = value;
    sum_xx += double{value} * value;
  }
  if (extreme == 0.0) return 0.0;
  const auto candidate = [&](double stretch) { return extreme / (low * stretch); };
  const auto evaluate = [&](double scale, double& fitted) {
    const double inverse = InverseOrZero(scale);
    double sum_xq = 0.0;
    double sum_qq = 0.0;
    for (const float value : x) {
      const double q = QuantAt(value, inverse, low, high);
      sum_xq += value * q;
      sum_qq += q * q;
    }
    fitted = sum_qq > 0.0 ? sum_xq / sum_qq : 0.0;
    return sum_xx - fitted * sum_xq;
  };
  return Search<double>(candidate(1.0), candidate, evaluate);
}

struct Affine {
  double scale = 0.0;
  double offset = 0.0;
};

// The pair for which scale * q + offset, q in [0, high], comes closest to `x`, with scale >= 0 and,
// when `offset_at_most_zero`, offset <= 0.
Affine FitAffine(std::span<const float> x, int high, bool offset_at_most_zero) {
  const auto [min_it, max_it] = std::minmax_element(x.begin(), x.end());
  const double min = offset_at_most_zero ? std::min<double>(*min_it, 0.0) : *min_it;
  const double range = std::max<double>(*max_it, min) - min;
  if (range == 0.0) return {0.0, min};
  const double n = static_cast<double>(x.size());
  // Relative to the least value, which keeps the sums accurate when the offset is large.
  double sum_x = 0.0;
  double sum_xx = 0.0;
  for (const float value : x) {
    sum_x += value - min;
    sum_xx += (value - min) * (value - min);
  }
  const auto candidate = [&](double stretch) { return Affine{range / (high * stretch), min}; };
  const auto evaluate = [&](const Affine& fit, Affine& fitted) {
    const double inverse = InverseOrZero(fit.scale);
    double sum_q = 0.0;
    double sum_xq = 0.0;
    double sum_qq = 0.0;
    for (const float value : x) {
      const double q = QuantAt(value - fit.offset, inverse, 0, high);
      sum_q += q;
      sum_xq += (value - min) * q;
      sum_qq += q * q;
    }
    const double determinant = n * sum_qq - sum_q * sum_q;
    double scale = determinant > 0.0 ? (n * sum_xq - sum_x * sum_q) / determinant : 0.0;
    double shift = (sum_x - scale * sum_q) / n;
    if (offset_at_most_zero && min + shift > 0.0) {
      shift = -min;
      scale = sum_qq > 0.0 ? (sum_xq - shift * sum_q) / sum_qq : 0.0;
    }
    fitted = {scale, min + shift};
    if (scale < 0.0) return std::numeric_limits<double>::infinity();
    return sum_xx + scale * scale * sum_qq + n * shift * shift -
           2.0 * (scale * sum_xq + shift * sum_x - scale * shift * sum_q);
  };
  return Search<Affine>(candidate(1.0), candidate, evaluate);
}

// Half-precision rounding of a factor that a block stores; the largest finite half stands for all
// beyond it, so that no finite input becomes infinite (Quantize refuses what that would distort).
uint16_t ToHalf(double value) {
  return FloatToHalf(static_cast<float>(
      std::clamp(value, -static_cast<double>(kMaxHalf), static_cast<double>(kMaxHalf))));
}

void StoreNibbles(uint8_t quants[16], const int q[32]) {
  for (int j = 0; j < 16; ++j) {
    quants[j] = static_cast<uint8_t>((q[j] & 15) | ((q[j + 16] & 15) << 4));
  }
}

void StoreHighBits(uint8_t high_bits[4], const int q[32]) {
  std::memset(high_bits, 0, 4);
  for (int j = 0; j < 32; ++j) {
    high_bits[j / 8] = static_cast<uint8_t>(high_bits[j / 8] | ((q[j] >> 4) << (j % 8)));
  }
}

// Encodes symmetrically with `bits` bits: q is stored with an offset of 2^(bits - 1).
uint16_t QuantizeSymmetric(std::span<const float> x, int bits, int q[32]) {
  const int bias = 1 << (bits - 1);
  const uint16_t stored = ToHalf(FitScale(x, -bias, bias - 1));
  const double scale = HalfToFloat(stored);
  for (size_t j = 0; j < x.size(); ++j) q[j] = QuantFor(x[j], scale, -bias, bias - 1) + bias;
  return stored;
}

void QuantizeAffine(std::span<const float> x, int bits, uint16_t& scale_out, uint16_t& offset_out,
                    int q[32]) {
  const int high = (1 << bits) - 1;
  const Affine fit = FitAffine(x, high, false);
  scale_out = ToHalf(fit.scale);
  offset_out = ToHalf(fit.offset);
  const double scale = HalfToFloat(scale_out);
  const double offset = HalfToFloat(offset_out);
  for (size_t j = 0; j < x.size(); ++j) q[j] = QuantFor(x[j] - offset, scale, 0, high);
}

void Encode(std::span<const float> x, BlockQ4_0& block) {
  int q[32];
  block.scale = QuantizeSymmetric(x, 4, q);
  StoreNibbles(block.quants, q);
}

void Encode(std::span<const float> x, BlockQ4_1& block) {
  int q[32];
  QuantizeAffine(x, 4, block.scale, block.offset, q);
  StoreNibbles(block.quants, q);
}

void Encode(std::span<const float> x, BlockQ5_0& block) {
  int q[32];
  block.scale = QuantizeSymmetric(x, 5, q);
  StoreNibbles(block.quants, q);
  StoreHighBits(block.high_bits, q);
}

void Encode(std::span<const float> x, BlockQ5_1& block) {
  int q[32];
  QuantizeAffine(x, 5, block.scale, block.offset, q);
  StoreNibbles(block.quants, q);
  StoreHighBits(block.high_bits, q);
}

void Encode(std::span<const float> x, BlockQ8_0& block) {
  double extreme = 0.0;
  for (const float value : x) extreme = std::max(extreme, std::fabs(double{value}));
  block.scale = ToHalf(extreme / 127.0);
  const double scale = HalfToFloat(block.scale);
  for (int j = 0; j < 32; ++j) {
    block.quants[j] = static_cast<int8_t>(QuantFor(x[j], scale, -127, 127));
  }
}

void StoreHighBitsK(BlockQ4_K&, int, int, int) {}
void StoreHighBitsK(BlockQ5_K& block, int sub_block, int l, int q) {
  block.high_bits[l] = static_cast<uint8_t>(block.high_bits[l] | ((q >> 4) << sub_block));
}

template <typename Block>
void EncodeK4(std::span<const float> x, int bits, Block& block) {
  block = Block{};
  const int high = (1 << bits) - 1;
  Affine fits[8];
  double max_scale = 0.0;
  double max_min = 0.0;
  for (int b = 0; b < 8; ++b) {
    fits[b] = FitAffine(x.subspan(32 * b, 32), high, true);
    max_scale = std::max(max_scale, fits[b].scale);
    max_min = std::max(max_min, -fits[b].offset);
  }
  block.scale = ToHalf(max_scale / 63.0);
  block.min_scale = ToHalf(max_min / 63.0);
  const double scale = HalfToFloat(block.scale);
  const double min_scale = HalfToFloat(block.min_scale);
  ScalesK4 scales{};
  for (int b = 0; b < 8; ++b) {
    scales.scales[b] = static_cast<uint8_t>(QuantFor(fits[b].scale, scale, 0, 63));
    scales.mins[b] = static_cast<uint8_t>(QuantFor(-fits[b].offset, min_scale, 0, 63));
    const double step = scale * scales.scales[b];
    const double min = min_scale * scales.mins[b];
    for (int l = 0; l < 32; ++l) {
      const int q = QuantFor(x[32 * b + l] + min, step, 0, high);
      uint8_t& byte = block.quants[32 * (b / 2) + l];
      byte = static_cast<uint8_t>(byte | ((q & 15) << (b % 2 == 0 ? 0 : 4)));
      StoreHighBitsK(block, b, l, q);
    }
  }
  PackScalesK4(scales, block.scales);
}

void Encode(std::span<const float> x, BlockQ4_K& block) { EncodeK4(x, 4, block); }
void Encode(std::span<const float> x, BlockQ5_K& block) { EncodeK4(x, 5, block); }

void Encode(std::span<const float> x, BlockQ6_K& block) {
  block = BlockQ6_K{};
  double fits[16];
  double extreme = 0.0;
  for (int b = 0; b < 16; ++b) {
    fits[b] = FitScale(x.subspan(16 * b, 16), -32, 31);
    if (std::fabs(fits[b]) > std::fabs(extreme)) extreme = fits[b];
  }
  block.scale = ToHalf(extreme / -128.0);
  const double scale = HalfToFloat(block.scale);
  for (int b = 0; b < 16; ++b) {
    block.scales[b] = static_cast<int8_t>(QuantFor(fits[b], scale, -128, 127));
  }
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128;
    const int group = i % 128 / 32;
    const int sub_block = i / 16;
    const int l = i % 32;
    const int q = QuantFor(x[i], scale * block.scales[sub_block], -32, 31) + 32;
    uint8_t& low = block.low_bits[64 * half + 32 * (group % 2) + l];
    uint8_t& high = block.high_bits[32 * half + l];
    low = static_cast<uint8_t>(low | ((q & 15) << (group < 2 ? 0 : 4)));
    high = static_cast<uint8_t>(high | ((q >> 4) << (2 * group)));
  }
}

template <typename Block, size_t kElements>
void EncodeBlocks(std::span<const float> src, std::byte* dst) {
  Block block;
  for (size_t i = 0; i < src.size(); i += kElements, dst += sizeof(Block)) {
    Encode(src.subspan(i, kElements), block);
    std::memcpy(dst, &block, sizeof(Block));
  }
}

template <uint16_t (*kConvert)(float)>
void EncodeHalves(std::span<const float> src, std::byte* dst) {
  for (size_t i = 0; i < src.size(); ++i) {
    const uint16_t bits = kConvert(src[i]);
    std::memcpy(dst + 2 * i, &bits, sizeof(bits));
  }
}

// The largest magnitude that a type reaches with every scale a finite half.
float LargestMagnitude(TensorType type) {
  switch (type) {
    case TensorType::kF32:
      return std::numeric_limits<float>::max();
    case TensorType::kBF16:
      return Bfloat16ToFloat(0x7f7f);
    case TensorType::kQ8_0:
      return 127.0f * kMaxHalf;
    case TensorType::kQ4_0:
      return 7.0f * kMaxHalf;
    case TensorType::kQ5_0:
      return 15.0f * kMaxHalf;
    case TensorType::kF16:
    case TensorType::kQ4_1:
    case TensorType::kQ5_1:
      return kMaxHalf;
    case TensorType::kQ4_K:
    case TensorType::kQ5_K:
      return 63.0f * kMaxHalf;
    case TensorType::kQ6_K:
      return 31.0f * 127.0f * kMaxHalf;
  }
  return 0.0f;
}

}  // namespace

absl::Status Quantize(TensorType type, std::span<const float> src, std::span<std::byte> dst) {
  const TensorTypeTraits traits = Traits(type);
  RETICLE_CHECK(src.size() % traits.elements == 0);
  RETICLE_CHECK(dst.size() == src.size() / traits.elements * traits.bytes);
  const float limit = LargestMagnitude(type);
  for (size_t i = 0; i < src.size(); ++i) {
    if (!(std::fabs(src[i]) <= limit)) {
      return InvalidArgumentError("value %d is %g; %s holds magnitudes up to %g", i, src[i],
                                  traits.name, limit);
    }
  }
  if (src.empty()) return absl::OkStatus();
  switch (type) {
    case TensorType::kF32:
      std::memcpy(dst.data(), src.data(), dst.size());
      break;
    case TensorType::kF16:
      EncodeHalves<FloatToHalf>(src, dst.data());
      break;
    case TensorType::kBF16:
      EncodeHalves<FloatToBfloat16>(src, dst.data());
      break;
    case TensorType::kQ4_0:
      EncodeBlocks<BlockQ4_0, kSmallBlock>(src, dst.data());
      break;
    case TensorType::kQ4_1:
      EncodeBlocks<BlockQ4_1, kSmallBlock>(src, dst.data());
      break;
    case TensorType::kQ5_0:
      EncodeBlocks<BlockQ5_0, kSmallBlock>(src, dst.data());
      break;
    case TensorType::kQ5_1:
      EncodeBlocks<BlockQ5_1, kSmallBlock>(src, dst.data());
      break;
    case TensorType::kQ8_0:
      EncodeBlocks<BlockQ8_0, kSmallBlock>(src, dst.data());
      break;
    case TensorType::kQ4_K:
      EncodeBlocks<BlockQ4_K, kSuperBlock>(src, dst.data());
      break;
    case TensorType::kQ5_K:
      EncodeBlocks<BlockQ5_K, kSuperBlock>(src, dst.data());
      break;
    case TensorType::kQ6_K:
      EncodeBlocks<BlockQ6_K, kSuperBlock>(src, dst.data());
      break;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::byte>> Quantize(TensorType type, std::span<const float> src) {
  const TensorTypeTraits traits = Traits(type);
  if (src.size() % traits.elements != 0) {
    return InvalidArgumentError("%d values are no multiple of the %d of a %s block", src.size(),
                                traits.elements, traits.name);
  }
  std::vector<std::byte> out(src.size() / traits.elements * traits.bytes);
  RETURN_IF_ERROR(Quantize(type, src, out));
  return out;
}

}  // namespace reticle::models
