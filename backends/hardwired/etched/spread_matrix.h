// Codes of 3 and 6 bits laid out for instruction sets that take long to unpack them.
#ifndef RETICLE_BACKENDS_HARDWIRED_ETCHED_SPREAD_MATRIX_H_
#define RETICLE_BACKENDS_HARDWIRED_ETCHED_SPREAD_MATRIX_H_

#include <cstddef>

#include "backends/kernels/packed_matrix.h"

namespace reticle::backends::hardwired {

// Byte-vectors (kernels/packed_matrix.h) of a group of 32 columns. Of three bits vector u holds the
// codes of columns 4u.. in bits 0 to 2 and those of columns 16+4u.. in bits 3 to 5; of six bits,
// the codes of columns 4u...
inline constexpr size_t kSpreadThreeBits = 4;
inline constexpr size_t kSpreadSixBits = 8;

// Bytes that the codes of a matrix take; 0 for formats other than kThreeBit and kSixBit.
size_t SpreadBytes(const kernels::PackedMatrix& matrix);

// Writes the codes to `memory`: SpreadBytes of zeros, at a multiple of 64. The result borrows them
// from there and its scales from where `matrix` has them.
kernels::PackedMatrix SpreadMatrix(const kernels::PackedMatrix& matrix, std::byte* memory);

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_ETCHED_SPREAD_MATRIX_H_
