#include "server/web/web_assets.h"

#include <algorithm>
#include <cstddef>

namespace reticle::server::web {
namespace {

constexpr std::string_view kSecurityHeaders =
    "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "Referrer-Policy: no-referrer\r\n"
    "Cross-Origin-Opener-Policy: same-origin\r\n";

std::string_view Trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

// Calls `visit` with each member of a comma-separated list until it returns true; whether it did.
template <typename Visit>
bool AnyMember(std::string_view list, Visit visit) {
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    if (visit(Trim(list.substr(0, comma)))) return true;
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return false;
}

bool EqualsIgnoringCase(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) {
    return (x >= 'A' && x <= 'Z' ? x + 32 : x) == (y >= 'A' && y <= 'Z' ? y + 32 : y);
  });
}

// RFC 9110, section 12.5.3: "gzip;q=0" refuses it, and its own entry goes before "*".
bool AcceptsGzip(std::string_view accept_encoding) {
  bool named = false;
  bool named_accepted = false;
  bool rest_accepted = false;
  AnyMember(accept_encoding, [&](std::string_view member) {
    const size_t semicolon = std::min(member.find(';'), member.size());
    const std::string_view coding = Trim(member.substr(0, semicolon));
    std::string_view weight = Trim(member.substr(std::min(semicolon + 1, member.size())));
    bool accepted = true;
    if (weight.size() > 2 && (weight[0] == 'q' || weight[0] == 'Q') && weight[1] == '=') {
      accepted = weight.find_first_of("123456789") != std::string_view::npos;
    }
    if (EqualsIgnoringCase(coding, "gzip")) {
      named = true;
      named_accepted = accepted;
    } else if (coding == "*") {
      rest_accepted = accepted;
    }
    return false;
  });
  return named ? named_accepted : rest_accepted;
}

}  // namespace

const WebAsset* FindWebAsset(std::string_view path) {
  for (const WebAsset& asset : WebAssets()) {
    if (asset.path == path) return &asset;
  }
  return nullptr;
}

std::string_view PageSecurityHeaders() { return kSecurityHeaders; }

WebReply AnswerWebRequest(const WebAsset& asset, std::string_view if_none_match,
                          std::string_view accept_encoding) {
  const bool gzip = !asset.gzip.empty() && AcceptsGzip(accept_encoding);
  std::string tag = "\"";
  tag.append(asset.tag).append(gzip ? "-gz\"" : "\"");
  WebReply reply;
  reply.content_type = asset.content_type;
  reply.body = gzip ? asset.gzip : asset.body;
  reply.headers = "ETag: " + tag + "\r\nCache-Control: no-cache\r\nVary: Accept-Encoding\r\n";
  if (gzip) reply.headers.append("Content-Encoding: gzip\r\n");
  reply.headers.append(kSecurityHeaders);
  const bool matches = AnyMember(if_none_match, [&](std::string_view member) {
    if (member.starts_with("W/")) member.remove_prefix(2);
    return member == "*" || member == tag;
  });
  if (matches) reply.status = 304;
  return reply;
}

}  // namespace reticle::server::web
