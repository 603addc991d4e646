// How long a device of a profile takes: pure functions of the profile and the load.
//
// Pipelined (hardwired chips, wafers, LPUs): one token of one stream takes T = 1 / decode_rate,
// plus context_term for each position before it. Up to pipeline_depth streams have that speed each;
// n streams beyond the depth d share, so each takes T * n / d. A prompt takes a place in the
// pipeline like any stream: prefill_fixed + tokens * prefill_per_token.
//
// Batched (GPUs): a step over n streams takes t0 + n * t1, with t1 = 1 / aggregate_rate and
// t0 + t1 = 1 / decode_rate. So one stream has decode_rate, each further one slows all down, and
// the sum approaches aggregate_rate. Prompts are prefilled one after the other in chunks of
// prefill_chunk tokens, each within a step, which is longer by the chunk's time.
#ifndef RETICLE_BACKENDS_HARDWIRED_TIMING_TIMING_MODEL_H_
#define RETICLE_BACKENDS_HARDWIRED_TIMING_TIMING_MODEL_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "backends/hardwired/profiles/profile.h"
#include "backends/hardwired/timing/device_time.h"

namespace reticle::backends::hardwired {

// The streams that a device works on.
struct DeviceLoad {
  uint32_t decoding = 0;    // the one asked about included
  uint32_t prefilling = 0;  // likewise
  // Batched: tokens of the prompt that is being prefilled now.
  uint32_t prefill_tokens = 0;
  uint32_t streams() const { return decoding + prefilling; }
};

// Immutable; any thread.
class TimingModel {
 public:
  // INVALID_ARGUMENT when the profile lacks a number that its way of batching needs.
  static absl::StatusOr<TimingModel> Create(const Profile& profile);

  // From one token of a stream to its next, which is at `position`.
  DeviceTime DecodeInterval(const DeviceLoad& load, uint32_t position) const;
  // From the start of an item that feeds `tokens` (at least one) at `position` to its end, at which
  // the first token is sampled. prefill_fixed counts at position 0 only. One token behind position
  // 0 is a decode step.
  DeviceTime PrefillTime(const DeviceLoad& load, uint32_t position, uint32_t tokens) const;
  DeviceTime adapter_swap() const { return adapter_swap_; }
  DeviceTime link_latency() const { return link_latency_; }
  // More for each token that the host samples: two ways over the link, and the sampling.
  DeviceTime host_sampling() const { return host_sampling_; }

  // True when prompts wait for each other (batched), false when they share the pipeline.
  bool prefills_in_turn() const { return batching_ == Batching::kBatched; }
  uint32_t pipeline_depth() const { return pipeline_depth_; }
  Batching batching() const { return batching_; }
  // Share of the device that `streams` keep busy, 0..1.
  double Activity(uint32_t streams) const;

  // In the steady state with `streams` decoding at position 0; tokens a second. 0: unlimited.
  double PerUserRate(uint32_t streams) const;
  double AggregateRate(uint32_t streams) const;

 private:
  TimingModel() = default;

  Batching batching_ = Batching::kPipelined;
  uint32_t pipeline_depth_ = 1;
  uint32_t prefill_chunk_ = 1;
  DeviceTime token_;          // pipelined: T; batched: t0
  DeviceTime token_of_each_;  // batched: t1
  DeviceTime context_term_;
  DeviceTime prefill_fixed_;
  DeviceTime prefill_per_token_;
  DeviceTime adapter_swap_;
  DeviceTime link_latency_;
  DeviceTime host_sampling_;
};

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_TIMING_TIMING_MODEL_H_
