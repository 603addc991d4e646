#include "backends/cpu/bench/work_counts.h"

#include <algorithm>
#include <cmath>

namespace reticle::backends::cpu::bench {
namespace {

using models::GgufTensor;
using models::TensorType;

constexpr double kOpsPerMac = 2;

bool IsFloat(TensorType type) {
  return type == TensorType::kF32 || type == TensorType::kF16 || type == TensorType::kBF16;
}

}  // namespace

WorkCounts CountWork(const models::LlamaConfig& config, const models::LlamaWeights& weights,
                     double kv_element_bytes) {
  WorkCounts counts;
  for (const models::LlamaLayerWeights& layer : weights.layers) {
    for (const GgufTensor* matrix : {layer.attn_q, layer.attn_k, layer.attn_v, layer.attn_output,
                                     layer.ffn_gate, layer.ffn_up, layer.ffn_down}) {
      counts.layer_bytes += matrix->data.size();
      (IsFloat(matrix->type) ? counts.layer_float_macs : counts.layer_int8_macs) +=
          matrix->elements();
    }
    counts.layer_bytes += layer.attn_norm->data.size() + layer.ffn_norm->data.size();
  }
  counts.output_bytes = weights.output->data.size() + weights.output_norm->data.size();
  (IsFloat(weights.output->type) ? counts.output_float_macs : counts.output_int8_macs) =
      weights.output->elements();
  counts.row_bytes = weights.token_embd->data.size() / config.vocab_size;
  const double kv_values = 2.0 * config.layers * config.kv_dim();
  counts.kv_bytes = static_cast<uint64_t>(std::llround(kv_values * kv_element_bytes));
  counts.attention_macs = uint64_t{2} * config.layers * config.q_dim();
  return counts;
}

Work DecodeWork(const WorkCounts& counts, uint64_t sequences, uint64_t position) {
  const double tokens = static_cast<double>(sequences);
  const double seen = static_cast<double>(position + 1);
  Work work;
  work.bytes = static_cast<double>(counts.weight_bytes()) +
               tokens * (static_cast<double>(counts.row_bytes) +
                         seen * static_cast<double>(counts.kv_bytes));
  work.int8_ops =
      kOpsPerMac * tokens * static_cast<double>(counts.layer_int8_macs + counts.output_int8_macs);
  work.float_ops = kOpsPerMac * tokens *
                   (static_cast<double>(counts.layer_float_macs + counts.output_float_macs) +
                    seen * static_cast<double>(counts.attention_macs));
  return work;
}

Work PrefillWork(const WorkCounts& counts, uint64_t tokens, uint64_t step_tokens) {
  Work work;
  double looks = 0;  // positions that tokens look back on
  for (uint64_t fed = 0; fed < tokens;) {
    const uint64_t end = std::min(tokens, fed + step_tokens);
    work.bytes += static_cast<double>(counts.layer_bytes) +
                  static_cast<double>(end * counts.kv_bytes + (end - fed) * counts.row_bytes);
    const uint64_t of_step = end * (end + 1) / 2 - fed * (fed + 1) / 2;
    looks += static_cast<double>(of_step);
    fed = end;
  }
  work.bytes += static_cast<double>(counts.output_bytes);
  const double count = static_cast<double>(tokens);
  work.int8_ops = kOpsPerMac * (count * static_cast<double>(counts.layer_int8_macs) +
                                static_cast<double>(counts.output_int8_macs));
  work.float_ops = kOpsPerMac * (count * static_cast<double>(counts.layer_float_macs) +
                                 static_cast<double>(counts.output_float_macs) +
                                 looks * static_cast<double>(counts.attention_macs));
  return work;
}

}  // namespace reticle::backends::cpu::bench
