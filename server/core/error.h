// The one place where our status codes become what clients see: HTTP statuses with OpenAI's error
// fields, and gRPC codes.
//
// OpenAI's `param` and `code` travel inside an absl::Status as payloads, so that validation, which
// knows them, needs no error type of its own.
#ifndef RETICLE_SERVER_CORE_ERROR_H_
#define RETICLE_SERVER_CORE_ERROR_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace reticle::server {

// `status` with the name of the request field at fault; the first name given stays.
absl::Status WithParam(absl::Status status, std::string_view param);
// `status` with OpenAI's machine-readable code, such as "context_length_exceeded".
absl::Status WithCode(absl::Status status, std::string_view code);
// `status` with another HTTP status than that of its absl code (405, 413, 431 ...).
absl::Status WithHttpStatus(absl::Status status, int http_status);

struct ErrorInfo {
  int http_status = 500;
  int grpc_code = 13;   // numbered as grpc::StatusCode
  std::string type;     // "invalid_request_error", "server_error", "rate_limit_error" ...
  std::string param;    // empty: none
  std::string code;     // empty: none
  std::string message;  // internal errors keep theirs: it never holds a prompt or a secret
  // A time that is kept: whoever waits that long is not refused for this reason again. Rounded up;
  // 0: nobody knows, and there is no Retry-After header.
  int retry_after_s = 0;
  int64_t retry_after_ms = 0;
};

// Requires !status.ok().
ErrorInfo DescribeError(const absl::Status& status);

// The reason phrase of an HTTP status ("Not Found"); "Unknown" for a number that we do not use.
std::string_view HttpReason(int http_status);

}  // namespace reticle::server

#endif  // RETICLE_SERVER_CORE_ERROR_H_
