// Random Llama models of any shape and type as GGUF files: for tests and for benchmarks of speed.
// They compute but know nothing. The bytes depend on the options only, on every machine.
//
//   SyntheticLlamaOptions options;
//   options.matrix_type = TensorType::kQ8_0;
//   ASSIGN_OR_RETURN(std::vector<std::byte> bytes, MakeSyntheticLlama(options));
//   ASSIGN_OR_RETURN(std::unique_ptr<GgufFile> file, GgufFile::Parse(bytes));
#ifndef RETICLE_MODELS_SYNTHETIC_H_
#define RETICLE_MODELS_SYNTHETIC_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/gguf_writer.h"
#include "models/llama_config.h"
#include "models/rope.h"
#include "models/tensor_type.h"

namespace reticle::models {

// Two layers, dim 64, 4 query and 2 key heads of 16, ffn 128, vocabulary 320, context 512: a
// hundred thousand parameters. Rows are too short for the K types, which need 256.
LlamaConfig SmallLlamaConfig();
// The same proportions with rows that fit every type: dim 256, heads of 64, ffn 512.
LlamaConfig SmallWideLlamaConfig();
// The shape of Llama 3.1 8B (https://arxiv.org/abs/2407.21783, table 3), context 131,072.
LlamaConfig Llama31Shape8B();

struct SyntheticLlamaOptions {
  // has_rope_factors is ignored: `llama3_rope` decides.
  LlamaConfig config = SmallLlamaConfig();
  // Of the matrices of the layers. Norms are always F32.
  TensorType matrix_type = TensorType::kF32;
  std::optional<TensorType> embedding_type;  // matrix_type unless set
  std::optional<TensorType> output_type;     // matrix_type unless set; unused when tied
  // Adds rope_freqs.weight with these factors.
  std::optional<Llama3RopeScaling> llama3_rope;
  uint64_t seed = 1;
  // Adds a byte-level BPE tokenizer (tokenizer.ggml.model "gpt2", pre "llama-bpe"): the 256 bytes,
  // then merges of lower-case letters, and as the last four tokens <|begin_of_text|> (BOS),
  // <|end_of_text|> (EOS), <|im_start|> and <|im_end|> (EOT), with a chat template of turns between
  // the latter two. Needs a vocabulary of at least 260.
  bool with_tokenizer = true;
  // When not 0, each matrix is made of this many distinct rows, repeated in random order: writing a
  // large model then takes the disk's time, not the quantiser's.
  uint32_t distinct_rows = 0;
};

// A writer of that model, whose tensors are computed row by row when it writes. INVALID_ARGUMENT
// for a configuration out of its limits and for rows that are no whole number of blocks.
absl::StatusOr<GgufWriter> SyntheticLlama(const SyntheticLlamaOptions& options);
absl::StatusOr<std::vector<std::byte>> MakeSyntheticLlama(const SyntheticLlamaOptions& options);
absl::Status WriteSyntheticLlama(const SyntheticLlamaOptions& options, const std::string& path);

}  // namespace reticle::models

#endif  // RETICLE_MODELS_SYNTHETIC_H_
