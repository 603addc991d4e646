#include "loadtest/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <climits>

#include "base/status.h"

namespace reticle::loadtest {
namespace {

std::string LastError() {
  char text[256] = "no reason given";
  if (const unsigned long code = ERR_get_error(); code != 0) {  // NOLINT: OpenSSL's type
    ERR_error_string_n(code, text, sizeof(text));
  }
  ERR_clear_error();
  return text;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TlsContext>> TlsContext::Create(const std::string& ca_file,
                                                               bool insecure) {
  SSL_CTX* const raw = SSL_CTX_new(TLS_client_method());
  if (raw == nullptr) return InternalError("no TLS context: %s", LastError());
  std::unique_ptr<TlsContext> context(new TlsContext(raw));
  SSL_CTX_set_min_proto_version(raw, TLS1_2_VERSION);
  SSL_CTX_set_mode(raw, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  if (insecure) return context;
  SSL_CTX_set_verify(raw, SSL_VERIFY_PEER, nullptr);
  const int loaded = ca_file.empty() ? SSL_CTX_set_default_verify_paths(raw)
                                     : SSL_CTX_load_verify_locations(raw, ca_file.c_str(), nullptr);
  if (loaded != 1) {
    return InvalidArgumentError("--ca-file %s cannot be used: %s", ca_file, LastError());
  }
  return context;
}

TlsContext::~TlsContext() { SSL_CTX_free(context_); }

std::unique_ptr<TlsSession> TlsSession::Create(const TlsContext& context, int fd,
                                               const std::string& host) {
  SSL* const raw = SSL_new(context.context_);
  if (raw == nullptr) return nullptr;
  std::unique_ptr<TlsSession> session(new TlsSession(raw));
  SSL_set_fd(raw, fd);
  SSL_set_connect_state(raw);
  X509_VERIFY_PARAM* const verify = SSL_get0_param(raw);
  if (X509_VERIFY_PARAM_set1_ip_asc(verify, host.c_str()) != 1) {
    SSL_set_tlsext_host_name(raw, host.c_str());
    SSL_set1_host(raw, host.c_str());
  }
  ERR_clear_error();
  return session;
}

TlsSession::~TlsSession() { SSL_free(session_); }

IoResult TlsSession::Result(int code) {
  switch (SSL_get_error(session_, code)) {
    case SSL_ERROR_WANT_READ:
      return IoResult::kWantRead;
    case SSL_ERROR_WANT_WRITE:
      return IoResult::kWantWrite;
    case SSL_ERROR_ZERO_RETURN:
      return IoResult::kClosed;
    case SSL_ERROR_SYSCALL:
      if (ERR_peek_error() == 0) return IoResult::kClosed;
      break;
    default:
      break;
  }
  error_ = LastError();
  return IoResult::kFailed;
}

IoResult TlsSession::Handshake() {
  const int code = SSL_do_handshake(session_);
  return code == 1 ? IoResult::kDone : Result(code);
}

IoResult TlsSession::Read(char* data, size_t size, size_t& done) {
  const int code = SSL_read(session_, data, static_cast<int>(std::min<size_t>(size, INT_MAX)));
  if (code <= 0) return Result(code);
  done = static_cast<size_t>(code);
  return IoResult::kDone;
}

IoResult TlsSession::Write(const char* data, size_t size, size_t& done) {
  const int code = SSL_write(session_, data, static_cast<int>(std::min<size_t>(size, INT_MAX)));
  if (code <= 0) return Result(code);
  done = static_cast<size_t>(code);
  return IoResult::kDone;
}

bool TlsSession::HasPending() const { return SSL_pending(session_) > 0; }

}  // namespace reticle::loadtest
