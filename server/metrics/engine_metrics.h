// The metrics of one engine: counts what its probe tells and renders it under vLLM's names, so that
// dashboards, autoscalers and gateways written for vLLM work unchanged.
#ifndef RETICLE_SERVER_METRICS_ENGINE_METRICS_H_
#define RETICLE_SERVER_METRICS_ENGINE_METRICS_H_

#include <atomic>
#include <cstdint>
#include <string>

#include "scheduler/engine_probe.h"
#include "server/metrics/buckets.h"
#include "server/metrics/device_metrics.h"
#include "server/metrics/family_set.h"
#include "server/metrics/histogram.h"

namespace reticle::server {

// Written by the engine thread, read by whichever thread scrapes; no locks.
class EngineMetrics final : public scheduler::EngineProbe {
 public:
  struct Identity {
    std::string model_name;
    std::string engine;            // "0", "1", ...
    uint32_t kv_block_tokens = 0;  // for vllm:cache_config_info
    std::string device;            // "taalas-hc1"
    std::string card;              // "0", "1", ...
  };
  explicit EngineMetrics(const Buckets& buckets);

  void OnStep(uint32_t prefill_tokens, uint32_t decode_tokens,
              const scheduler::EngineGauges& gauges) override;
  void OnAdmitted(const scheduler::Request& request, uint32_t prompt_tokens, uint32_t cached_tokens,
                  int64_t queue_ns) override;
  void OnFirstToken(int64_t since_arrival_ns) override;
  void OnInterTokenGaps(int64_t total_ns, uint32_t count) override;
  void OnPreemption() override;
  void OnFinished(const scheduler::Request& request, const scheduler::SequenceEnd& end) override;
  void OnRejected(const absl::Status& status) override;
  void OnDeviceLost(bool hung) override { device_.OnLost(hung); }
  void OnDeviceReset(bool succeeded) override { device_.OnReset(succeeded); }
  void OnFailover(uint32_t sequences) override { device_.OnFailover(sequences); }

  // Takes the gauges at the moment of a scrape, so that an idle engine, which takes no steps, does
  // not show old ones.
  void SetGauges(const scheduler::EngineGauges& gauges);
  // Adds this engine's series and its device's.
  void Collect(const Identity& identity, const DeviceSnapshot& device, int64_t now_ns,
               FamilySet& families);

 private:
  DeviceMetrics device_;
  std::atomic<uint32_t> running_{0};
  std::atomic<uint32_t> waiting_{0};
  std::atomic<uint32_t> kv_blocks_total_{0};
  std::atomic<uint32_t> kv_blocks_used_{0};

  Counter prefix_cache_queries_;
  Counter prefix_cache_hits_;
  Counter preemptions_;
  Counter prompt_tokens_;
  Counter prompt_tokens_cached_;
  Counter generation_tokens_;
  Counter rejected_queue_full_;
  Counter rejected_unavailable_;
  Counter rejected_invalid_;
  Counter device_busy_ns_;
  Counter energy_nj_;

  Histogram time_to_first_token_;
  Histogram inter_token_latency_;
  Histogram time_per_output_token_;
  Histogram queue_time_;
  Histogram inference_time_;
  Histogram prefill_time_;
  Histogram decode_time_;
  Histogram iteration_tokens_;
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_METRICS_ENGINE_METRICS_H_
