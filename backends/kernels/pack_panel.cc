#include "backends/kernels/pack_panel.h"

#include <cstdint>
#include <cstring>

#include "models/quantization.h"

namespace reticle::backends::kernels {
namespace {

using models::TensorType;

constexpr size_t kVectorBytes = 4 * kPanelRows;
constexpr uint32_t kLowNibbles = 0x0f0f0f0f;

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

// Types whose blocks of 32 hold their quants as a panel has them.
template <typename Block, bool kHasMin>
bool PackPlain(const std::byte* rows, size_t panel, const PackedMatrix& m) {
  constexpr size_t kVectors = sizeof(Block::quants) / 4;
  const size_t groups = m.columns / 32;
  std::byte* const values = m.values + panel * m.values_stride;
  auto* const scales = reinterpret_cast<uint16_t*>(m.scales + panel * m.scales_stride);
  auto* const mins = reinterpret_cast<uint16_t*>(m.mins + panel * m.mins_stride);
  bool finite = true;
  for (size_t g = 0; g < groups; ++g) {
    for (size_t lane = 0; lane < kPanelRows; ++lane) {
      Block block;
      std::memcpy(&block, rows + (lane * groups + g) * sizeof(Block), sizeof(Block));
      PutWords<kVectors>(reinterpret_cast<const uint8_t*>(block.quants),
                         values + g * kVectors * kVectorBytes, lane);
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
    uint32_t front, back;
    std::memcpy(&front, quants + 4 * v, sizeof(front));
    std::memcpy(&back, quants + 16 + 4 * v, sizeof(back));
    const uint32_t low = (front & kLowNibbles) | (back & kLowNibbles) << 4;
    const uint32_t high = (front >> 4 & kLowNibbles) | (back & ~kLowNibbles);
    std::memcpy(even + v * kVectorBytes + lane * 4, &low, sizeof(low));
    std::memcpy(odd + v * kVectorBytes + lane * 4, &high, sizeof(high));
  }
}

bool PackQ4K(const std::byte* rows, size_t panel, const PackedMatrix& m) {
  constexpr size_t kGroups = models::kSuperBlock / 32;
  constexpr size_t kGroupBytes = 4 * kVectorBytes;
  const size_t blocks = m.columns / models::kSuperBlock;
  std::byte* const values = m.values + panel * m.values_stride;
  auto* const scales = reinterpret_cast<uint8_t*>(m.scales + panel * m.scales_stride);
  auto* const mins = reinterpret_cast<uint8_t*>(m.mins + panel * m.mins_stride);
  auto* const supers = reinterpret_cast<uint16_t*>(m.super_scales + panel * m.super_stride);
  auto* const super_mins = reinterpret_cast<uint16_t*>(m.super_mins + panel * m.super_stride);
  bool finite = true;
  for (size_t b = 0; b < blocks; ++b) {
    for (size_t lane = 0; lane < kPanelRows; ++lane) {
      models::BlockQ4_K block;
      std::memcpy(&block, rows + (lane * blocks + b) * sizeof(block), sizeof(block));
      finite &= IsFinite(block.scale) && IsFinite(block.min_scale);
      const models::ScalesK4 sub = models::UnpackScalesK4(block.scales);
      for (size_t s = 0; s < kGroups; s += 2) {
        std::byte* const even = values + (b * kGroups + s) * kGroupBytes;
        PutNibblePairs(block.quants + s * 16, even, even + kGroupBytes, lane);
      }
      for (size_t s = 0; s < kGroups; ++s) {
        const size_t cell = (b * kGroups + s) * kPanelRows + lane;
        scales[cell] = sub.scales[s];
        mins[cell] = sub.mins[s];
      }
      constexpr uint16_t kSign = 0x8000;  // the minimum is taken off; it is kept to be added
      supers[b * kPanelRows + lane] = block.scale;
      super_mins[b * kPanelRows + lane] = block.min_scale ^ kSign;
    }
  }
  return finite;
}

}  // namespace

bool PackWholePanel(TensorType type, const std::byte* rows, size_t panel,
                    const PackedMatrix& matrix) {
  switch (type) {
    case TensorType::kQ8_0:
      return matrix.format == PackedFormat::kInt8 &&
             PackPlain<models::BlockQ8_0, false>(rows, panel, matrix);
    case TensorType::kQ4_0:
      return matrix.format == PackedFormat::kNibbles &&
             PackPlain<models::BlockQ4_0, false>(rows, panel, matrix);
    case TensorType::kQ4_1:
      return matrix.format == PackedFormat::kNibblesMin &&
             PackPlain<models::BlockQ4_1, true>(rows, panel, matrix);
    case TensorType::kQ4_K:
      return matrix.format == PackedFormat::kNibblesSuperMin && PackQ4K(rows, panel, matrix);
    default:
      return false;
  }
}

}  // namespace reticle::backends::kernels
