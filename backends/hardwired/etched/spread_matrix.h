// Weights of 3 and 6 bits laid out for instruction sets that take long to unpack them.
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

// Bytes that a matrix takes; 0 for formats other than kThreeBit and kSixBit.
size_t SpreadBytes(const kernels::PackedMatrix& matrix);

// Writes codes and scales to `memory`, SpreadBytes of zeros at a multiple of 64, panel by panel,
// and returns the matrix there.
kernels::PackedMatrix SpreadMatrix(const kernels::PackedMatrix& matrix, std::byte* memory);

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_ETCHED_SPREAD_MATRIX_H_
