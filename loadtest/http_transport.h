// Requests over HTTP/1.1 with kept-alive connections, on one epoll.
#ifndef RETICLE_LOADTEST_HTTP_TRANSPORT_H_
#define RETICLE_LOADTEST_HTTP_TRANSPORT_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "loadtest/endpoint.h"
#include "loadtest/reply_reader.h"
#include "loadtest/tls.h"
#include "loadtest/transport.h"

namespace reticle::loadtest {

struct HttpTransportOptions {
  Endpoint endpoint;
  SocketAddress address;
  const TlsContext* tls = nullptr;  // null: plain; must outlive the transport
  std::string path;                 // "/v1/chat/completions"
  std::string api_key;
  int64_t max_connections = 0;  // 0: no limit
  int64_t timeout_ns = 0;
  int64_t connect_timeout_ns = 0;
};

// See Transport. A request takes an idle connection or opens one; one that reads slowly gets its
// own with a small receive buffer. When the server closed an idle connection at the moment of
// sending, the request is sent again on a new one.
class HttpTransport : public Transport {
 public:
  // `recorder` must outlive the transport. INTERNAL when the system gives no epoll.
  static absl::StatusOr<std::unique_ptr<HttpTransport>> Create(HttpTransportOptions options,
                                                               Recorder& recorder, OnDone on_done);
  ~HttpTransport() override;

  void Start(Request& request) override;
  int64_t Poll(int64_t until_ns, bool spin) override;
  void AbandonAll() override;
  int64_t in_flight() const override { return in_flight_; }

 private:
  struct Connection;

  HttpTransport(HttpTransportOptions options, Recorder& recorder, OnDone on_done, int epoll_fd);

  void Assign(Connection& connection, Request& request);
  // Null, and the request is over, when there is no socket.
  Connection* Open(Request& request);
  void Handle(Connection& connection, uint32_t events);
  void HandleHandshake(Connection& connection);
  void Write(Connection& connection);
  void Read(Connection& connection);
  IoResult ReadSome(Connection& connection, size_t size, size_t& done);
  // The connection broke or was closed by the server.
  void Broken(Connection& connection, ErrorKind kind, std::string message);
  // Ends the request of the connection, which stays open if `reusable`.
  void Finish(Connection& connection, bool reusable);
  void Close(Connection& connection);
  void Watch(Connection& connection, uint32_t events);
  void StartWaiting();
  // Time-outs, and slow readers whose pause is over.
  void Sweep(int64_t now_ns);
  int Wait(int64_t until_ns, bool spin);

  const HttpTransportOptions options_;
  const std::string head_;  // of every request, up to the value of Content-Length
  Recorder& recorder_;
  const OnDone on_done_;
  const int epoll_fd_;
  int64_t in_flight_ = 0;
  int64_t next_sweep_ns_ = 0;
  int64_t last_begun_ns_ = 0;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::vector<std::unique_ptr<Connection>> closed_;  // freed behind the events of a poll
  std::vector<Connection*> idle_;
  std::deque<Request*> waiting_;  // for a connection
  std::vector<char> buffer_;
};

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_HTTP_TRANSPORT_H_
