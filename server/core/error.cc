#include "server/core/error.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "absl/strings/cord.h"
#include "base/check.h"
#include "base/retry_after.h"

namespace reticle::server {
namespace {

constexpr char kParamUrl[] = "reticle/param";
constexpr char kCodeUrl[] = "reticle/code";
constexpr char kHttpStatusUrl[] = "reticle/http_status";

absl::Status WithPayload(absl::Status status, const char* url, std::string_view value) {
  if (!status.ok() && !status.GetPayload(url).has_value()) {
    status.SetPayload(url, absl::Cord(std::string(value)));
  }
  return status;
}

std::string Payload(const absl::Status& status, const char* url) {
  const auto payload = status.GetPayload(url);
  return payload.has_value() ? std::string(*payload) : std::string();
}

struct Mapping {
  absl::StatusCode code;
  int http_status;
  const char* type;
  const char* default_code;
};

constexpr Mapping kMappings[] = {
    {absl::StatusCode::kInvalidArgument, 400, "invalid_request_error", ""},
    {absl::StatusCode::kOutOfRange, 400, "invalid_request_error", ""},
    {absl::StatusCode::kFailedPrecondition, 400, "invalid_request_error", ""},
    {absl::StatusCode::kUnauthenticated, 401, "authentication_error", "invalid_api_key"},
    {absl::StatusCode::kPermissionDenied, 403, "permission_error", ""},
    {absl::StatusCode::kNotFound, 404, "invalid_request_error", ""},
    {absl::StatusCode::kAlreadyExists, 409, "invalid_request_error", ""},
    {absl::StatusCode::kAborted, 409, "server_error", ""},
    {absl::StatusCode::kResourceExhausted, 429, "rate_limit_error", "rate_limit_exceeded"},
    {absl::StatusCode::kCancelled, 499, "request_cancelled", ""},
    {absl::StatusCode::kInternal, 500, "server_error", "internal_error"},
    {absl::StatusCode::kDataLoss, 500, "server_error", "internal_error"},
    {absl::StatusCode::kUnknown, 500, "server_error", "internal_error"},
    {absl::StatusCode::kUnimplemented, 501, "invalid_request_error", "unsupported"},
    {absl::StatusCode::kUnavailable, 503, "service_unavailable_error", "service_unavailable"},
    {absl::StatusCode::kDeadlineExceeded, 504, "timeout_error", "deadline_exceeded"},
};

}  // namespace

absl::Status WithParam(absl::Status status, std::string_view param) {
  return WithPayload(std::move(status), kParamUrl, param);
}

absl::Status WithCode(absl::Status status, std::string_view code) {
  return WithPayload(std::move(status), kCodeUrl, code);
}

absl::Status WithHttpStatus(absl::Status status, int http_status) {
  return WithPayload(std::move(status), kHttpStatusUrl, std::to_string(http_status));
}

ErrorInfo DescribeError(const absl::Status& status) {
  RETICLE_CHECK(!status.ok());
  ErrorInfo info;
  info.grpc_code = static_cast<int>(status.code());  // the two enumerations agree
  info.type = "server_error";
  info.code = "internal_error";
  for (const Mapping& mapping : kMappings) {
    if (mapping.code != status.code()) continue;
    info.http_status = mapping.http_status;
    info.type = mapping.type;
    info.code = mapping.default_code;
  }
  info.param = Payload(status, kParamUrl);
  if (std::string code = Payload(status, kCodeUrl); !code.empty()) info.code = std::move(code);
  if (const std::string http = Payload(status, kHttpStatusUrl); !http.empty()) {
    std::from_chars(http.data(), http.data() + http.size(), info.http_status);
  }
  if (const std::optional<int64_t> wait_ns = RetryAfterNs(status); wait_ns.has_value()) {
    info.retry_after_ms = std::max<int64_t>((*wait_ns + 999'999) / 1'000'000, 1);
    info.retry_after_s = static_cast<int>((info.retry_after_ms + 999) / 1000);
  }
  info.message = std::string(status.message());
  return info;
}

std::string_view HttpReason(int http_status) {
  switch (http_status) {
    case 100:
      return "Continue";
    case 200:
      return "OK";
    case 202:
      return "Accepted";
    case 303:
      return "See Other";
    case 304:
      return "Not Modified";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 411:
      return "Length Required";
    case 413:
      return "Payload Too Large";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 422:
      return "Unprocessable Entity";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 499:
      return "Client Closed Request";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "Unknown";
  }
}

}  // namespace reticle::server
