#include "server/grpc/tls_credentials.h"

#include <grpc/grpc.h>
#include <openssl/ssl.h>

#include <utility>

#include "base/file.h"
#include "base/status.h"

namespace reticle::server {
namespace {

// Whether they belong together: gRPC only logs it when they do not.
absl::Status CheckPair(const std::string& certificate_path, const std::string& key_path) {
  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_server_method()),
                                                                  SSL_CTX_free);
  if (context == nullptr) return InternalError("no TLS context could be made");
  if (SSL_CTX_use_certificate_chain_file(context.get(), certificate_path.c_str()) != 1) {
    return InvalidArgumentError("TLS certificate %s cannot be used", certificate_path);
  }
  if (SSL_CTX_use_PrivateKey_file(context.get(), key_path.c_str(), SSL_FILETYPE_PEM) != 1) {
    return InvalidArgumentError("TLS key %s cannot be used, or not with certificate %s", key_path,
                                certificate_path);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<TlsCredentials>> TlsCredentials::Create(std::string certificate_path,
                                                                       std::string key_path) {
  std::shared_ptr<TlsCredentials> made(
      new TlsCredentials(std::move(certificate_path), std::move(key_path)));
  RETURN_IF_ERROR(made->Reload());
  return made;
}

TlsCredentials::TlsCredentials(std::string certificate_path, std::string key_path)
    : certificate_path_(std::move(certificate_path)), key_path_(std::move(key_path)) {}

TlsCredentials::~TlsCredentials() {
  if (credentials_ != nullptr) grpc_server_credentials_release(credentials_);
}

absl::Status TlsCredentials::Reload() {
  RETURN_IF_ERROR(CheckPair(certificate_path_, key_path_));
  ASSIGN_OR_RETURN(std::string certificate, ReadFile("TLS certificate", certificate_path_));
  ASSIGN_OR_RETURN(std::string key, ReadFile("TLS key", key_path_));
  MutexLock lock(mutex_);
  certificate_ = std::move(certificate);
  key_ = std::move(key);
  fresh_ = true;
  return absl::OkStatus();
}

int TlsCredentials::AddPortToServer(const std::string& address, grpc_server* server) {
  if (credentials_ == nullptr) {
    credentials_ = grpc_ssl_server_credentials_create_with_options(
        grpc_ssl_server_credentials_create_options_using_config_fetcher(
            GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE, &Fetch, this));
  }
  return grpc_server_add_http2_port(server, address.c_str(), credentials_);
}

grpc_ssl_certificate_config_reload_status TlsCredentials::Fetch(
    void* self, grpc_ssl_server_certificate_config** config) {
  auto& credentials = *static_cast<TlsCredentials*>(self);
  MutexLock lock(credentials.mutex_);
  if (!credentials.fresh_) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
  const grpc_ssl_pem_key_cert_pair pair = {credentials.key_.c_str(),
                                           credentials.certificate_.c_str()};
  // It insists on roots for the certificates of clients, for which nobody is asked.
  *config = grpc_ssl_server_certificate_config_create(credentials.certificate_.c_str(), &pair, 1);
  credentials.fresh_ = false;
  return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
}

}  // namespace reticle::server
