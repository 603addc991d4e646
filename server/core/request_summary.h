// What became of one request, told once when it is over: the seam between the fronts and whoever
// writes logs and traces (server/telemetry).
#ifndef RETICLE_SERVER_CORE_REQUEST_SUMMARY_H_
#define RETICLE_SERVER_CORE_REQUEST_SUMMARY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "server/core/gate.h"
#include "server/core/generation.h"
#include "server/core/model.h"
#include "server/core/server_probe.h"
#include "server/core/trace_context.h"

namespace reticle::server {

// Views are valid during the call only. Times are ns on the server's clock.
struct RequestSummary {
  std::string_view front;   // "http", "grpc", "admin"
  std::string_view method;  // "POST"; of gRPC the call's name
  std::string_view route;   // the route's pattern; of gRPC the call's name
  std::string_view request_id;
  TraceContext trace;
  std::shared_ptr<const Caller> caller;  // null: nobody known
  // HTTP status (499: the client went away), or gRPC code.
  int status = 0;
  bool failed = false;  // the server's own fault
  absl::Status error;   // what the client was told, or OK
  int64_t arrival_ns = 0;
  int64_t end_ns = 0;

  // ---- of requests for a generation
  bool generation = false;
  bool admitted = false;              // it was handed to a device's queue; else the rest is empty
  Outcome outcome = Outcome::kAbort;  // of those that were
  std::shared_ptr<const ModelEntry> model;  // null: not known
  std::string_view service_tier;
  Usage usage;
  uint32_t choices = 0;
  int64_t first_token_ns = 0;  // 0: none was handed to the front
  bool stream = false;
  std::string prompt;  // only when the listener asked for it
};

// Thread-safe. Calls come from the threads that serve; they must be quick.
class RequestListener {
 public:
  virtual ~RequestListener() = default;
  // The context of a request that came with this traceparent header (may be empty).
  virtual TraceContext Trace(std::string_view traceparent) { return BeginTrace(traceparent, 0); }
  // Whether RequestSummary::prompt is to be filled.
  virtual bool wants_prompts() const { return false; }
  virtual void OnRequestOver(const RequestSummary& summary) {}
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_CORE_REQUEST_SUMMARY_H_
