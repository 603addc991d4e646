#include "backends/kernels/pack_panel.h"

#include <cstdint>
#include <cstring>

#include "models/quantization.h"

namespace reticle::backends::kernels {
namespace {

using models::TensorType;

constexpr size_t kVectorBytes = 4 * kPanelRows;
constexpr uint32_t kLowNibbles = 0x0f0f0f0f;
constexpr uint32_t kLowPairs = 0x03030303;

bool IsFinite(uint16_t half) { return (half & 0x7c00) != 0x7c00; }

// Gives the words of 4 * kVectors bytes of a row their places in as many byte-vectors.
template <size_t kVectors>
void PutWords(const uint8_t* bytes, std::byte* group, size_t lane) {
  uint32_t words[kVectors];
  std::memcpy(words, bytes, sizeof(words));
  for (size_t v = 0; v < kVectors; ++v) {
    std::memcpy(group + v * kVectorBytes + lane * 4, &words[v], sizeof(uint32_t));
  }
}

void PutWord(uint32_t word, std::byte* group, size_t vector, size_t lane) {
  std::memcpy(group + vector * kVectorBytes + lane * 4, &word, sizeof(word));
}

uint32_t WordAt(const uint8_t* bytes) {
  uint32_t word;
  std::memcpy(&word, bytes, sizeof(word));
  return word;
}

// Bit 4j + i of `bits` (that of column 4j + i) as bit j of byte i.
uint32_t TransposeBits(uint32_t bits) {
  uint32_t out = 0;
  for (int i = 0; i < 4; ++i) {
    uint32_t every_fourth = (bits >> i) & 0x11111111;
    every_fourth = (every_fourth | every_fourth >> 3) & 0x03030303;
    every_fourth = (every_fourth | every_fourth >> 6) & 0x000f000f;
    every_fourth = (every_fourth | every_fourth >> 12) & 0xff;
    out |= every_fourth << (8 * i);
  }
  return out;
}

// Types whose blocks of 32 hold their quants as a panel has them, fifth bits apart.
template <typename Block>
bool PackPlain(const std::byte* rows, size_t panel, const PackedMatrix& m) {
  constexpr bool kHasMin = requires(Block block) { block.offset; };
  constexpr bool kHasFifths = requires(Block block) { block.high_bits; };
  constexpr size_t kQuantVectors = sizeof(Block::quants) / 4;
  constexpr size_t kVectors = kQuantVectors + (kHasFifths ? 1 : 0);
  const size_t groups = m.columns / 32;
  std::byte* const values = m.values + panel * m.values_stride;
  auto* const scales = reinterpret_cast<uint16_t*>(m.scales + panel * m.scales_stride);
  auto* const mins = reinterpret_cast<uint16_t*>(m.mins + panel * m.mins_stride);
  bool finite = true;
  for (size_t g = 0; g < groups; ++g) {
    for (size_t lane = 0; lane < kPanelRows; ++lane) {
      Block block;
      std::memcpy(&block, rows + (lane * groups + g) * sizeof(Block), sizeof(Block));
      std::byte* const group = values + g * kVectors * kVectorBytes;
      PutWords<kQuantVectors>(reinterpret_cast<const uint8_t*>(block.quants), group, lane);
      if constexpr (kHasFifths) {
        PutWord(TransposeBits(WordAt(block.high_bits)), group, kQuantVectors, lane);
      }
      finite &= IsFinite(block.scale);
      scales[g * kPanelRows + lane] = block.scale;
      if constexpr (kHasMin) {
        finite &= IsFinite(block.offset);
        mins[g * kPanelRows + lane] = block.offset;
      }
    }
  }
  return finite;
}

// A panel's group holds columns i and i + 16 in one byte; the file's, those of two groups.
void PutNibblePairs(const uint8_t* quants, std::byte* even, std::byte* odd, size_t lane) {
  for (size_t v = 0; v < 4; ++v) {
    const uint32_t front = WordAt(quants + 4 * v);
    const uint32_t back = WordAt(quants + 16 + 4 * v);
    PutWord((front & kLowNibbles) | (back & kLowNibbles) << 4, even, v, lane);
    PutWord((front >> 4 & kLowNibbles) | (back & ~kLowNibbles), odd, v, lane);
  }
}

// Bit `sub` of byte 4j + i of `high` as bit j of byte i.
uint32_t GatherFifths(const uint8_t* high, size_t sub) {
  uint32_t out = 0;
  for (size_t j = 0; j < 8; ++j) out |= (WordAt(high + 4 * j) >> sub & 0x01010101) << j;
  return out;
}

// Q4_K and Q5_K.
template <typename Block>
bool PackSuperMin(const std::byte* rows, size_t panel, const PackedMatrix& m) {
  constexpr bool kHasFifths = requires(Block block) { block.high_bits; };
  constexpr size_t kGroups = models::kSuperBlock / 32;
  constexpr size_t kGroupBytes = (kHasFifths ? 5 : 4) * kVectorBytes;
  constexpr uint16_t kSign = 0x8000;  // the minimum is taken off; it is kept to be added
  const size_t blocks = m.columns / models::kSuperBlock;
  std::byte* const values = m.values + panel * m.values_stride;
  auto* const scales = reinterpret_cast<uint8_t*>(m.scales + panel * m.scales_stride);
  auto* const mins = reinterpret_cast<uint8_t*>(m.mins + panel * m.mins_stride);
  auto* const supers = reinterpret_cast<uint16_t*>(m.super_scales + panel * m.super_stride);
  auto* const super_mins = reinterpret_cast<uint16_t*>(m.super_mins + panel * m.super_stride);
  bool finite = true;
  for (size_t b = 0; b < blocks; ++b) {
    for (size_t lane = 0; lane < kPanelRows; ++lane) {
      Block block;
      std::memcpy(&block, rows + (lane * blocks + b) * sizeof(block), sizeof(block));
      finite &= IsFinite(block.scale) && IsFinite(block.min_scale);
      const models::ScalesK4 sub = models::UnpackScalesK4(block.scales);
      for (size_t s = 0; s < kGroups; ++s) {
        std::byte* const group = values + (b * kGroups + s) * kGroupBytes;
        if (s % 2 == 0) PutNibblePairs(block.quants + s * 16, group, group + kGroupBytes, lane);
        if constexpr (kHasFifths) PutWord(GatherFifths(block.high_bits, s), group, 4, lane);
        const size_t cell = (b * kGroups + s) * kPanelRows + lane;
        scales[cell] = sub.scales[s];
        mins[cell] = sub.mins[s];
      }
      supers[b * kPanelRows + lane] = block.scale;
      super_mins[b * kPanelRows + lane] = block.min_scale ^ kSign;
    }
  }
  return finite;
}

// The 32 columns of sub-block pair `sub` as eight words of 6-bit codes, a byte each.
void CodesOfQ6K(const models::BlockQ6_K& block, size_t sub, uint32_t (&codes)[8]) {
  const size_t quarter = sub % 4;
  const uint8_t* const low = block.low_bits + sub / 4 * 64 + quarter % 2 * 32;
  const uint8_t* const high = block.high_bits + sub / 4 * 32;
  const size_t low_shift = quarter < 2 ? 0 : 4;
  for (size_t v = 0; v < 8; ++v) {
    codes[v] = (WordAt(low + 4 * v) >> low_shift & kLowNibbles) |
               (WordAt(high + 4 * v) >> (2 * quarter) & kLowPairs) << 4;
  }
}

bool PackQ6K(const std::byte* rows, size_t panel, const PackedMatrix& m) {
  constexpr size_t kGroups = models::kSuperBlock / 32;
  constexpr size_t kHalfBytes = 3 * kVectorBytes;
  const size_t blocks = m.columns / models::kSuperBlock;
  std::byte* const values = m.values + panel * m.values_stride;
  auto* const scales = reinterpret_cast<int8_t*>(m.scales + panel * m.scales_stride);
  auto* const supers = reinterpret_cast<uint16_t*>(m.super_scales + panel * m.super_stride);
  bool finite = true;
  for (size_t b = 0; b < blocks; ++b) {
    for (size_t lane = 0; lane < kPanelRows; ++lane) {
      models::BlockQ6_K block;
      std::memcpy(&block, rows + (lane * blocks + b) * sizeof(block), sizeof(block));
      finite &= IsFinite(block.scale);
      uint32_t codes[8];
      for (size_t h = 0; h < 2 * kGroups; ++h) {
        if (h % 2 == 0) CodesOfQ6K(block, h / 2, codes);
        const uint32_t* const half = codes + h % 2 * 4;
        std::byte* const out = values + (b * 2 * kGroups + h) * kHalfBytes;
        for (size_t u = 0; u < 3; ++u) {
          PutWord(half[u] | (half[3] >> (2 * u) & kLowPairs) << 6, out, u, lane);
        }
        scales[(b * 2 * kGroups + h) * kPanelRows + lane] = block.scales[h];
      }
      supers[b * kPanelRows + lane] = block.scale;
    }
  }
  return finite;
}

}  // namespace

bool PackWholePanel(TensorType type, const std::byte* rows, size_t panel,
                    const PackedMatrix& matrix) {
  const PackedFormat format = matrix.format;
  switch (type) {
    case TensorType::kQ8_0:
      return format == PackedFormat::kInt8 && PackPlain<models::BlockQ8_0>(rows, panel, matrix);
    case TensorType::kQ4_0:
      return format == PackedFormat::kNibbles && PackPlain<models::BlockQ4_0>(rows, panel, matrix);
    case TensorType::kQ4_1:
      return format == PackedFormat::kNibblesMin &&
             PackPlain<models::BlockQ4_1>(rows, panel, matrix);
    case TensorType::kQ5_0:
      return format == PackedFormat::kFiveBit && PackPlain<models::BlockQ5_0>(rows, panel, matrix);
    case TensorType::kQ5_1:
      return format == PackedFormat::kFiveBitMin &&
             PackPlain<models::BlockQ5_1>(rows, panel, matrix);
    case TensorType::kQ4_K:
      return format == PackedFormat::kNibblesSuperMin &&
             PackSuperMin<models::BlockQ4_K>(rows, panel, matrix);
    case TensorType::kQ5_K:
      return format == PackedFormat::kFiveBitSuperMin &&
             PackSuperMin<models::BlockQ5_K>(rows, panel, matrix);
    case TensorType::kQ6_K:
      return format == PackedFormat::kSixBit16 && PackQ6K(rows, panel, matrix);
    case TensorType::kF32:
    case TensorType::kF16:
    case TensorType::kBF16:
      return false;
  }
  return false;
}

}  // namespace reticle::backends::kernels
