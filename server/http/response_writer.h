// Formats HTTP/1.x replies into a buffer: whole ones, and streams in chunked coding.
#ifndef RETICLE_SERVER_HTTP_RESPONSE_WRITER_H_
#define RETICLE_SERVER_HTTP_RESPONSE_WRITER_H_

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "server/core/error.h"

namespace reticle::server::http {

// What the reply depends on in its request.
struct ReplyTerms {
  bool http_1_0 = false;
  bool head = false;  // the body is announced but not sent
  bool keep_alive = true;
  std::string request_id;
  std::string traceparent = {};  // W3C Trace Context; empty: none
  // Appends further header lines when the head is written; may be empty.
  std::function<void(std::string&)> headers = {};
};

// One per connection, Begin()-ed for each request. Either Send/SendError once, or BeginStream, any
// number of chunks, EndStream. Not thread-safe.
class ResponseWriter {
 public:
  void Begin(ReplyTerms terms);

  // `extra_headers`: whole lines, each ending in CRLF. The body of a 304 is announced, not sent.
  void Send(int status, std::string_view content_type, std::string_view body,
            std::string_view extra_headers = {});
  // OpenAI's error shape, the status and headers that error.h gives.
  void SendError(const absl::Status& error, std::string_view extra_headers = {});

  void BeginStream(std::string_view content_type);
  // Bytes appended to the result between the two calls are one chunk on the wire; an empty one is
  // left out.
  std::string& BeginChunk();
  void EndChunk();
  void EndStream();

  // The connection is to be closed after this reply. Before its head is written.
  void CloseAfter() { terms_.keep_alive = false; }

  bool started() const { return status_ != 0; }
  bool streaming() const { return streaming_; }
  int status() const { return status_; }
  bool keep_alive() const { return terms_.keep_alive; }
  const std::string& request_id() const { return terms_.request_id; }

  // What is formatted and not yet taken by the connection.
  std::string& buffer() { return buffer_; }
  const std::string& buffer() const { return buffer_; }

 private:
  void Head(int status, std::string_view content_type, std::string_view extra_headers);

  std::string buffer_;
  ReplyTerms terms_;
  int status_ = 0;
  bool streaming_ = false;
  size_t chunk_begin_ = 0;
};

// The header lines Retry-After (seconds) and retry-after-ms; nothing when `info` has no such time.
void AppendRetryAfter(std::string& out, const ErrorInfo& info);
// {"error":{"message":..,"type":..,"param":..,"code":..}}
void AppendErrorJson(std::string& out, const absl::Status& error);

}  // namespace reticle::server::http

#endif  // RETICLE_SERVER_HTTP_RESPONSE_WRITER_H_
