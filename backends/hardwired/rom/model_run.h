// Runs texts through a model for measurements: one text at a time, all its positions at once.
#ifndef RETICLE_BACKENDS_HARDWIRED_ROM_MODEL_RUN_H_
#define RETICLE_BACKENDS_HARDWIRED_ROM_MODEL_RUN_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "backends/kernels/adapter.h"
#include "backends/kernels/aligned_memory.h"
#include "backends/kernels/forward.h"
#include "backends/kernels/model.h"
#include "backends/kernels/thread_pool.h"

namespace reticle::backends::hardwired {

// Borrows model and pool. One thread at a time.
class ModelRun {
 public:
  // `max_tokens`: the longest text.
  static absl::StatusOr<std::unique_ptr<ModelRun>> Create(const kernels::Model& model,
                                                          kernels::ThreadPool& pool,
                                                          size_t max_tokens);

  // Feeds tokens first .. first + count - 1 of a text, of which those before were fed already; at
  // most kChunk. logits(i) are those after token first + i.
  static constexpr size_t kChunk = 32;
  void Feed(std::span<const uint32_t> text, size_t first, size_t count,
            const kernels::Adapter* adapter = nullptr);
  std::span<const float> logits(size_t i) const { return forward_->logits(i); }

  kernels::Forward& forward() { return *forward_; }

 private:
  ModelRun() = default;

  kernels::KvGeometry kv_;
  kernels::AlignedMemory kv_memory_;
  std::unique_ptr<kernels::Forward> forward_;
};

// Log-probabilities of all tokens, in double precision.
void LogSoftmax(std::span<const float> logits, std::span<double> out);
// KL(p || q) of log-probabilities, nats.
double KlDivergence(std::span<const double> p, std::span<const double> q);

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_ROM_MODEL_RUN_H_
