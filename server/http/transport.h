// A connected socket, plain or TLS, behind one small interface, so that the connection's code is
// compiled once. Internal to server/http: includes Asio.
#ifndef RETICLE_SERVER_HTTP_TRANSPORT_H_
#define RETICLE_SERVER_HTTP_TRANSPORT_H_

#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/system/error_code.hpp>
#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "base/thread_annotations.h"

namespace reticle::server::http {

class TransportEvents {
 public:
  virtual ~TransportEvents() = default;
  virtual void OnHandshake(boost::system::error_code error) = 0;
  virtual void OnRead(boost::system::error_code error, size_t bytes) = 0;
  virtual void OnWritten(boost::system::error_code error, size_t bytes) = 0;
};

// Used by its socket's thread only. At most one read and one write at a time; `events` is kept
// alive until the call-back has returned, and is called from the event loop, never from within.
class Transport {
 public:
  using Events = std::shared_ptr<TransportEvents>;
  virtual ~Transport() = default;
  virtual void Handshake(Events events) = 0;
  virtual void ReadSome(boost::asio::mutable_buffer buffer, Events events) = 0;
  // Writes what the socket takes at once, which may be nothing, without a call-back. Only when no
  // write is under way.
  virtual size_t TryWrite(boost::asio::const_buffer buffer, boost::system::error_code& error) = 0;
  virtual void WriteSome(boost::asio::const_buffer buffer, Events events) = 0;
  // Tells the peer that nothing more comes. What it still sends can be read. `events` is kept alive
  // until that is done, but not called.
  virtual void ShutdownSend(Events events) = 0;
  // Ends every operation with an error.
  virtual void Close() = 0;
};

// The server's certificate and key.
class TlsContext {
 public:
  // INVALID_ARGUMENT naming the file that cannot be used.
  static absl::StatusOr<std::unique_ptr<TlsContext>> Create(const std::string& cert_file,
                                                            const std::string& key_file);
  ~TlsContext();
  // Reads the files again, for connections to come; on an error nothing changes. Thread-safe.
  absl::Status Reload(const std::string& cert_file, const std::string& key_file);
  struct Impl;
  // What connections that begin now use.
  std::shared_ptr<Impl> impl() const;

 private:
  TlsContext() = default;
  mutable Mutex mutex_;
  std::shared_ptr<Impl> impl_ RETICLE_GUARDED_BY(mutex_);
};

// `tls` may be null: a plain socket. It must outlive the transport.
std::unique_ptr<Transport> MakeTransport(boost::asio::ip::tcp::socket socket, TlsContext* tls);

}  // namespace reticle::server::http

#endif  // RETICLE_SERVER_HTTP_TRANSPORT_H_
