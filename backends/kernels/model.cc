#include "backends/kernels/model.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <optional>
#include <string>
#include <utility>

#include "backends/kernels/block_decode.h"
#include "base/check.h"
#include "base/status.h"
#include "models/rope.h"

namespace reticle::backends::kernels {
namespace {

using models::GgufTensor;
using models::LlamaConfig;
using models::LlamaLayerWeights;
using models::LlamaWeights;

// Panels that are packed between two looks at what is left.
constexpr size_t kRunPanels = 16;

uint64_t BytesOf(const GgufTensor& tensor) {
  return PackedBytes(FormatOf(tensor.type), tensor.rows(), tensor.shape[0]);
}

// The matrices of a model in the order in which they are packed.
std::vector<const GgufTensor*> Matrices(const LlamaWeights& weights) {
  std::vector<const GgufTensor*> matrices;
  for (const LlamaLayerWeights& layer : weights.layers) {
    for (const GgufTensor* tensor : {layer.attn_q, layer.attn_k, layer.attn_v, layer.attn_output,
                                     layer.ffn_gate, layer.ffn_up, layer.ffn_down}) {
      matrices.push_back(tensor);
    }
  }
  matrices.push_back(weights.output);
  return matrices;
}

absl::Status CheckFinite(const GgufTensor& tensor) {
  for (const float value : models::AsFloats(tensor)) {
    if (!std::isfinite(value)) {
      return InvalidArgumentError("tensor %s holds a value that is not finite", tensor.name);
    }
  }
  return absl::OkStatus();
}

// A run of panels of one matrix.
struct Run {
  size_t matrix;
  size_t first;
  size_t end;
};

// The runs that a worker packs unless another one has time before it: its panels of each matrix, so
// that it is the first to touch what it will read.
std::vector<Run> RunsOf(const std::vector<PackedMatrix>& packed, int worker, int workers) {
  std::vector<Run> runs;
  for (size_t i = 0; i < packed.size(); ++i) {
    const auto [first, end] = StaticRange(packed[i].panels, worker, workers);
    for (size_t at = first; at < end; at += kRunPanels) {
      runs.push_back({i, at, std::min(at + kRunPanels, end)});
    }
  }
  return runs;
}

// The bytes of the rows that a run is packed from.
std::span<const std::byte> SourceOf(const GgufTensor& tensor, const Run& run) {
  const size_t row_bytes = tensor.data.size() / tensor.rows();
  const size_t end = std::min<size_t>(run.end * kPanelRows, tensor.rows());
  return tensor.data.subspan(run.first * kPanelRows * row_bytes,
                             (end - run.first * kPanelRows) * row_bytes);
}

// Packs all matrices with all workers.
absl::Status PackAll(const models::GgufFile& file, const std::vector<const GgufTensor*>& tensors,
                     const std::vector<PackedMatrix>& packed, ThreadPool& pool) {
  constexpr uint64_t kNone = ~uint64_t{0};
  const int workers = pool.threads();
  std::vector<std::vector<Run>> runs;
  for (int worker = 0; worker < workers; ++worker) {
    runs.push_back(RunsOf(packed, worker, workers));
  }
  std::vector<std::atomic<size_t>> taken(workers);
  std::atomic<uint64_t> bad{kNone};  // tensor index << 32 | row, the smallest
  pool.Run([&](int worker) {
    for (int turn = 0; turn < workers; ++turn) {
      const int owner = (worker + turn) % workers;
      for (size_t next = taken[owner]++; next < runs[owner].size(); next = taken[owner]++) {
        const Run& run = runs[owner][next];
        const GgufTensor& tensor = *tensors[run.matrix];
        std::optional<size_t> row;
        file.ReadOnce(SourceOf(tensor, run), [&] {
          row = PackPanels(tensor.type, tensor.data.data(), run.first, run.end, packed[run.matrix]);
        });
        if (!row.has_value()) continue;
        const uint64_t place = static_cast<uint64_t>(run.matrix) << 32 | *row;
        uint64_t seen = bad.load();
        while (place < seen && !bad.compare_exchange_weak(seen, place)) {
        }
      }
    }
  });
  if (bad.load() == kNone) return absl::OkStatus();
  return InvalidArgumentError("row %d of tensor %s holds a weight or scale that is not finite",
                              bad.load() & 0xffffffffu, tensors[bad.load() >> 32]->name);
}

}  // namespace

absl::StatusOr<uint64_t> Model::WeightBytes(const models::GgufFile& file) {
  ASSIGN_OR_RETURN(const LlamaConfig config, models::ReadLlamaConfig(file));
  ASSIGN_OR_RETURN(const LlamaWeights weights, models::BindLlamaWeights(file, config));
  uint64_t bytes = 0;
  for (const GgufTensor* tensor : Matrices(weights)) bytes += BytesOf(*tensor);
  return bytes;
}

absl::StatusOr<std::unique_ptr<Model>> Model::Bind(const models::GgufFile& file,
                                                   std::byte* weights_at) {
  std::unique_ptr<Model> model(new Model());
  ASSIGN_OR_RETURN(model->config_, models::ReadLlamaConfig(file));
  ASSIGN_OR_RETURN(const LlamaWeights weights, models::BindLlamaWeights(file, model->config_));
  ASSIGN_OR_RETURN(model->rope_frequencies_, models::RopeFrequencies(model->config_, weights));
  const auto next = [&weights_at](const GgufTensor& tensor) {
    std::byte* const at = weights_at;
    weights_at += BytesOf(tensor);
    return LayOutMatrix(FormatOf(tensor.type), tensor.rows(), tensor.shape[0], at);
  };
  for (const LlamaLayerWeights& layer : weights.layers) {
    RETURN_IF_ERROR(CheckFinite(*layer.attn_norm));
    RETURN_IF_ERROR(CheckFinite(*layer.ffn_norm));
    ModelLayer& out = model->layers_.emplace_back();
    out.attn_norm = models::AsFloats(*layer.attn_norm);
    out.ffn_norm = models::AsFloats(*layer.ffn_norm);
    out.q = next(*layer.attn_q);
    out.k = next(*layer.attn_k);
    out.v = next(*layer.attn_v);
    out.o = next(*layer.attn_output);
    out.gate = next(*layer.ffn_gate);
    out.up = next(*layer.ffn_up);
    out.down = next(*layer.ffn_down);
  }
  RETURN_IF_ERROR(CheckFinite(*weights.output_norm));
  model->output_norm_ = models::AsFloats(*weights.output_norm);
  model->output_ = next(*weights.output);

  const models::TensorTypeTraits traits = models::Traits(weights.token_embd->type);
  model->embedding_type_ = weights.token_embd->type;
  model->embedding_ = weights.token_embd->data.data();
  model->embedding_row_bytes_ = weights.token_embd->shape[0] / traits.elements * traits.bytes;
  return model;
}

absl::StatusOr<std::unique_ptr<Model>> Model::Load(const models::GgufFile& file, ThreadPool& pool) {
  ASSIGN_OR_RETURN(const uint64_t bytes, WeightBytes(file));
  ASSIGN_OR_RETURN(AlignedMemory memory, AlignedMemory::Allocate(bytes));
  ASSIGN_OR_RETURN(std::unique_ptr<Model> model, Bind(file, memory.data()));
  model->memory_ = std::move(memory);
  std::vector<PackedMatrix> packed;
  for (const ModelLayer& layer : model->layers_) {
    for (const PackedMatrix& matrix :
         {layer.q, layer.k, layer.v, layer.o, layer.gate, layer.up, layer.down}) {
      packed.push_back(matrix);
    }
  }
  packed.push_back(model->output_);
  ASSIGN_OR_RETURN(const LlamaWeights weights, models::BindLlamaWeights(file, model->config_));
  RETURN_IF_ERROR(PackAll(file, Matrices(weights), packed, pool));
  return model;
}

absl::StatusOr<std::unique_ptr<Model>> Model::Map(const models::GgufFile& file,
                                                  std::span<const std::byte> weights) {
  ASSIGN_OR_RETURN(const uint64_t bytes, WeightBytes(file));
  if (weights.size() != bytes) {
    return InvalidArgumentError("the packed weights have %d bytes; the model's have %d",
                                weights.size(), bytes);
  }
  // Nothing writes to them but Load.
  return Bind(file, const_cast<std::byte*>(weights.data()));
}

std::unique_ptr<Model> Model::FromParts(Parts parts) {
  RETICLE_CHECK(IsImageFormat(parts.embedding.format));
  std::unique_ptr<Model> model(new Model());
  model->config_ = std::move(parts.config);
  model->layers_ = std::move(parts.layers);
  model->output_norm_ = parts.output_norm;
  model->output_ = parts.output;
  model->rope_frequencies_ = std::move(parts.rope_frequencies);
  model->packed_embedding_ = parts.embedding;
  return model;
}

void Model::Embed(uint32_t token, float* out) const {
  if (packed_embedding_.rows != 0) {
    UnpackRow(packed_embedding_, token, out);
    return;
  }
  DecodeRow(embedding_type_, embedding_ + token * embedding_row_bytes_, config_.dim, out);
}

}  // namespace reticle::backends::kernels
