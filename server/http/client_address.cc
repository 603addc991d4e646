#include "server/http/client_address.h"

#include <arpa/inet.h>
#include <strings.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "base/status.h"

namespace reticle::server::http {
namespace {

constexpr char kForwarded[] = "forwarded";
constexpr char kForwardedFor[] = "x-forwarded-for";
// Hops that are looked at: more are no real chain of proxies.
constexpr int kMostHops = 32;

std::string_view Trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// Takes the last element of a list off `list`. In quotes a comma separates nothing.
std::string_view TakeLast(std::string_view& list, char separator) {
  bool quoted = false;
  size_t at = list.size();
  while (at > 0) {
    if (list[at - 1] == '"') quoted = !quoted;
    if (list[at - 1] == separator && !quoted) break;
    --at;
  }
  const std::string_view last = list.substr(at);
  list = at == 0 ? std::string_view() : list.substr(0, at - 1);
  return Trim(last);
}

// The value of "for" in an element such as: for="[2001:db8::1]:4711";proto=https. Empty: none.
std::string_view ForOf(std::string_view element) {
  constexpr std::string_view kFor = "for=";
  while (!element.empty()) {
    std::string_view pair = TakeLast(element, ';');
    if (pair.size() <= kFor.size() || strncasecmp(pair.data(), kFor.data(), kFor.size()) != 0) {
      continue;
    }
    pair.remove_prefix(kFor.size());
    if (pair.size() >= 2 && pair.front() == '"' && pair.back() == '"') {
      pair = pair.substr(1, pair.size() - 2);
    }
    return pair;
  }
  return {};
}

// Without a port: "192.0.2.1:80", "[::1]:80", "[::1]".
std::string_view WithoutPort(std::string_view text) {
  if (text.starts_with('[')) {
    const size_t end = text.find(']');
    return end == std::string_view::npos ? std::string_view() : text.substr(1, end - 1);
  }
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos || text.find(':', colon + 1) != std::string_view::npos) {
    return text;
  }
  return text.substr(0, colon);
}

}  // namespace

std::optional<ProxyTrust::Address> ProxyTrust::Parse(std::string_view text) {
  const std::string terminated(text.substr(0, text.find('%')));
  Address address{};
  if (inet_pton(AF_INET6, terminated.c_str(), address.data()) == 1) return address;
  in_addr v4{};
  if (inet_pton(AF_INET, terminated.c_str(), &v4) != 1) return std::nullopt;
  address[10] = address[11] = 0xff;
  std::memcpy(address.data() + 12, &v4, sizeof(v4));
  return address;
}

absl::StatusOr<ProxyTrust> ProxyTrust::Create(const std::vector<std::string>& networks,
                                              std::string_view header) {
  ProxyTrust trust;
  if (header != kForwarded && header != kForwardedFor) {
    return InvalidArgumentError("forwarded_header is \"%s\"; it must be %s or %s",
                                header.substr(0, 100), kForwardedFor, kForwarded);
  }
  trust.header_ = std::string(header);
  for (const std::string& text : networks) {
    const size_t slash = text.find('/');
    const std::optional<Address> address = Parse(std::string_view(text).substr(0, slash));
    const bool v4 = text.find(':') == std::string::npos;
    const int most = v4 ? 32 : 128;
    int bits = most;
    const char* const end = text.data() + text.size();
    bool good = address.has_value();
    if (slash != std::string::npos) {
      const auto parsed = std::from_chars(text.data() + slash + 1, end, bits);
      good = good && parsed.ec == std::errc() && parsed.ptr == end && bits >= 0 && bits <= most;
    }
    if (!good) {
      return InvalidArgumentError(
          "trusted_proxies has \"%s\"; it must be an address or a network such as 10.0.0.0/8",
          text.substr(0, 100));
    }
    trust.networks_.push_back({*address, v4 ? bits + 96 : bits});
  }
  return trust;
}

bool ProxyTrust::Trusts(const Address& address) const {
  return std::any_of(networks_.begin(), networks_.end(), [&](const Network& network) {
    const auto whole = static_cast<size_t>(network.bits / 8);
    if (!std::equal(address.begin(), address.begin() + whole, network.address.begin())) {
      return false;
    }
    const int rest = network.bits % 8;
    if (rest == 0) return true;
    const auto mask = static_cast<uint8_t>(0xff << (8 - rest));
    return ((address[whole] ^ network.address[whole]) & mask) == 0;
  });
}

bool ProxyTrust::Trusts(std::string_view address) const {
  const std::optional<Address> parsed = Parse(address);
  return parsed.has_value() && Trusts(*parsed);
}

std::string ProxyTrust::ClientOf(std::string_view peer, std::string_view values) const {
  std::string_view client = peer;
  for (int hop = 0; hop < kMostHops && !values.empty() && Trusts(client); ++hop) {
    std::string_view element = TakeLast(values, ',');
    if (header_ == kForwarded) element = ForOf(element);
    element = WithoutPort(element);
    if (!Parse(element).has_value()) break;
    client = element;
  }
  return std::string(client);
}

}  // namespace reticle::server::http
