// A Llama-architecture model ready to compute: weights packed for the kernels, norms and embedding
// rows as they lie in the file.
#ifndef RETICLE_BACKENDS_KERNELS_MODEL_H_
#define RETICLE_BACKENDS_KERNELS_MODEL_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "backends/kernels/aligned_memory.h"
#include "backends/kernels/packed_matrix.h"
#include "backends/kernels/thread_pool.h"
#include "models/gguf.h"
#include "models/llama_config.h"

namespace reticle::backends::kernels {

struct ModelLayer {
  std::span<const float> attn_norm;
  std::span<const float> ffn_norm;
  PackedMatrix q, k, v, o, gate, up, down;
};

// Immutable after Load, so thread-safe.
class Model {
 public:
  // Bytes of memory that Load takes for the packed weights.
  static absl::StatusOr<uint64_t> WeightBytes(const models::GgufFile& file);
  // Packs the weights of `file`, which must outlive the model, with the threads of `pool`. The
  // errors of ReadLlamaConfig and BindLlamaWeights; INVALID_ARGUMENT naming tensor and row for a
  // weight that is not finite; RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<Model>> Load(const models::GgufFile& file,
                                                     ThreadPool& pool);
  // The same with weights that are packed already: those of another model of this file, which must
  // outlive this one. The errors of ReadLlamaConfig and BindLlamaWeights; INVALID_ARGUMENT when
  // they are not WeightBytes long.
  static absl::StatusOr<std::unique_ptr<Model>> Map(const models::GgufFile& file,
                                                    std::span<const std::byte> weights);

  // A model of matrices that are packed already, in memory that outlives it. `embedding` is of a
  // format of device images, one row a token.
  struct Parts {
    models::LlamaConfig config;
    std::vector<ModelLayer> layers;
    std::span<const float> output_norm;
    PackedMatrix output;
    PackedMatrix embedding;
    std::vector<double> rope_frequencies;
  };
  static std::unique_ptr<Model> FromParts(Parts parts);

  // For tools that try other weights; not while anything computes. The matrix must outlive the
  // model or its replacement. An embedding is of a format of device images; with rows = 0 that of
  // the file counts again.
  ModelLayer& mutable_layer(size_t layer) { return layers_[layer]; }
  PackedMatrix& mutable_output() { return output_; }
  PackedMatrix& mutable_embedding() { return packed_embedding_; }

  const models::LlamaConfig& config() const { return config_; }
  std::span<const ModelLayer> layers() const { return layers_; }
  std::span<const float> output_norm() const { return output_norm_; }
  const PackedMatrix& output() const { return output_; }
  // Radians by which each pair of dimensions turns from one position to the next.
  std::span<const double> rope_frequencies() const { return rope_frequencies_; }
  // What Load packed.
  std::span<const std::byte> packed_weights() const { return {memory_.data(), memory_.size()}; }

  // Writes the embedding of `token` (below the vocabulary's size): dim floats.
  void Embed(uint32_t token, float* out) const;

 private:
  Model() = default;
  // A model of the file whose matrices lie at `weights`, in the order of Matrices.
  static absl::StatusOr<std::unique_ptr<Model>> Bind(const models::GgufFile& file,
                                                     std::byte* weights);

  models::LlamaConfig config_;
  AlignedMemory memory_;
  std::vector<ModelLayer> layers_;
  std::span<const float> output_norm_;
  PackedMatrix output_;
  std::vector<double> rope_frequencies_;
  // The embedding packed, or as it lies in a file when that has no rows.
  models::TensorType embedding_type_ = models::TensorType::kF32;
  const std::byte* embedding_ = nullptr;
  size_t embedding_row_bytes_ = 0;
  PackedMatrix packed_embedding_;
};

}  // namespace reticle::backends::kernels

#endif  // RETICLE_BACKENDS_KERNELS_MODEL_H_
