#include "server/http/response_writer.h"

#include <ctime>
#include <utility>

#include "server/core/error.h"
#include "server/http/json_writer.h"

namespace reticle::server::http {
namespace {

constexpr size_t kChunkHead = 10;  // eight hexadecimal digits, CR, LF

// The Date header's value, formatted once a second.
std::string_view HttpDate() {
  thread_local std::time_t formatted = 0;
  thread_local char text[40];
  thread_local size_t size = 0;
  const std::time_t now = std::time(nullptr);
  if (now != formatted) {
    std::tm parts{};
    gmtime_r(&now, &parts);
    size = std::strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &parts);
    formatted = now;
  }
  return {text, size};
}

void AppendOrNull(std::string& out, const std::string& value) {
  if (value.empty()) {
    out.append("null");
  } else {
    AppendJsonString(out, value);
  }
}

}  // namespace

void ResponseWriter::Begin(ReplyTerms terms) {
  terms_ = std::move(terms);
  status_ = 0;
  streaming_ = false;
}

void ResponseWriter::Head(int status, std::string_view content_type,
                          std::string_view extra_headers) {
  status_ = status;
  buffer_.append("HTTP/1.1 ");
  AppendInt(buffer_, status);
  buffer_.append(" ").append(HttpReason(status)).append("\r\nDate: ").append(HttpDate());
  buffer_.append("\r\nServer: reticle\r\nx-request-id: ").append(terms_.request_id);
  if (!terms_.traceparent.empty()) {
    buffer_.append("\r\ntraceparent: ").append(terms_.traceparent);
  }
  if (!content_type.empty()) buffer_.append("\r\nContent-Type: ").append(content_type);
  if (!terms_.keep_alive) {
    buffer_.append("\r\nConnection: close");
  } else if (terms_.http_1_0) {
    buffer_.append("\r\nConnection: keep-alive");
  }
  buffer_.append("\r\n").append(extra_headers);
  if (terms_.headers) terms_.headers(buffer_);
}

void ResponseWriter::Send(int status, std::string_view content_type, std::string_view body,
                          std::string_view extra_headers) {
  Head(status, content_type, extra_headers);
  buffer_.append("Content-Length: ");
  AppendInt(buffer_, static_cast<int64_t>(body.size()));
  buffer_.append("\r\n\r\n");
  if (!terms_.head && status != 304) buffer_.append(body);
}

void ResponseWriter::SendError(const absl::Status& error, std::string_view extra_headers) {
  const ErrorInfo info = DescribeError(error);
  std::string headers(extra_headers);
  AppendRetryAfter(headers, info);
  std::string body;
  AppendErrorJson(body, error);
  Send(info.http_status, "application/json", body, headers);
}

void ResponseWriter::BeginStream(std::string_view content_type) {
  if (terms_.http_1_0) terms_.keep_alive = false;
  Head(200, content_type, "Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n");
  if (!terms_.http_1_0) buffer_.append("Transfer-Encoding: chunked\r\n");
  buffer_.append("\r\n");
  streaming_ = true;
}

std::string& ResponseWriter::BeginChunk() {
  chunk_begin_ = buffer_.size();
  if (!terms_.http_1_0) buffer_.append("00000000\r\n");
  return buffer_;
}

void ResponseWriter::EndChunk() {
  if (terms_.http_1_0) return;
  size_t size = buffer_.size() - chunk_begin_ - kChunkHead;
  if (size == 0) {
    buffer_.resize(chunk_begin_);
    return;
  }
  for (int digit = 7; digit >= 0; --digit, size >>= 4) {
    buffer_[chunk_begin_ + static_cast<size_t>(digit)] = "0123456789abcdef"[size & 15];
  }
  buffer_.append("\r\n");
}

void ResponseWriter::EndStream() {
  if (!terms_.http_1_0) buffer_.append("0\r\n\r\n");
  streaming_ = false;
}

void AppendRetryAfter(std::string& out, const ErrorInfo& info) {
  if (info.retry_after_s == 0) return;
  out.append("Retry-After: ");
  AppendInt(out, info.retry_after_s);
  out.append("\r\nretry-after-ms: ");
  AppendInt(out, info.retry_after_ms);
  out.append("\r\n");
}

void AppendErrorJson(std::string& out, const absl::Status& error) {
  const ErrorInfo info = DescribeError(error);
  out.append(R"({"error":{"message":)");
  AppendJsonString(out, info.message);
  out.append(R"(,"type":)");
  AppendJsonString(out, info.type);
  out.append(R"(,"param":)");
  AppendOrNull(out, info.param);
  out.append(R"(,"code":)");
  AppendOrNull(out, info.code);
  out.append("}}");
}

}  // namespace reticle::server::http
