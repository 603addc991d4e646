#include "server/http/transport.h"

#include <sys/socket.h>

#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <cerrno>
#include <utility>

#include "base/status.h"
#include "server/http/operation_memory.h"

namespace reticle::server::http {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

class TcpTransport : public Transport {
 public:
  explicit TcpTransport(asio::ip::tcp::socket socket) : socket_(std::move(socket)) {}

  void Handshake(Events events) override {
    asio::post(socket_.get_executor(), [events = std::move(events)] { events->OnHandshake({}); });
  }
  void ReadSome(asio::mutable_buffer buffer, Events events) override {
    socket_.async_read_some(
        buffer, KeptIn(read_memory_, [events = std::move(events)](error_code error, size_t bytes) {
          events->OnRead(error, bytes);
        }));
  }
  size_t TryWrite(asio::const_buffer buffer, error_code& error) override {
    const ssize_t sent =
        ::send(socket_.native_handle(), buffer.data(), buffer.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) return static_cast<size_t>(sent);
    if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
      error.assign(errno, boost::system::system_category());
    }
    return 0;
  }
  void WriteSome(asio::const_buffer buffer, Events events) override {
    socket_.async_write_some(
        buffer, KeptIn(write_memory_, [events = std::move(events)](error_code error, size_t bytes) {
          events->OnWritten(error, bytes);
        }));
  }
  void ShutdownSend(Events) override {
    error_code ignored;
    socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  }
  void Close() override {
    error_code ignored;
    socket_.close(ignored);
  }

 private:
  OperationMemory read_memory_;
  OperationMemory write_memory_;
  asio::ip::tcp::socket socket_;
};

class TlsTransport : public Transport {
 public:
  TlsTransport(asio::ip::tcp::socket socket, asio::ssl::context& context)
      : stream_(std::move(socket), context) {}

  void Handshake(Events events) override {
    stream_.async_handshake(
        asio::ssl::stream_base::server,
        [events = std::move(events)](error_code error) { events->OnHandshake(error); });
  }
  void ReadSome(asio::mutable_buffer buffer, Events events) override {
    stream_.async_read_some(buffer, [events = std::move(events)](error_code error, size_t bytes) {
      events->OnRead(error, bytes);
    });
  }
  size_t TryWrite(asio::const_buffer, error_code&) override { return 0; }
  void WriteSome(asio::const_buffer buffer, Events events) override {
    stream_.async_write_some(buffer, [events = std::move(events)](error_code error, size_t bytes) {
      events->OnWritten(error, bytes);
    });
  }
  void ShutdownSend(Events events) override {
    stream_.async_shutdown([events = std::move(events)](error_code) {});
  }
  void Close() override {
    error_code ignored;
    stream_.next_layer().close(ignored);
  }

 private:
  asio::ssl::stream<asio::ip::tcp::socket> stream_;
};

}  // namespace

struct TlsContext::Impl {
  asio::ssl::context context{asio::ssl::context::tls_server};
};

TlsContext::~TlsContext() = default;

absl::StatusOr<std::unique_ptr<TlsContext>> TlsContext::Create(const std::string& cert_file,
                                                               const std::string& key_file) {
  std::unique_ptr<TlsContext> tls(new TlsContext);
  RETURN_IF_ERROR(tls->Reload(cert_file, key_file));
  return tls;
}

absl::Status TlsContext::Reload(const std::string& cert_file, const std::string& key_file) {
  auto made = std::make_shared<Impl>();
  asio::ssl::context& context = made->context;
  error_code error;
  context.set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_sslv2 |
                          asio::ssl::context::no_sslv3 | asio::ssl::context::no_tlsv1 |
                          asio::ssl::context::no_tlsv1_1 | asio::ssl::context::single_dh_use,
                      error);
  if (error) return InternalError("TLS options: %s", error.message());
  context.use_certificate_chain_file(cert_file, error);
  if (error) return InvalidArgumentError("TLS certificate %s: %s", cert_file, error.message());
  context.use_private_key_file(key_file, asio::ssl::context::pem, error);
  if (error) return InvalidArgumentError("TLS key %s: %s", key_file, error.message());
  MutexLock lock(mutex_);
  impl_ = std::move(made);
  return absl::OkStatus();
}

std::shared_ptr<TlsContext::Impl> TlsContext::impl() const {
  MutexLock lock(mutex_);
  return impl_;
}

std::unique_ptr<Transport> MakeTransport(asio::ip::tcp::socket socket, TlsContext* tls) {
  if (tls == nullptr) return std::make_unique<TcpTransport>(std::move(socket));
  return std::make_unique<TlsTransport>(std::move(socket), tls->impl()->context);
}

}  // namespace reticle::server::http
