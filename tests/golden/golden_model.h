// The models and expected logits of llama_reference.py on the C++ side: the same bytes from the
// same integer hash, and the committed results.
#ifndef RETICLE_TESTS_GOLDEN_GOLDEN_MODEL_H_
#define RETICLE_TESTS_GOLDEN_GOLDEN_MODEL_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "models/tensor_type.h"

namespace reticle::golden {

struct ExpectedLogits {
  uint32_t position = 0;
  std::vector<float> values;
};

// One case of the data file; fields as in the script's Case.
struct GoldenCase {
  std::string name;
  models::TensorType type = models::TensorType::kF32;
  uint64_t seed = 0;
  uint32_t dim = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0, ffn = 0, vocab = 0;
  uint32_t tokens = 0;
  double rope_base = 0, linear = 1, llama3 = 0;
  bool tied = false;
  std::vector<ExpectedLogits> expected;

  std::vector<uint32_t> Prompt() const;
  // The model as a GGUF file.
  std::vector<std::byte> Gguf() const;
};

// The cases of tests/golden/data/llama_logits.txt, read from the working directory (the source
// root). Empty when the file cannot be read.
std::vector<GoldenCase> ReadGoldenCases();

}  // namespace reticle::golden

#endif  // RETICLE_TESTS_GOLDEN_GOLDEN_MODEL_H_
