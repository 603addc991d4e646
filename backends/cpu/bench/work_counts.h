// What computing with a Llama model takes at least: bytes read and operations done, from the shapes
// and types of its tensors. Divided by the time they give GB/s and GOP/s; beside what the machine
// can do, the distance to the roofline.
//
// Bytes are those of the file's tensors, whatever a device makes of them in its memory, and of the
// keys and values in their type. A multiply-add counts as two operations.
#ifndef RETICLE_BACKENDS_CPU_BENCH_WORK_COUNTS_H_
#define RETICLE_BACKENDS_CPU_BENCH_WORK_COUNTS_H_

#include <cstdint>

#include "models/llama_config.h"

namespace reticle::backends::cpu::bench {

struct Work {
  double bytes = 0;
  double int8_ops = 0;   // of products with quantised weights
  double float_ops = 0;  // of products with float weights, and of attention

  double ops() const { return int8_ops + float_ops; }
};

struct WorkCounts {
  uint64_t layer_bytes = 0;   // matrices and norms of all layers, once a step
  uint64_t output_bytes = 0;  // output matrix and norm, once a step with logits
  uint64_t row_bytes = 0;     // of the embedding, once a token
  // Multiply-adds of one token.
  uint64_t layer_int8_macs = 0;
  uint64_t layer_float_macs = 0;
  uint64_t output_int8_macs = 0;
  uint64_t output_float_macs = 0;
  // Of one position that a token looks back on, itself included.
  uint64_t kv_bytes = 0;
  uint64_t attention_macs = 0;

  uint64_t weight_bytes() const { return layer_bytes + output_bytes; }
};

// `kv_element_bytes`: of a key or value on average, 2 for F16 and 34 / 32 for Q8_0.
WorkCounts CountWork(const models::LlamaConfig& config, const models::LlamaWeights& weights,
                     double kv_element_bytes);

// One step that feeds a token to each of `sequences` sequences at `position`, with logits.
Work DecodeWork(const WorkCounts& counts, uint64_t sequences, uint64_t position);

// A prompt of `tokens` from position 0 in steps of at most `step_tokens`, with logits behind the
// last token. Keys and values count once a step.
Work PrefillWork(const WorkCounts& counts, uint64_t tokens, uint64_t step_tokens);

}  // namespace reticle::backends::cpu::bench

#endif  // RETICLE_BACKENDS_CPU_BENCH_WORK_COUNTS_H_
