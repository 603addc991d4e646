// Where keys and values lie in the paged KV pool.
//
// A block holds `block_tokens` positions of all layers and heads; within it the positions of one
// layer and head form tiles of 16. A tile keeps keys transposed, [head_dim][16], so that one vector
// scores 16 positions, and values as they are, [16][padded head_dim]. Q8_0 puts the scales of 32
// dimensions in front of each, [head_dim/32][16] half.
//
// Neighbouring blocks may share a run: there the tiles of a layer and head lie together, block
// behind block, so that a sequence with neighbouring blocks is read in stretches longer than a
// page.
#ifndef RETICLE_BACKENDS_KERNELS_KV_CACHE_H_
#define RETICLE_BACKENDS_KERNELS_KV_CACHE_H_

#include <cstddef>
#include <cstdint>

namespace reticle::backends::kernels {

inline constexpr size_t kTilePositions = 16;
inline constexpr size_t kRunBlocks = 16;

// kF32 is for tests and comparisons: the device ABI offers the other two.
enum class KvType { kF32, kF16, kQ8_0 };

struct KvGeometry {
  KvType type = KvType::kF16;
  size_t layers = 0;
  size_t kv_heads = 0;
  size_t head_dim = 0;      // multiple of 32 for Q8_0
  size_t block_tokens = 0;  // multiple of kTilePositions
  // Blocks below this, a multiple of kRunBlocks within the pool, lie in runs; the others alone.
  size_t run_end = 0;

  size_t padded_head_dim() const { return (head_dim + 15) / 16 * 16; }
  size_t element_bytes() const { return type == KvType::kF32 ? 4 : type == KvType::kF16 ? 2 : 1; }
  size_t scale_bytes() const {
    return type == KvType::kQ8_0 ? head_dim / 32 * kTilePositions * 2 : 0;
  }
  size_t key_bytes() const { return scale_bytes() + head_dim * kTilePositions * element_bytes(); }
  size_t tile_bytes() const {
    return key_bytes() + scale_bytes() + padded_head_dim() * kTilePositions * element_bytes();
  }
  size_t block_bytes() const {
    return layers * kv_heads * (block_tokens / kTilePositions) * tile_bytes();
  }
  // Byte offset in the pool of a block's first tile of a layer and head; the others follow it.
  size_t FirstTileOffset(size_t block, size_t layer, size_t head) const {
    const size_t head_bytes = block_tokens / kTilePositions * tile_bytes();
    const size_t index = layer * kv_heads + head;
    if (block >= run_end) return block * block_bytes() + index * head_bytes;
    const size_t in_run = block % kRunBlocks;
    return (block - in_run) * block_bytes() + (index * kRunBlocks + in_run) * head_bytes;
  }
  // That of the tile that holds `position` of a sequence with these blocks.
  size_t TileOffset(const uint32_t* blocks, size_t layer, size_t head, size_t position) const {
    return FirstTileOffset(blocks[position / block_tokens], layer, head) +
           position % block_tokens / kTilePositions * tile_bytes();
  }
};

}  // namespace reticle::backends::kernels

#endif  // RETICLE_BACKENDS_KERNELS_KV_CACHE_H_
