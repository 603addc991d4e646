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

// Where group `g`'s quants and scales go.
struct GroupPlace {
  std::byte* quants;
  uint16_t* scales;
  uint16_t* mins;
};

template <PackedFormat kFormat>
GroupPlace PlaceOf(const PackedMatrix& m, size_t panel, size_t g) {
  constexpr UnitLayout kUnit = UnitOf(kFormat);
  std::byte* const values = m.values + panel * m.values_stride;
  std::byte* const unit = values + kUnit.UnitAt(g);
  const size_t cells = g % kUnit.groups * kPanelRows;
  return {values + kUnit.QuantsAt(g), reinterpret_cast<uint16_t*>(unit + kUnit.scales) + cells,
          reinterpret_cast<uint16_t*>(unit + kUnit.mins) + cells};
}

// Types whose blocks of 32 hold their quants as a panel has them, fifth bits apart.
template <PackedFormat kFormat, typename Block>
bool PackPlain(const std::byte* rows, size_t panel, const PackedMatrix& m) {
  constexpr size_t kQuantVectors = sizeof(Block::quants) / 4;
  const size_t groups = m.columns / 32;
  bool finite = true;
  for (size_t g = 0; g < groups; ++g) {
    const GroupPlace place = PlaceOf<kFormat>(m, panel, g);
    for (size_t lane = 0; lane < kPanelRows; ++lane) {
      Block block;
      std::memcpy(&block, rows + (lane * groups + g) * sizeof(Block), sizeof(Block));
      PutWords<kQuantVectors>(reinterpret_cast<const uint8_t*>(block.quants), place.quants, lane);
      if constexpr (IsFiveBit(kFormat)) {
        PutWord(TransposeBits(WordAt(block.high_bits)), place.quants, kQuantVectors, lane);
      }
      finite &= IsFinite(block.scale);
      place.scales[lane] = block.scale;
      if constexpr (HasMin(kFormat)) {
        finite &= IsFinite(block.offset);
        place.mins[lane] = block.offset;
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
template <PackedFormat kFormat, typename Block>
bool PackSuperMin(const std::byte* rows, size_t panel, const PackedMatrix& m) {
  constexpr UnitLayout kUnit = UnitOf(kFormat);
  constexpr uint16_t kSign = 0x8000;  // the minimum is taken off; it is kept to be added
  const size_t blocks = m.columns / models::kSuperBlock;
  bool finite = true;
  for (size_t b = 0; b < blocks; ++b) {
    std::byte* const unit = m.values + panel * m.values_stride + b * kUnit.bytes();
    auto* const scales = reinterpret_cast<uint8_t*>(unit + kUnit.scales);
    auto* const mins = reinterpret_cast<uint8_t*>(unit + kUnit.mins);
    for (size_t lane = 0; lane < kPanelRows; ++lane) {
      Block block;
      std::memcpy(&block, rows + (lane * blocks + b) * sizeof(block), sizeof(block));
      finite &= IsFinite(block.scale) && IsFinite(block.min_scale);
      const models::ScalesK4 sub = models::UnpackScalesK4(block.scales);
      for (size_t s = 0; s < kUnit.groups; ++s) {
        std::byte* const group = unit + kUnit.quants + s * kUnit.group_bytes;
        if (s % 2 == 0) {
          PutNibblePairs(block.quants + s * 16, group, group + kUnit.group_bytes, lane);
        }
        if constexpr (IsFiveBit(kFormat)) {
          PutWord(GatherFifths(block.high_bits, s), group, 4, lane);
        }
        scales[s * kPanelRows + lane] = sub.scales[s];
        mins[s * kPanelRows + lane] = sub.mins[s];
      }
      reinterpret_cast<uint16_t*>(unit)[lane] = block.scale;
      reinterpret_cast<uint16_t*>(unit + kUnit.super_mins)[lane] = block.min_scale ^ kSign;
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
  constexpr UnitLayout kUnit = UnitOf(PackedFormat::kSixBit16);
  const size_t blocks = m.columns / models::kSuperBlock;
  bool finite = true;
  for (size_t b = 0; b < blocks; ++b) {
    std::byte* const unit = m.values + panel * m.values_stride + b * kUnit.bytes();
    auto* const scales = reinterpret_cast<int8_t*>(unit + kUnit.scales);
    for (size_t lane = 0; lane < kPanelRows; ++lane) {
      models::BlockQ6_K block;
      std::memcpy(&block, rows + (lane * blocks + b) * sizeof(block), sizeof(block));
      finite &= IsFinite(block.scale);
      uint32_t codes[8];
      for (size_t h = 0; h < 2 * kUnit.groups; ++h) {
        if (h % 2 == 0) CodesOfQ6K(block, h / 2, codes);
        const uint32_t* const half = codes + h % 2 * 4;
        std::byte* const out = unit + kUnit.quants + h * (kUnit.group_bytes / 2);
        for (size_t u = 0; u < 3; ++u) {
          PutWord(half[u] | (half[3] >> (2 * u) & kLowPairs) << 6, out, u, lane);
        }
        scales[h * kPanelRows + lane] = block.scales[h];
      }
      reinterpret_cast<uint16_t*>(unit)[lane] = block.scale;
    }
  }
  return finite;
}

}  // namespace

bool PackWholePanel(TensorType type, const std::byte* rows, size_t panel,
                    const PackedMatrix& matrix) {
  switch (type) {
    case TensorType::kQ8_0:
      return PackPlain<PackedFormat::kInt8, models::BlockQ8_0>(rows, panel, matrix);
    case TensorType::kQ4_0:
      return PackPlain<PackedFormat::kNibbles, models::BlockQ4_0>(rows, panel, matrix);
    case TensorType::kQ4_1:
      return PackPlain<PackedFormat::kNibblesMin, models::BlockQ4_1>(rows, panel, matrix);
    case TensorType::kQ5_0:
      return PackPlain<PackedFormat::kFiveBit, models::BlockQ5_0>(rows, panel, matrix);
    case TensorType::kQ5_1:
      return PackPlain<PackedFormat::kFiveBitMin, models::BlockQ5_1>(rows, panel, matrix);
    case TensorType::kQ4_K:
      return PackSuperMin<PackedFormat::kNibblesSuperMin, models::BlockQ4_K>(rows, panel, matrix);
    case TensorType::kQ5_K:
      return PackSuperMin<PackedFormat::kFiveBitSuperMin, models::BlockQ5_K>(rows, panel, matrix);
    case TensorType::kQ6_K:
      return PackQ6K(rows, panel, matrix);
    case TensorType::kF32:
    case TensorType::kF16:
    case TensorType::kBF16:
      return false;
  }
  return false;
}

}  // namespace reticle::backends::kernels
