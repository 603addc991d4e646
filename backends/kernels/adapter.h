// A low-rank adapter ready to compute: its pairs as float matrices, the scale multiplied in.
#ifndef RETICLE_BACKENDS_KERNELS_ADAPTER_H_
#define RETICLE_BACKENDS_KERNELS_ADAPTER_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "backends/kernels/aligned_memory.h"
#include "backends/kernels/packed_matrix.h"
#include "models/gguf.h"
#include "models/llama_config.h"
#include "models/lora.h"

namespace reticle::backends::kernels {

// Adds b (a x) to a product; `a` has no rows where a matrix is not adapted.
struct AdapterPair {
  PackedMatrix a;
  PackedMatrix b;
  bool empty() const { return a.rows == 0; }
};

struct AdapterLayer {
  AdapterPair q, k, v, o, gate, up, down;
};

// Immutable after Load, so thread-safe. Needs nothing of the file afterwards.
class Adapter {
 public:
  // The errors of GgufFile::Open and ReadLora; INVALID_ARGUMENT for a scale or weights that are not
  // finite; RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<Adapter>> Open(const std::string& path,
                                                       const models::LlamaConfig& config,
                                                       float scale);
  static absl::StatusOr<std::unique_ptr<Adapter>> Load(const models::GgufFile& file,
                                                       const models::LlamaConfig& config,
                                                       float scale);

  const AdapterLayer& layer(size_t i) const { return layers_[i]; }
  const AdapterPair& output() const { return output_; }

 private:
  Adapter() = default;

  AlignedMemory memory_;
  std::vector<AdapterLayer> layers_;
  AdapterPair output_;
};

// The adapters that a device has loaded, by the host's id. Not thread-safe.
class AdapterTable {
 public:
  // As adapter_load and adapter_unload of the device ABI, whose errors they give; that no sequence
  // uses the adapter is for the caller to see to.
  absl::Status Load(uint64_t id, const std::string& path, const models::LlamaConfig& config,
                    float scale, uint32_t max_adapters);
  absl::Status Unload(uint64_t id);
  // NOT_FOUND; null for id 0, which means none. Valid until it is unloaded.
  absl::StatusOr<const Adapter*> Find(uint64_t id) const;

 private:
  std::map<uint64_t, std::unique_ptr<Adapter>> adapters_;
};

}  // namespace reticle::backends::kernels

#endif  // RETICLE_BACKENDS_KERNELS_ADAPTER_H_
