#include "server/cli/chat_client.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>
#include <utility>

#include "base/status.h"

namespace reticle::server::cli {
namespace {

namespace beast_http = boost::beast::http;

constexpr int kPollMs = 100;  // how long a stop may go unseen when no signal interrupts
constexpr int kConnectMs = 10'000;
constexpr size_t kMaxBody = size_t{1} << 20;

absl::Status Stopped() { return absl::CancelledError("stopped"); }

// A connected, non-blocking socket, plain or TLS.
class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  ~Socket() {
    if (ssl_ != nullptr) SSL_free(ssl_);
    if (context_ != nullptr) SSL_CTX_free(context_);
    close(fd_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  absl::Status StartTls(const std::string& host, const std::string& ca_file,
                        const std::atomic<bool>& stop) {
    context_ = SSL_CTX_new(TLS_client_method());
    if (context_ == nullptr) return InternalError("TLS cannot be set up");
    SSL_CTX_set_min_proto_version(context_, TLS1_2_VERSION);
    if (ca_file.empty()) {
      SSL_CTX_set_default_verify_paths(context_);
    } else if (SSL_CTX_load_verify_file(context_, ca_file.c_str()) != 1) {
      return FailedPreconditionError("the file %s holds no certificates in PEM", ca_file);
    }
    SSL_CTX_set_verify(context_, SSL_VERIFY_PEER, nullptr);
    ssl_ = SSL_new(context_);
    if (ssl_ == nullptr || SSL_set_fd(ssl_, fd_) != 1 || SSL_set1_host(ssl_, host.c_str()) != 1) {
      return InternalError("TLS cannot be set up");
    }
    // An address is no server name (RFC 6066, section 3).
    in6_addr address;
    if (inet_pton(AF_INET, host.c_str(), &address) != 1 &&
        inet_pton(AF_INET6, host.c_str(), &address) != 1) {
      SSL_set_tlsext_host_name(ssl_, host.c_str());
    }
    const absl::Status status =
        Repeat(stop, "the TLS handshake", [&] { return SSL_connect(ssl_); }).status();
    if (const long verified = SSL_get_verify_result(ssl_); !status.ok() && verified != X509_V_OK) {
      return FailedPreconditionError(
          "the certificate of %s is not trusted: %s; name the file of its authority by --ca-file",
          host, X509_verify_cert_error_string(verified));
    }
    return status;
  }

  absl::Status Write(std::string_view bytes, const std::atomic<bool>& stop) {
    while (!bytes.empty()) {
      const int size = static_cast<int>(std::min(bytes.size(), size_t{1} << 20));
      ASSIGN_OR_RETURN(const int n, Repeat(stop, "sending", [&] {
                         if (ssl_ != nullptr) return SSL_write(ssl_, bytes.data(), size);
                         return static_cast<int>(
                             send(fd_, bytes.data(), static_cast<size_t>(size), MSG_NOSIGNAL));
                       }));
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return absl::OkStatus();
  }

  // 0 at the end.
  absl::StatusOr<int> Read(char* out, int size, const std::atomic<bool>& stop) {
    return Repeat(stop, "receiving", [&] {
      if (ssl_ != nullptr) return SSL_read(ssl_, out, size);
      return static_cast<int>(recv(fd_, out, static_cast<size_t>(size), 0));
    });
  }

 private:
  template <typename Operation>
  absl::StatusOr<int> Repeat(const std::atomic<bool>& stop, const char* what, Operation operation) {
    for (;;) {
      if (stop.load()) return Stopped();
      ERR_clear_error();
      errno = 0;
      const int n = operation();
      if (n > 0) return n;
      short wanted = POLLIN | POLLOUT;
      if (ssl_ != nullptr) {
        const int error = SSL_get_error(ssl_, n);
        if (error == SSL_ERROR_ZERO_RETURN) return 0;
        if (error == SSL_ERROR_WANT_READ) {
          wanted = POLLIN;
        } else if (error == SSL_ERROR_WANT_WRITE) {
          wanted = POLLOUT;
        } else {
          char reason[200] = "the connection broke off";
          if (const unsigned long code = ERR_get_error(); code != 0) {
            ERR_error_string_n(code, reason, sizeof(reason));
          }
          return UnavailableError("%s failed: %s", what, reason);
        }
      } else {
        if (n == 0) return 0;
        if (errno == EINTR) continue;
        if (errno != EAGAIN && errno != EWOULDBLOCK) {
          return UnavailableError("%s failed: %s", what, std::strerror(errno));
        }
        wanted = std::strcmp(what, "sending") == 0 ? POLLOUT : POLLIN;
      }
      pollfd waiting{fd_, wanted, 0};
      poll(&waiting, 1, kPollMs);
    }
  }

  const int fd_;
  SSL_CTX* context_ = nullptr;
  SSL* ssl_ = nullptr;
};

// Ends when the connection stands, is refused, or takes too long.
absl::Status Await(int fd, const std::atomic<bool>& stop) {
  for (int waited = 0; waited < kConnectMs; waited += kPollMs) {
    if (stop.load()) return Stopped();
    pollfd waiting{fd, POLLOUT, 0};
    if (poll(&waiting, 1, kPollMs) <= 0) continue;
    int error = 0;
    socklen_t size = sizeof(error);
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    return error == 0 ? absl::OkStatus() : UnavailableError("%s", std::strerror(error));
  }
  return UnavailableError("no answer within %d s", kConnectMs / 1000);
}

absl::StatusOr<std::unique_ptr<Socket>> Connect(const ChatUrl& url, const std::atomic<bool>& stop) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(url.host.c_str(), url.port.c_str(), &hints, &found);
      error != 0) {
    return UnavailableError("%s", gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> addresses(found, freeaddrinfo);
  absl::Status status = UnavailableError("the name has no address");
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    const int fd = socket(at->ai_family, at->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) continue;
    auto socket = std::make_unique<Socket>(fd);
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (connect(fd, at->ai_addr, at->ai_addrlen) != 0 && errno != EINPROGRESS) {
      status = UnavailableError("%s", std::strerror(errno));
      continue;
    }
    status = Await(fd, stop);
    if (status.ok()) return socket;
    if (status.code() == absl::StatusCode::kCancelled) return status;
  }
  return status;
}

}  // namespace

absl::StatusOr<ChatUrl> ParseChatUrl(std::string_view text) {
  const std::string whole(text);
  ChatUrl url;
  if (text.starts_with("https://")) {
    url.tls = true;
    text.remove_prefix(8);
  } else if (text.starts_with("http://")) {
    text.remove_prefix(7);
  } else if (text.find("://") != std::string_view::npos) {
    return InvalidArgumentError("the URL \"%s\" is neither http nor https", whole);
  }
  const size_t slash = std::min(text.find('/'), text.size());
  std::string_view path = text.substr(slash);
  std::string_view authority = text.substr(0, slash);
  if (whole.find_first_of("?#@ \t\r\n") != std::string::npos) {
    return InvalidArgumentError("the URL \"%s\" has a part that is not understood", whole);
  }
  std::string_view port = url.tls ? "443" : "80";
  if (authority.starts_with('[')) {
    const size_t end = authority.find(']');
    if (end == std::string_view::npos) {
      return InvalidArgumentError("the URL \"%s\" has no \"]\"", whole);
    }
    url.host = std::string(authority.substr(1, end - 1));
    authority.remove_prefix(end + 1);
  } else {
    const size_t colon = std::min(authority.find(':'), authority.size());
    url.host = std::string(authority.substr(0, colon));
    authority.remove_prefix(colon);
  }
  if (!authority.empty()) {
    port = authority.substr(1);
    int number = 0;
    const auto parsed = std::from_chars(port.data(), port.data() + port.size(), number);
    if (authority.front() != ':' || parsed.ec != std::errc() ||
        parsed.ptr != port.data() + port.size() || number < 1 || number > 65535) {
      return InvalidArgumentError("the URL \"%s\" has no valid port", whole);
    }
  }
  if (url.host.empty()) return InvalidArgumentError("the URL \"%s\" names no host", whole);
  url.port = std::string(port);
  while (path.ends_with('/')) path.remove_suffix(1);
  if (path.ends_with("/v1")) path.remove_suffix(3);
  url.path = std::string(path);
  return url;
}

ChatClient::ChatClient(ChatUrl url, std::string api_key, std::string ca_file)
    : url_(std::move(url)), api_key_(std::move(api_key)), ca_file_(std::move(ca_file)) {}

std::string ChatClient::Address() const {
  const bool v6 = url_.host.find(':') != std::string::npos;
  return absl::StrFormat("%s://%s%s%s:%s%s", url_.tls ? "https" : "http", v6 ? "[" : "", url_.host,
                         v6 ? "]" : "", url_.port, url_.path);
}

absl::StatusOr<ChatReply> ChatClient::Send(std::string_view path, std::string_view body,
                                           const Sink& sink, const std::atomic<bool>& stop) const {
  ASSIGN_OR_RETURN(const std::unique_ptr<Socket> socket, Connect(url_, stop));
  if (url_.tls) RETURN_IF_ERROR(socket->StartTls(url_.host, ca_file_, stop));
  const bool v6 = url_.host.find(':') != std::string::npos;
  std::string request = absl::StrFormat(
      "%s %s%s HTTP/1.1\r\nHost: %s%s%s:%s\r\nConnection: close\r\n", body.empty() ? "GET" : "POST",
      url_.path, path, v6 ? "[" : "", url_.host, v6 ? "]" : "", url_.port);
  if (!api_key_.empty()) request.append("Authorization: Bearer ").append(api_key_).append("\r\n");
  if (!body.empty()) {
    request.append("Content-Type: application/json\r\nContent-Length: ");
    request.append(std::to_string(body.size())).append("\r\n");
  }
  request.append("\r\n").append(body);
  RETURN_IF_ERROR(socket->Write(request, stop));

  beast_http::response_parser<beast_http::string_body> parser;
  parser.eager(true);
  parser.body_limit(boost::none);
  ChatReply reply;
  std::string buffer(size_t{64} << 10, '\0');
  size_t begin = 0;
  size_t end = 0;
  while (!parser.is_done()) {
    if (end == buffer.size()) return UnavailableError("the reply's header is too long");
    ASSIGN_OR_RETURN(const int n, socket->Read(buffer.data() + end,
                                               static_cast<int>(buffer.size() - end), stop));
    boost::system::error_code error;
    if (n == 0) {
      if (parser.got_some()) parser.put_eof(error);
      if (error || !parser.is_done()) return UnavailableError("the connection broke off");
    }
    end += static_cast<size_t>(n);
    while (begin < end && !parser.is_done()) {
      const size_t used =
          parser.put(boost::asio::const_buffer(buffer.data() + begin, end - begin), error);
      begin += used;
      if (error && error != beast_http::error::need_more) {
        return UnavailableError("the reply is not valid HTTP: %s", error.message());
      }
      if (error || used == 0) break;
    }
    if (begin > 0) {
      std::memmove(buffer.data(), buffer.data() + begin, end - begin);
      end -= begin;
      begin = 0;
    }
    if (!parser.is_header_done()) continue;
    reply.status = parser.get().result_int();
    std::string& bytes = parser.get().body();
    if (reply.status == 200 && sink) {
      if (!bytes.empty()) RETURN_IF_ERROR(sink(bytes));
    } else {
      reply.body.append(bytes, 0, kMaxBody - std::min(kMaxBody, reply.body.size()));
    }
    bytes.clear();
  }
  const auto retry_after = parser.get()[beast_http::field::retry_after];
  reply.retry_after = std::string(retry_after.data(), retry_after.size());
  return reply;
}

}  // namespace reticle::server::cli
