// Spans of finished requests in the JSON mapping of OTLP 1.x (opentelemetry-proto, trace/v1): ids
// in hexadecimal, 64-bit numbers as strings, enumerations as numbers, names in lowerCamelCase.
#ifndef RETICLE_SERVER_TELEMETRY_OTLP_JSON_H_
#define RETICLE_SERVER_TELEMETRY_OTLP_JSON_H_

#include <cstdint>
#include <span>
#include <string>

#include "server/core/request_summary.h"

namespace reticle::server {

// What is kept of a summary until it is sent. Times are ns on the server's clock.
struct TracedRequest {
  explicit TracedRequest(const RequestSummary& summary);
  // The request's own, and one for each part of a generation that took place.
  size_t spans() const;

  TraceContext trace;
  std::string front, method, route, request_id, finish, model, device, service_tier, error;
  int status = 0;
  bool failed = false;
  bool admitted = false;
  int64_t begin_ns = 0, end_ns = 0, first_token_ns = 0;
  Usage usage;
};

struct OtlpResource {
  std::string service_name = "reticle";
  std::string service_version;
  std::string instance;  // service.instance.id
};

// The body of an ExportTraceServiceRequest. `unix_offset_ns` turns the server's clock into Unix
// time. Spans "queue", "prefill" and "decode" are children of the request's span.
std::string OtlpTraceJson(const OtlpResource& resource, std::span<const TracedRequest> requests,
                          int64_t unix_offset_ns);

}  // namespace reticle::server

#endif  // RETICLE_SERVER_TELEMETRY_OTLP_JSON_H_
