#include "backends/hardwired/rom/model_run.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/check.h"
#include "base/status.h"

namespace reticle::backends::hardwired {

using kernels::AlignedMemory;
using kernels::BatchToken;
using kernels::Forward;

absl::StatusOr<std::unique_ptr<ModelRun>> ModelRun::Create(const kernels::Model& model,
                                                           kernels::ThreadPool& pool,
                                                           size_t max_tokens) {
  std::unique_ptr<ModelRun> run(new ModelRun());
  constexpr size_t kTile = kernels::kTilePositions;
  run->kv_ = {.type = kernels::KvType::kF16,
              .layers = model.config().layers,
              .kv_heads = model.config().kv_heads,
              .head_dim = model.config().head_dim,
              .block_tokens = (max_tokens + kTile - 1) / kTile * kTile};
  ASSIGN_OR_RETURN(run->kv_memory_, AlignedMemory::Allocate(run->kv_.block_bytes()));
  ASSIGN_OR_RETURN(run->forward_,
                   Forward::Create(model, pool, run->kv_, run->kv_memory_.data(),
                                   {.max_tokens = kChunk, .max_logit_rows = kChunk}));
  return run;
}

void ModelRun::Feed(std::span<const uint32_t> text, size_t first, size_t count,
                    const kernels::Adapter* adapter) {
  RETICLE_CHECK(count <= kChunk && first + count <= text.size());
  static constexpr uint32_t kBlock = 0;
  std::vector<BatchToken> batch;
  for (size_t i = first; i < first + count; ++i) {
    batch.push_back({.token = text[i],
                     .position = static_cast<uint32_t>(i),
                     .blocks = &kBlock,
                     .wants_logits = true,
                     .adapter = adapter});
  }
  forward_->Run(batch);
}

void LogSoftmax(std::span<const float> logits, std::span<double> out) {
  const double max = *std::ranges::max_element(logits);
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(logit - max);
  const double shift = max + std::log(sum);
  for (size_t i = 0; i < logits.size(); ++i) out[i] = logits[i] - shift;
}

double KlDivergence(std::span<const double> p, std::span<const double> q) {
  double sum = 0.0;
  for (size_t i = 0; i < p.size(); ++i) sum += std::exp(p[i]) * (p[i] - q[i]);
  return sum;
}

}  // namespace reticle::backends::hardwired
