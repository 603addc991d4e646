// The pages that the binary carries: the chat page, the API page, their scripts and styles, and the
// OpenAPI document. Knows HTTP's conditional and encoded replies, no sockets.
#ifndef RETICLE_SERVER_WEB_WEB_ASSETS_H_
#define RETICLE_SERVER_WEB_WEB_ASSETS_H_

#include <span>
#include <string>
#include <string_view>

namespace reticle::server::web {

// Lives in the binary's read-only data.
struct WebAsset {
  std::string_view path;  // "/", "/docs", "/assets/chat.js"
  std::string_view content_type;
  std::string_view body;
  std::string_view gzip;  // `body` compressed; empty where that does not pay
  std::string_view tag;   // of the contents: the same bytes, the same tag
};

std::span<const WebAsset> WebAssets();

// Null when there is no page at `path` (percent-decoded, without the query).
const WebAsset* FindWebAsset(std::string_view path);

struct WebReply {
  int status = 200;  // or 304, without a body
  std::string_view content_type;
  std::string_view body;
  std::string headers;  // whole lines, each ending in CRLF
};

// `if_none_match` and `accept_encoding` are the request's headers, empty when absent. Every reply
// forbids scripts, styles and connections that are not the server's own, framing and sniffing.
WebReply AnswerWebRequest(const WebAsset& asset, std::string_view if_none_match,
                          std::string_view accept_encoding);

// The security headers of a page, for handlers that make their own: whole lines.
std::string_view PageSecurityHeaders();

}  // namespace reticle::server::web

#endif  // RETICLE_SERVER_WEB_WEB_ASSETS_H_
