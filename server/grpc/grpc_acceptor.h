// Accepts connections for a gRPC server on a thread of its own, so that the listening socket can be
// inherited from a service manager and handed over to another process without a connection lost.
#ifndef RETICLE_SERVER_GRPC_GRPC_ACCEPTOR_H_
#define RETICLE_SERVER_GRPC_GRPC_ACCEPTOR_H_

#include <grpcpp/server_builder.h>

#include <atomic>
#include <memory>
#include <thread>

#include "absl/status/status.h"
#include "server/core/listen_socket.h"

namespace reticle::server {

// Start and Stop from one thread.
class GrpcAcceptor {
 public:
  using Connections = std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor>;

  GrpcAcceptor(ListenSocket socket, Connections connections);
  ~GrpcAcceptor();
  GrpcAcceptor(const GrpcAcceptor&) = delete;
  GrpcAcceptor& operator=(const GrpcAcceptor&) = delete;

  // Listens; once.
  absl::Status Start();
  // Accepts what has arrived, and nothing more.
  void Stop();

 private:
  void Loop();
  // False when nothing waits.
  bool AcceptOne();

  ListenSocket socket_;
  const Connections connections_;
  int rouse_ = -1;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_GRPC_GRPC_ACCEPTOR_H_
