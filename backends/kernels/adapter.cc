#include "backends/kernels/adapter.h"

#include <cmath>
#include <utility>

#include "backends/kernels/block_decode.h"
#include "base/status.h"

namespace reticle::backends::kernels {
namespace {

using models::GgufTensor;
using models::LoraLayer;
using models::LoraPair;
using models::LoraWeights;

uint64_t BytesOf(const LoraPair& pair) {
  if (pair.a == nullptr) return 0;
  return PackedBytes(PackedFormat::kF32, pair.a->shape[1], pair.a->shape[0]) +
         PackedBytes(PackedFormat::kF32, pair.b->shape[1], pair.b->shape[0]);
}

// The pairs of a layer in the order in which they are packed.
std::vector<const LoraPair*> PairsOf(const LoraLayer& layer) {
  return {&layer.attn_q,   &layer.attn_k, &layer.attn_v,  &layer.attn_output,
          &layer.ffn_gate, &layer.ffn_up, &layer.ffn_down};
}

absl::Status PackFloats(const GgufTensor& tensor, float scale, std::byte*& memory,
                        PackedMatrix* out) {
  const size_t columns = tensor.shape[0];
  const size_t rows = tensor.shape[1];
  *out = LayOutMatrix(PackedFormat::kF32, rows, columns, memory);
  memory += PackedBytes(PackedFormat::kF32, rows, columns);
  const models::TensorTypeTraits traits = models::Traits(tensor.type);
  const size_t row_bytes = columns / traits.elements * traits.bytes;
  std::vector<float> row(columns);
  for (size_t r = 0; r < rows; ++r) {
    DecodeRow(tensor.type, tensor.data.data() + r * row_bytes, columns, row.data());
    float* panel = reinterpret_cast<float*>(out->values + r / kPanelRows * out->values_stride);
    for (size_t i = 0; i < columns; ++i) {
      const float value = scale * row[i];
      if (!std::isfinite(value)) {
        return InvalidArgumentError("row %d of tensor '%s' holds a weight that is not finite", r,
                                    tensor.name);
      }
      panel[i * kPanelRows + r % kPanelRows] = value;
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Adapter>> Adapter::Open(const std::string& path,
                                                       const models::LlamaConfig& config,
                                                       float scale) {
  ASSIGN_OR_RETURN(const std::unique_ptr<models::GgufFile> file, models::GgufFile::Open(path));
  return Load(*file, config, scale);
}

absl::StatusOr<std::unique_ptr<Adapter>> Adapter::Load(const models::GgufFile& file,
                                                       const models::LlamaConfig& config,
                                                       float scale) {
  if (!std::isfinite(scale)) {
    return InvalidArgumentError("scale of the adapter is %g; it must be finite", scale);
  }
  ASSIGN_OR_RETURN(const LoraWeights weights, models::ReadLora(file, config));
  uint64_t bytes = BytesOf(weights.output);
  for (const LoraLayer& layer : weights.layers) {
    for (const LoraPair* pair : PairsOf(layer)) bytes += BytesOf(*pair);
  }
  std::unique_ptr<Adapter> adapter(new Adapter());
  ASSIGN_OR_RETURN(adapter->memory_, AlignedMemory::Allocate(bytes));
  std::byte* memory = adapter->memory_.data();
  const auto pack = [&](const LoraPair& pair, AdapterPair* out) -> absl::Status {
    if (pair.a == nullptr) return absl::OkStatus();
    RETURN_IF_ERROR(PackFloats(*pair.a, 1.0f, memory, &out->a));
    return PackFloats(*pair.b, weights.ScaleOf(pair, scale), memory, &out->b);
  };
  for (const LoraLayer& layer : weights.layers) {
    AdapterLayer& out = adapter->layers_.emplace_back();
    const std::vector<const LoraPair*> pairs = PairsOf(layer);
    size_t next = 0;
    for (AdapterPair* to : {&out.q, &out.k, &out.v, &out.o, &out.gate, &out.up, &out.down}) {
      RETURN_IF_ERROR(pack(*pairs[next++], to));
    }
  }
  RETURN_IF_ERROR(pack(weights.output, &adapter->output_));
  return adapter;
}

absl::Status AdapterTable::Load(uint64_t id, const std::string& path,
                                const models::LlamaConfig& config, float scale,
                                uint32_t max_adapters) {
  if (id == 0) return InvalidArgumentError("adapter is 0; ids begin at 1");
  if (adapters_.contains(id)) return AlreadyExistsError("adapter %d is loaded", id);
  if (adapters_.size() >= max_adapters) {
    return ResourceExhaustedError("%d adapters are loaded; max_adapters is %d", adapters_.size(),
                                  max_adapters);
  }
  ASSIGN_OR_RETURN(std::unique_ptr<Adapter> adapter, Adapter::Open(path, config, scale));
  adapters_[id] = std::move(adapter);
  return absl::OkStatus();
}

absl::Status AdapterTable::Unload(uint64_t id) {
  if (adapters_.erase(id) == 0) return NotFoundError("adapter %d is not loaded", id);
  return absl::OkStatus();
}

absl::StatusOr<const Adapter*> AdapterTable::Find(uint64_t id) const {
  if (id == 0) return nullptr;
  const auto found = adapters_.find(id);
  if (found == adapters_.end()) return NotFoundError("adapter %d is not loaded", id);
  return found->second.get();
}

}  // namespace reticle::backends::kernels
