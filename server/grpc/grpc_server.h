// The gRPC front: reticle.v1.InferenceService, grpc.health.v1 and reflection on one address.
#ifndef RETICLE_SERVER_GRPC_GRPC_SERVER_H_
#define RETICLE_SERVER_GRPC_GRPC_SERVER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/core/front.h"
#include "server/core/listen_socket.h"
#include "server/core/loop_task.h"
#include "server/core/server_context.h"

namespace reticle::server {

struct GrpcServerOptions {
  // With reuse_port, or inherited, connections are accepted from OnReady on.
  ListenOptions listen = {.port = 50051};
  // Largest message that is accepted, bytes.
  int max_message_bytes = 8 << 20;
  // PEM files; both or none. Empty: no TLS.
  std::string tls_certificate_path;
  std::string tls_key_path;
  // What runs the calls, beside the engines that it drives; must outlive the server. Null: a thread
  // of the server's own.
  LoopHost* loops = nullptr;
};

// Health says what OnServing was told. Thread-safe.
class GrpcServer final : public Front {
 public:
  // Listens at once. `context` must outlive the server. UNAVAILABLE when the address cannot be
  // bound.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const GrpcServerOptions& options,
                                                           ServerContext& context);
  // Cancels what still runs.
  ~GrpcServer() override;
  GrpcServer(const GrpcServer&) = delete;
  GrpcServer& operator=(const GrpcServer&) = delete;

  // "127.0.0.1:50051", with the port that was picked.
  std::string address() const override;
  void OnReady() override;
  void OnServing(bool serving) override;
  void BeginDrain() override;
  void StopListening() override;
  absl::Status ReloadTls() override;
  int64_t busy() const override;

 private:
  GrpcServer();

  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_GRPC_GRPC_SERVER_H_
