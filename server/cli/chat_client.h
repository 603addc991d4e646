// A small HTTP client for `reticle chat`: one request a connection, plain or TLS, that can be
// stopped at any time. Blocks its thread.
#ifndef RETICLE_SERVER_CLI_CHAT_CLIENT_H_
#define RETICLE_SERVER_CLI_CHAT_CLIENT_H_

#include <atomic>
#include <functional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace reticle::server::cli {

struct ChatUrl {
  bool tls = false;
  std::string host;
  std::string port;
  std::string path;  // in front of "/v1/..."; empty or "/prefix"
};
// "http://HOST[:PORT][/PREFIX][/v1]", "https://..." or "HOST:PORT". INVALID_ARGUMENT says what is
// wrong.
absl::StatusOr<ChatUrl> ParseChatUrl(std::string_view text);

struct ChatReply {
  int status = 0;
  std::string retry_after;  // the header; may be empty
  std::string body;         // without a sink, or when the status is not 200; at most 1 MiB
};

class ChatClient {
 public:
  using Sink = std::function<absl::Status(std::string_view bytes)>;

  // `api_key` may be empty. `ca_file`: certificates to trust, in PEM; empty: those of the system.
  ChatClient(ChatUrl url, std::string api_key, std::string ca_file = "");

  // Sends a request, a POST when there is a body. The body of a reply with status 200 goes to
  // `sink` as it arrives, if there is one. Errors: UNAVAILABLE (nobody answers, the connection
  // breaks off), FAILED_PRECONDITION (its certificate is not trusted), CANCELLED once `stop` is
  // true, what `sink` returns.
  absl::StatusOr<ChatReply> Send(std::string_view path, std::string_view body, const Sink& sink,
                                 const std::atomic<bool>& stop) const;

  // "http://127.0.0.1:8080", for messages.
  std::string Address() const;

 private:
  const ChatUrl url_;
  const std::string api_key_;
  const std::string ca_file_;
};

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_CHAT_CLIENT_H_
