// What a server tells its operator about single requests: a line of the log each, and spans of
// those that are sampled.
#ifndef RETICLE_SERVER_TELEMETRY_TELEMETRY_H_
#define RETICLE_SERVER_TELEMETRY_TELEMETRY_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "server/core/request_summary.h"
#include "server/core/server_probe.h"
#include "server/telemetry/otlp_exporter.h"

namespace reticle::server {

struct TelemetryOptions {
  bool log_requests = true;
  bool log_prompts = false;
  double trace_ratio =
      1;             // of the traces that begin here; a caller's own flag decides for the rest
  OtlpOptions otlp;  // an empty endpoint: spans go nowhere

  absl::Status Validate() const;
};

// Thread-safe.
class Telemetry : public RequestListener {
 public:
  // `clock` and `probe` must outlive it.
  static absl::StatusOr<std::unique_ptr<Telemetry>> Create(const TelemetryOptions& options,
                                                           Clock& clock, ServerProbe& probe);

  // Takes over all but `otlp`.
  void Configure(const TelemetryOptions& options);
  // Tells the probe what went missing since the last call. From one thread.
  void ReportLosses();

  TraceContext Trace(std::string_view traceparent) override;
  bool wants_prompts() const override { return log_prompts_.load(std::memory_order_relaxed); }
  void OnRequestOver(const RequestSummary& summary) override;

 private:
  explicit Telemetry(ServerProbe& probe) : probe_(probe) {}

  ServerProbe& probe_;
  std::atomic<bool> log_requests_{true};
  std::atomic<bool> log_prompts_{false};
  std::atomic<double> trace_ratio_{0};
  std::unique_ptr<OtlpExporter> exporter_;  // null: none
  uint64_t lost_lines_ = 0;
  uint64_t lost_spans_ = 0;
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_TELEMETRY_TELEMETRY_H_
