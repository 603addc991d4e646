// What opening a device comes to: the numbers of a configuration checked against the model and the
// machine, before anything large is allocated.
#ifndef RETICLE_BACKENDS_CPU_OPEN_PLAN_H_
#define RETICLE_BACKENDS_CPU_OPEN_PLAN_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "backends/abi/reticle_device.h"
#include "backends/kernels/forward.h"
#include "backends/kernels/kv_cache.h"
#include "models/llama_config.h"

namespace reticle::backends::cpu {

struct OpenPlan {
  int threads = 1;
  kernels::KvGeometry kv;
  uint64_t kv_blocks = 0;
  uint32_t context_limit = 0;
  uint32_t max_sequences = 0;
  uint32_t step_tokens = 0;
  bool populate_kv = false;
  std::string packed_folder;  // of packed files; empty: none
  kernels::Forward::Options forward;

  uint64_t kv_bytes() const { return kv_blocks * kv.block_bytes(); }
};

// Bytes of memory that this process may still take: what the system says is available, bounded by
// its control groups. UINT64_MAX when neither is known. `root` is put before every path, for tests.
uint64_t AvailableMemory(const std::string& root = "");

// `config` is whole. INVALID_ARGUMENT names field, value and limit; RESOURCE_EXHAUSTED gives the
// needs of weights, KV and activations beside `available_bytes`.
absl::StatusOr<OpenPlan> MakeOpenPlan(const reticle_device_config& config,
                                      const models::LlamaConfig& model, uint64_t weight_bytes,
                                      uint64_t available_bytes);

}  // namespace reticle::backends::cpu

#endif  // RETICLE_BACKENDS_CPU_OPEN_PLAN_H_
