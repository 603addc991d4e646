// A server that does no work: it answers OpenAI's chat and completions with the bytes that `reticle
// serve` would write, and generates nothing. What a client reaches against it is the client's own
// ceiling, and how far a real server stays behind it is that server's cost.
#ifndef RETICLE_LOADTEST_NULL_SERVER_H_
#define RETICLE_LOADTEST_NULL_SERVER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace reticle::loadtest {

struct NullServerOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 0;  // 0: a free one
  std::string model = "null";
  int64_t threads = 1;
  // Tokens a second of each stream; 0: as fast as the connection takes them.
  double token_rate = 0;
  // Time from the request to its first token.
  int64_t first_token_ns = 0;
  // Tokens whose text shares one event.
  int64_t tokens_per_event = 1;
  // Each event is written by itself; otherwise those that are ready share a write and an HTTP
  // chunk.
  bool write_each_event = false;
  // With token_rate: events may wait so long for others to share their write.
  int64_t gather_ns = 0;
  // Poll without sleeping, so that the pace is kept to a microsecond.
  bool spin = false;

  absl::Status Validate() const;
};

// Serves on its own threads from Start() until it is destroyed. Requests take max_tokens (or
// max_completion_tokens, default 16), stream and stream_options.include_usage; nothing else
// matters. usage.prompt_tokens is a quarter of the body's bytes. GET /v1/models lists the model.
class NullServer {
 public:
  // UNAVAILABLE when it cannot listen.
  static absl::StatusOr<std::unique_ptr<NullServer>> Start(const NullServerOptions& options);
  ~NullServer();
  NullServer(const NullServer&) = delete;
  NullServer& operator=(const NullServer&) = delete;

  uint16_t port() const { return port_; }

 private:
  class Loop;
  NullServer();

  uint16_t port_ = 0;
  std::vector<std::unique_ptr<Loop>> loops_;
};

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_NULL_SERVER_H_
