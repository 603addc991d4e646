// Whom a request comes from when it may have come through proxies.
#ifndef RETICLE_SERVER_HTTP_CLIENT_ADDRESS_H_
#define RETICLE_SERVER_HTTP_CLIENT_ADDRESS_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace reticle::server::http {

// The proxies whose word is taken, and the header in which they give it. Immutable.
//
// A proxy appends the address that it was called from to what the header says already, so the
// header is read from its end, and each address is believed as long as the one behind it is a
// trusted proxy's: what a client writes itself is never reached.
class ProxyTrust {
 public:
  // Nobody is trusted.
  ProxyTrust() = default;
  // `networks`: addresses ("10.0.0.7", "::1") or networks ("10.0.0.0/8", "fd00::/8"). `header`:
  // "x-forwarded-for", or "forwarded" (RFC 7239). INVALID_ARGUMENT naming what is malformed.
  static absl::StatusOr<ProxyTrust> Create(const std::vector<std::string>& networks,
                                           std::string_view header);

  bool empty() const { return networks_.empty(); }
  // The name of the header, lower case.
  const std::string& header() const { return header_; }
  // Whether `address` is a trusted proxy's.
  bool Trusts(std::string_view address) const;
  // The client behind a connection from `peer` that sent `values` under the header, its lines
  // joined by commas. `peer` itself unless that is trusted; of what is malformed nothing is
  // believed.
  std::string ClientOf(std::string_view peer, std::string_view values) const;

 private:
  using Address = std::array<uint8_t, 16>;  // IPv4 as ::ffff:a.b.c.d
  struct Network {
    Address address{};
    int bits = 128;
  };
  static std::optional<Address> Parse(std::string_view text);
  bool Trusts(const Address& address) const;

  std::vector<Network> networks_;
  std::string header_ = "x-forwarded-for";
};

}  // namespace reticle::server::http

#endif  // RETICLE_SERVER_HTTP_CLIENT_ADDRESS_H_
