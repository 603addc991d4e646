// The seam between connections, which know bytes and sockets, and the API, which knows neither.
#ifndef RETICLE_SERVER_HTTP_HANDLER_H_
#define RETICLE_SERVER_HTTP_HANDLER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "scheduler/appointments.h"
#include "server/core/gate.h"
#include "server/http/response_writer.h"

namespace reticle::server {
struct RequestSummary;
}  // namespace reticle::server

namespace reticle::server::http {

struct HttpRequest {
  std::string method;
  std::string path;  // percent-decoded, without the query
  std::string body;
  std::string timeout_ms;                // the x-request-timeout-ms header; may be empty
  std::string authorization;             // that header; may be empty
  std::string origin;                    // likewise: a page in a browser asks
  std::string if_none_match;             // headers of the same name; may be empty
  std::string accept_encoding;           // likewise
  std::string content_type;              // likewise
  std::string peer;                      // the client's network address, seen through proxies
  std::shared_ptr<const Caller> caller;  // null for servers without accounts, and open paths
  std::string request_id;
  int64_t arrival_ns = 0;                // when its first byte was read, on the server's clock
  std::weak_ptr<const void> connection;  // gone when that is
};

// For refusals that tell a time to come back.
inline scheduler::Asker AskerOf(const HttpRequest& request) {
  if (request.caller == nullptr) return {.connection = request.connection};
  return {.tenant = request.caller->tenant,
          .most = request.caller->appointments,
          .connection = request.connection};
}

// Calls back into the connection's thread: may be called from any thread, any number of times, also
// when the connection is gone. Cheap, never blocks.
using Waker = std::function<void()>;

// A request being answered. Lives on its connection's thread. Destroying it before it is done gives
// the request up: the client is gone.
class Task {
 public:
  enum class Progress {
    kWaiting,  // the waker will be called
    kMore,     // has more to write as soon as the connection can take it
    kDone,     // the reply is complete
  };
  virtual ~Task() = default;
  // Appends what is ready to `writer`. It should stop when the writer's buffer holds `budget` bytes
  // or more; it is not called while the buffer is that full, which is how a slow client holds back
  // its own stream.
  virtual Progress Produce(ResponseWriter& writer, size_t budget) = 0;
  // All that was produced so far is the socket's, since `now_ns` on the server's clock.
  virtual void OnHandedOver(int64_t now_ns) {}
  // Fills in what it knows of the request's fate, when that is over. A prompt is added only with
  // `prompt`.
  virtual void Describe(bool prompt, RequestSummary& summary) const {}
  // Whether the work is to be given up as soon as the client closes its side.
  virtual bool abandon_on_disconnect() const { return false; }
};

// A reply that needs no body of the request and no thought.
struct Refusal {
  int status = 401;
  std::string body;  // JSON
};

class Handler {
 public:
  virtual ~Handler() = default;
  // Called when a request's head is there, before its body is read: whether whoever sent it may use
  // `path`. Sets `caller` to the holder of a good key, also where none is needed. Thread-safe and
  // quick.
  virtual std::optional<Refusal> AuthorizeHead(std::string_view method, std::string_view path,
                                               std::string_view authorization,
                                               std::shared_ptr<const Caller>& caller) {
    return std::nullopt;
  }
  // Thread-safe: called from every I/O thread.
  virtual std::unique_ptr<Task> Start(HttpRequest request, Waker waker) = 0;
  // The pattern of the route that answers `path`, for metrics; "unmatched".
  virtual std::string_view Route(std::string_view path) const = 0;
};

}  // namespace reticle::server::http

#endif  // RETICLE_SERVER_HTTP_HANDLER_H_
