// Takes GGUF's quantised blocks apart: 32 integers with the scale and minimum they stand for. Used
// to repack weights at load and to look up embedding rows; the layouts are those of the format
// (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and the types it names).
#ifndef RETICLE_BACKENDS_KERNELS_BLOCK_DECODE_H_
#define RETICLE_BACKENDS_KERNELS_BLOCK_DECODE_H_

#include <cstddef>
#include <cstdint>

#include "models/tensor_type.h"

namespace reticle::backends::kernels {

// 32 consecutive weights: value i is scale * sub_scale[i / 16] * quants[i] + min * sub_min. Plain
// types have sub_scale and sub_min 1 and, without a minimum, min 0.
struct Group32 {
  int8_t quants[32];  // signed; unsigned types keep 0..15 or 0..31
  float scale;        // of the block or super-block
  int8_t sub_scale[2];
  float min;  // to be added: -dmin for K types, m for Q4_1 and Q5_1
  uint8_t sub_min;
};

// Decodes group `group` (elements 32*group ..) of a row of a quantised type. `row` needs no
// alignment.
void DecodeGroup(models::TensorType type, const std::byte* row, size_t group, Group32* out);

// Writes `count` elements of a row of any type as floats. count is a multiple of 32 for quantised
// types.
void DecodeRow(models::TensorType type, const std::byte* row, size_t count, float* out);

}  // namespace reticle::backends::kernels

#endif  // RETICLE_BACKENDS_KERNELS_BLOCK_DECODE_H_
