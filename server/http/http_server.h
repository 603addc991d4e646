// The HTTP/1.1 listener: threads, sockets and limits. No type of Asio or Beast shows here.
#ifndef RETICLE_SERVER_HTTP_HTTP_SERVER_H_
#define RETICLE_SERVER_HTTP_HTTP_SERVER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/core/front.h"
#include "server/core/loop_task.h"
#include "server/core/server_context.h"

namespace reticle::server::http {

struct HttpOptions {
  std::string host = "127.0.0.1";  // an address, or a name that resolves to one
  uint16_t port = 8080;            // 0: any free port
  // Other processes may listen on the address too; this one begins to when it is ready (OnReady).
  bool reuse_port = false;
  // A listening socket that is used instead of host and port, likewise when it is ready; -1: none.
  int inherited_fd = -1;
  uint32_t io_threads = 1;      // each with its own event loop; connections stay on theirs
  uint32_t worker_threads = 1;  // for long prompts
  uint32_t max_connections = 10000;
  size_t max_header_bytes = size_t{16} << 10;  // 431 beyond
  size_t max_body_bytes = size_t{8} << 20;     // 413 beyond
  // From the first byte of a request (or the connection's start) to the end of its header, ms; 408.
  int64_t header_timeout_ms = 10'000;
  int64_t body_timeout_ms = 60'000;   // from the end of the header to the end of the body; 408
  int64_t idle_timeout_ms = 75'000;   // between two requests of a connection
  int64_t write_timeout_ms = 30'000;  // without progress in writing: the client reads nothing
  // Formatted bytes that may wait for a slow client before its stream is held back.
  size_t max_unsent_bytes = size_t{64} << 10;
  // Of the bodies of requests that are read or answered, all together; 503 beyond.
  size_t max_request_memory = size_t{256} << 20;
  // Origins whose pages may call this server ("https://example.org", or "*" for all); none: CORS is
  // off.
  std::vector<std::string> cors_origins;
  // Proxies (addresses or networks) that are believed about whom they pass on, and the header in
  // which they say so: "x-forwarded-for", or "forwarded" (RFC 7239). Others are not.
  std::vector<std::string> trusted_proxies;
  std::string forwarded_header = "x-forwarded-for";
  // PEM files; both or neither. With them every connection is TLS (1.2 or later).
  std::string tls_cert;
  std::string tls_key;
  // What the connections are called in metrics.
  std::string front = "http";

  absl::Status Validate() const;
};

class Handler;

// Thread-safe but for construction and destruction.
class HttpServer : public Front, public LoopHost {
 public:
  // Binds, listens and starts the threads. `context` must outlive the server. INVALID_ARGUMENT for
  // options, UNAVAILABLE naming the address when it cannot be bound.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const HttpOptions& options,
                                                           ServerContext& context);
  // The same with another API than the public one; `handler` must outlive the server.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const HttpOptions& options,
                                                           ServerContext& context,
                                                           Handler* handler);
  // Closes every connection, cancels what runs, joins the threads.
  ~HttpServer() override;
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  uint16_t port() const;
  std::string address() const override;
  void OnReady() override;
  // From now on every reply is the last of its connection.
  void AnnounceDrain() override;
  // Connections that wait between requests are closed too. The listener stays open, so that health
  // checks are answered.
  void BeginDrain() override;
  void StopListening() override;
  absl::Status ReloadTls() override;
  void SetMaxConnections(uint32_t limit);
  // Connections with a request that is not yet answered to the last byte.
  int64_t busy() const override;
  int64_t open_connections() const;
  // Of these, the ones that have been accepted and have not said a word.
  int64_t silent_connections() const;
  // Tasks are spread over the I/O threads in the order in which they come.
  void Attach(LoopTask& task) override;
  void Detach(LoopTask& task) override;

 private:
  HttpServer();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace reticle::server::http

#endif  // RETICLE_SERVER_HTTP_HTTP_SERVER_H_
