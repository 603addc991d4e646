// The arithmetic of Llama models on a CPU: one function a step of the model, each in a version for
// every instruction set, chosen at run time (Highway's dynamic dispatch).
//
// Every output element is computed by a fixed sequence of operations that depends on its inputs
// only: not on the number of tokens in the call, the vector width or the split between threads.
// Instruction sets with fused multiply-add (AVX2 and newer, NEON) agree bit for bit; the others
// (SSE4, emulation) differ from them by the rounding of a product.
//
// All functions are thread-safe: they write only what the caller names.
#ifndef RETICLE_BACKENDS_KERNELS_KERNELS_H_
#define RETICLE_BACKENDS_KERNELS_KERNELS_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "backends/kernels/packed_matrix.h"

namespace reticle::backends::kernels {

// Rows of int8 activations with a scale for 32 columns. Borrowed memory; row r begins at
// r * columns in quants, r * columns/32 in scales, scaled_sums and sums, r * columns/16 in
// half_sums.
struct QuantizedRows {
  size_t columns = 0;
  int8_t* quants = nullptr;
  float* scales = nullptr;       // value = scale * quant
  float* scaled_sums = nullptr;  // scale * (sum of the 32 quants)
  int32_t* sums = nullptr;       // of 32 quants
  int32_t* half_sums = nullptr;  // of 16 quants
  // The quants in 16 bits, each four in the order 0, 2, 1, 3; begins with a row like quants. May be
  // null: needed for speed only, where NeedsWideQuants says so.
  int16_t* wide = nullptr;
};

// The activations of a product, as floats for float weights and quantised for the others.
struct Activations {
  const float* floats = nullptr;  // row r begins at r * float_stride
  size_t float_stride = 0;
  QuantizedRows quantized;
};

// Quantises columns first .. end-1 (multiples of 32) of row `row` from x[first] .. x[end-1].
void QuantizeColumns(const float* x, size_t first, size_t end, size_t row,
                     const QuantizedRows& out);

// out[t * out_stride + r] = sum over k of W[r][k] * x[t][k], for the rows r of panels first_panel
// .. end_panel-1 and tokens t < tokens; added to what is there if `add`. Rows up to the end of the
// panel are written, so out_stride is at least 16 * panels.
void MatMul(const PackedMatrix& weights, size_t first_panel, size_t end_panel, const Activations& x,
            size_t tokens, float* out, size_t out_stride, bool add);

// out[i] = x[i] / sqrt(mean(x^2) + epsilon) * weight[i].
void RmsNorm(const float* x, const float* weight, size_t size, float epsilon, float* out);

// out[i] = gate[i] * sigmoid(gate[i]) * up[i]. out may be gate.
void SwiGlu(const float* gate, const float* up, size_t size, float* out);

// Rotates the pairs (x[2i], x[2i+1]), i < pairs, by the angles given by their cosine and sine.
void Rope(float* x, size_t pairs, const float* cosines, const float* sines);

// Whether products of many tokens are faster with QuantizedRows::wide on this instruction set.
bool NeedsWideQuants();

// The instruction set that the functions above run on, such as "avx512+vnni".
std::string KernelTarget();

// VNNI instructions that the kernels may use: bit 0 those of AVX (256 bits), bit 1 of AVX-512;
// bit 2: those of NEON's dot product.
int VnniBits();

// For tests and benchmarks: VNNI instructions are not used although the CPU has them.
void DisableVnni(bool disable);

}  // namespace reticle::backends::kernels

#endif  // RETICLE_BACKENDS_KERNELS_KERNELS_H_
