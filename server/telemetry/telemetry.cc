#include "server/telemetry/telemetry.h"

#include <utility>

#include "base/log.h"
#include "base/status.h"
#include "server/telemetry/request_log.h"

namespace reticle::server {

absl::Status TelemetryOptions::Validate() const {
  if (!(trace_ratio >= 0 && trace_ratio <= 1)) {
    return InvalidArgumentError("the trace ratio is %g; it must be from 0 to 1", trace_ratio);
  }
  if (otlp.endpoint.empty()) return absl::OkStatus();
  return ParseHttpEndpoint(otlp.endpoint, "/").status();
}

absl::StatusOr<std::unique_ptr<Telemetry>> Telemetry::Create(const TelemetryOptions& options,
                                                             Clock& clock, ServerProbe& probe) {
  RETURN_IF_ERROR(options.Validate());
  std::unique_ptr<Telemetry> telemetry(new Telemetry(probe));
  if (!options.otlp.endpoint.empty()) {
    ASSIGN_OR_RETURN(telemetry->exporter_, OtlpExporter::Create(options.otlp, clock));
  }
  telemetry->Configure(options);
  return telemetry;
}

void Telemetry::Configure(const TelemetryOptions& options) {
  log_requests_.store(options.log_requests);
  log_prompts_.store(options.log_prompts);
  trace_ratio_.store(options.trace_ratio);
}

void Telemetry::ReportLosses() {
  const uint64_t lines = CountLog().dropped;
  const uint64_t spans = exporter_ != nullptr ? exporter_->counts().dropped : 0;
  if (lines > lost_lines_) probe_.OnTelemetryLost("log_lines", lines - lost_lines_);
  if (spans > lost_spans_) probe_.OnTelemetryLost("spans", spans - lost_spans_);
  lost_lines_ = lines;
  lost_spans_ = spans;
}

TraceContext Telemetry::Trace(std::string_view traceparent) {
  // Without a collector nothing is recorded here, but a caller's flag is handed on.
  return BeginTrace(traceparent, exporter_ != nullptr ? trace_ratio_.load() : 0);
}

void Telemetry::OnRequestOver(const RequestSummary& summary) {
  if (log_requests_.load(std::memory_order_relaxed) || summary.front == "admin") {
    LogRequest(summary);
  }
  if (exporter_ != nullptr && summary.trace.sampled && summary.generation) exporter_->Add(summary);
}

}  // namespace reticle::server
