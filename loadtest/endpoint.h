// Where a server is: a URL taken apart, and its addresses.
#ifndef RETICLE_LOADTEST_ENDPOINT_H_
#define RETICLE_LOADTEST_ENDPOINT_H_

#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace reticle::loadtest {

enum class Protocol { kHttp, kHttps, kGrpc };

struct Endpoint {
  Protocol protocol = Protocol::kHttp;
  std::string host;
  uint16_t port = 0;
  std::string base_path;  // "" or "/v1" or "/something/v1": what precedes /chat/completions

  // "host:port", with brackets around an IPv6 address.
  std::string Authority() const;
};

// "http://HOST[:PORT][/PATH]"; a path that does not end in /v1 gets it. Default ports are 80, 443
// and, for gRPC, 50051.
absl::StatusOr<Endpoint> ParseEndpoint(std::string_view url);

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
};
// The addresses of the endpoint; the first that accepts a connection within `timeout_ns`.
// UNAVAILABLE when none does, NOT_FOUND when the name is not known. Blocks.
absl::StatusOr<SocketAddress> Reach(const Endpoint& endpoint, int64_t timeout_ns);

// "HOST:PORT", ":PORT" or "PORT", for listeners; without a host it is 127.0.0.1.
absl::StatusOr<Endpoint> ParseListen(std::string_view text);

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_ENDPOINT_H_
