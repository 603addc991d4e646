// TLS for client sockets, by OpenSSL.
#ifndef RETICLE_LOADTEST_TLS_H_
#define RETICLE_LOADTEST_TLS_H_

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

struct ssl_ctx_st;
struct ssl_st;

namespace reticle::loadtest {

// What a read, write or handshake step on a non-blocking socket came to.
enum class IoResult { kDone, kWantRead, kWantWrite, kClosed, kFailed };

// The settings that the sessions of one run share. Constant after Create(), so thread-safe.
class TlsContext {
 public:
  // Empty `ca_file`: the system's issuers. INVALID_ARGUMENT when it cannot be read.
  static absl::StatusOr<std::unique_ptr<TlsContext>> Create(const std::string& ca_file,
                                                            bool insecure);
  ~TlsContext();
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;

 private:
  friend class TlsSession;
  explicit TlsContext(ssl_ctx_st* context) : context_(context) {}
  ssl_ctx_st* context_;
};

// One connection's session over a connected, non-blocking socket, which it does not own.
class TlsSession {
 public:
  // Null when OpenSSL has no memory. `host` is asked for by SNI and must be in the certificate.
  static std::unique_ptr<TlsSession> Create(const TlsContext& context, int fd,
                                            const std::string& host);
  ~TlsSession();
  TlsSession(const TlsSession&) = delete;
  TlsSession& operator=(const TlsSession&) = delete;

  IoResult Handshake();
  // On kDone `done` bytes, at least one, were moved.
  IoResult Read(char* data, size_t size, size_t& done);
  IoResult Write(const char* data, size_t size, size_t& done);
  // Bytes are decrypted already and would not show on the socket.
  bool HasPending() const;
  // Why the last kFailed.
  const std::string& error() const { return error_; }

 private:
  explicit TlsSession(ssl_st* session) : session_(session) {}
  IoResult Result(int code);
  ssl_st* session_;
  std::string error_;
};

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_TLS_H_
