// Posts bodies to one HTTP address over a connection that it keeps, on the calling thread.
#ifndef RETICLE_SERVER_TELEMETRY_HTTP_POSTER_H_
#define RETICLE_SERVER_TELEMETRY_HTTP_POSTER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace reticle::server {

struct HttpEndpoint {
  std::string host;
  std::string port;
  std::string path;  // begins with '/'
};
// "http://HOST[:PORT][/PATH]". Without a path `default_path` is meant. INVALID_ARGUMENT says what
// is wrong.
absl::StatusOr<HttpEndpoint> ParseHttpEndpoint(std::string_view url, std::string_view default_path);

// Used by one thread.
class HttpPoster {
 public:
  struct Reply {
    int status = 0;
    int retry_after_s = 0;  // its Retry-After; 0: none
    std::string body;       // at most 64 KiB
  };

  explicit HttpPoster(HttpEndpoint endpoint);
  ~HttpPoster();
  // UNAVAILABLE when nobody answers within the time. A kept connection that turns out to be closed
  // is opened again once.
  absl::StatusOr<Reply> Post(std::string_view content_type, std::string_view body,
                             int64_t timeout_ms);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_TELEMETRY_HTTP_POSTER_H_
