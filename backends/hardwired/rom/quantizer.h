// From weights of any type to the encodings of a device image.
#ifndef RETICLE_BACKENDS_HARDWIRED_ROM_QUANTIZER_H_
#define RETICLE_BACKENDS_HARDWIRED_ROM_QUANTIZER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "backends/hardwired/rom/rom_format.h"
#include "backends/kernels/packed_matrix.h"
#include "backends/kernels/thread_pool.h"
#include "models/gguf.h"

namespace reticle::backends::hardwired {

// What a matrix is fed with: for each block of 256 columns the sums of x[i] * x[j] over the tokens
// seen. Errors of weights are weighed by it, and what rounding one column loses, later columns of
// the block make up for. Not thread-safe.
class InputStatistics {
 public:
  static constexpr size_t kBlock = 256;

  explicit InputStatistics(size_t columns);
  void Add(const float* row);

  size_t columns() const { return columns_; }
  uint64_t tokens() const { return tokens_; }
  size_t blocks() const { return (columns_ + kBlock - 1) / kBlock; }
  size_t block_columns(size_t block) const;
  // [block_columns][block_columns], the lower triangle.
  const std::vector<float>& products(size_t block) const { return products_[block]; }

 private:
  size_t columns_;
  uint64_t tokens_ = 0;
  std::vector<std::vector<float>> products_;
};

// Quantises a matrix of a GGUF file into `out`, which is zeroed. `inputs` may be null (all columns
// count alike) and is not used for 8 bits: those are rounded to nearest, and the codes and scales
// of Q8_0, Q5_0 and Q4_0 are kept as they are. The result does not depend on the threads.
// INVALID_ARGUMENT naming tensor and row for weights that are not finite or beyond 4e6.
absl::Status QuantizeMatrix(const models::GgufTensor& tensor, RomEncoding encoding,
                            const InputStatistics* inputs, kernels::ThreadPool& pool,
                            const kernels::PackedMatrix& out);

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_ROM_QUANTIZER_H_
