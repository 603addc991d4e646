#include "loadtest/endpoint.h"

#include <netdb.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/status.h"
#include "loadtest/text.h"

namespace reticle::loadtest {
namespace {

// Splits "host", "host:port" or "[v6]:port"; port stays as it was when there is none.
bool SplitAuthority(std::string_view text, std::string& host, uint16_t& port) {
  std::string_view rest;
  if (text.starts_with('[')) {
    const size_t end = text.find(']');
    if (end == std::string_view::npos) return false;
    host = std::string(text.substr(1, end - 1));
    rest = text.substr(end + 1);
  } else {
    const size_t colon = text.find(':');
    host = std::string(text.substr(0, colon));
    rest = colon == std::string_view::npos ? std::string_view() : text.substr(colon);
  }
  if (rest.empty()) return true;
  int64_t number = 0;
  if (rest.front() != ':' || !ParseInteger(rest.substr(1), number) || number < 0 ||
      number > 65535) {
    return false;
  }
  port = static_cast<uint16_t>(number);
  return true;
}

absl::Status TryConnect(const addrinfo& address, int64_t timeout_ns) {
  const int fd = socket(address.ai_family, address.ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return UnavailableError("socket: %s", std::strerror(errno));
  int error = connect(fd, address.ai_addr, address.ai_addrlen) == 0 ? 0 : errno;
  if (error == EINPROGRESS) {
    pollfd waiter{.fd = fd, .events = POLLOUT, .revents = 0};
    const int ready = poll(&waiter, 1, static_cast<int>(timeout_ns / 1'000'000 + 1));
    socklen_t length = sizeof(error);
    if (ready <= 0) {
      error = ETIMEDOUT;
    } else {
      getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
    }
  }
  close(fd);
  return error == 0 ? absl::OkStatus() : UnavailableError("%s", std::strerror(error));
}

}  // namespace

std::string Endpoint::Authority() const {
  const bool v6 = host.find(':') != std::string::npos;
  return absl::StrFormat("%s%s%s:%d", v6 ? "[" : "", host, v6 ? "]" : "", port);
}

absl::StatusOr<Endpoint> ParseEndpoint(std::string_view url) {
  Endpoint endpoint;
  std::string_view rest = url;
  struct Scheme {
    std::string_view prefix;
    Protocol protocol;
    uint16_t port;
  };
  constexpr Scheme kSchemes[] = {{"http://", Protocol::kHttp, 80},
                                 {"https://", Protocol::kHttps, 443},
                                 {"grpc://", Protocol::kGrpc, 50051}};
  for (const Scheme& scheme : kSchemes) {
    if (!url.starts_with(scheme.prefix)) continue;
    rest.remove_prefix(scheme.prefix.size());
    endpoint.protocol = scheme.protocol;
    endpoint.port = scheme.port;
  }
  const size_t slash = rest.find('/');
  if (rest.size() == url.size() ||
      !SplitAuthority(rest.substr(0, slash), endpoint.host, endpoint.port) ||
      endpoint.host.empty() || endpoint.port == 0) {
    return InvalidArgumentError("\"%s\" is no URL such as http://127.0.0.1:8080", url);
  }
  std::string_view path = slash == std::string_view::npos ? "" : rest.substr(slash);
  if (path.find_first_of("?#\r\n ") != std::string_view::npos) {
    return InvalidArgumentError("the URL \"%s\" has a query, a fragment or a blank", url);
  }
  while (path.ends_with('/')) path.remove_suffix(1);
  endpoint.base_path = std::string(path);
  if (!path.ends_with("/v1")) endpoint.base_path += "/v1";
  return endpoint;
}

absl::StatusOr<SocketAddress> Reach(const Endpoint& endpoint, int64_t timeout_ns) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  const int error =
      getaddrinfo(endpoint.host.c_str(), std::to_string(endpoint.port).c_str(), &hints, &list);
  if (error != 0) return NotFoundError("%s: %s", endpoint.host, gai_strerror(error));
  absl::Status status = UnavailableError("no address");
  SocketAddress found;
  for (const addrinfo* address = list; address != nullptr; address = address->ai_next) {
    status = TryConnect(*address, timeout_ns);
    if (!status.ok()) continue;
    std::memcpy(&found.storage, address->ai_addr, address->ai_addrlen);
    found.length = address->ai_addrlen;
    break;
  }
  freeaddrinfo(list);
  if (!status.ok()) {
    return UnavailableError("cannot connect to %s: %s", endpoint.Authority(), status.message());
  }
  return found;
}

absl::StatusOr<Endpoint> ParseListen(std::string_view text) {
  Endpoint endpoint;
  int64_t port = 0;
  if (ParseInteger(text, port) && port >= 0 && port <= 65535) {
    endpoint.port = static_cast<uint16_t>(port);
  } else if (text.find(':') == std::string_view::npos ||
             !SplitAuthority(text, endpoint.host, endpoint.port)) {
    return InvalidArgumentError("\"%s\" is no HOST:PORT", text);
  }
  if (endpoint.host.empty()) endpoint.host = "127.0.0.1";
  return endpoint;
}

}  // namespace reticle::loadtest
