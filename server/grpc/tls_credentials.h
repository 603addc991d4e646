// The certificate and key of a gRPC server, which can be replaced while it runs.
#ifndef RETICLE_SERVER_GRPC_TLS_CREDENTIALS_H_
#define RETICLE_SERVER_GRPC_TLS_CREDENTIALS_H_

#include <grpc/grpc_security.h>
#include <grpcpp/security/server_credentials.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "base/thread_annotations.h"

namespace reticle::server {

// gRPC asks for the pair at each handshake. For one address of one server, which keeps it alive.
class TlsCredentials final : public grpc::ServerCredentials {
 public:
  // Of PEM files. INVALID_ARGUMENT or NOT_FOUND naming the file that cannot be used.
  static absl::StatusOr<std::shared_ptr<TlsCredentials>> Create(std::string certificate_path,
                                                                std::string key_path);
  ~TlsCredentials() override;

  // Reads the files again, for connections to come; on an error nothing changes. Thread-safe.
  absl::Status Reload();

  // Not supported.
  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {}

 private:
  TlsCredentials(std::string certificate_path, std::string key_path);
  int AddPortToServer(const std::string& address, grpc_server* server) override;
  static grpc_ssl_certificate_config_reload_status Fetch(
      void* self, grpc_ssl_server_certificate_config** config);

  const std::string certificate_path_, key_path_;
  grpc_server_credentials* credentials_ = nullptr;
  Mutex mutex_;
  std::string certificate_ RETICLE_GUARDED_BY(mutex_), key_ RETICLE_GUARDED_BY(mutex_);
  bool fresh_ RETICLE_GUARDED_BY(mutex_) = false;  // gRPC does not have them yet
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_GRPC_TLS_CREDENTIALS_H_
