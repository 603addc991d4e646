// A conversation as `reticle chat` holds it: what was said, how answers are to be drawn, the
// commands that change it, and the JSON of requests and events. No sockets, no terminal.
#ifndef RETICLE_SERVER_CLI_CHAT_SESSION_H_
#define RETICLE_SERVER_CLI_CHAT_SESSION_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace reticle::server::cli {

// One line that begins with '/'.
struct ChatCommand {
  enum class Kind { kHelp, kReset, kSystem, kModel, kModels, kSet, kStats, kExit };
  Kind kind = Kind::kHelp;
  std::string argument;  // what follows the name, trimmed
};

// INVALID_ARGUMENT for a name that is no command, or an argument that is missing.
absl::StatusOr<ChatCommand> ParseChatCommand(std::string_view line);
std::string_view ChatHelp();

// Not thread-safe.
class ChatSession {
 public:
  std::string model;   // empty: the server's own
  std::string system;  // empty: none
  bool show_stats = true;

  // "NAME VALUE" of /set; "NAME default" takes the setting back. INVALID_ARGUMENT names the
  // setting, the value and its limits. The server may have narrower ones.
  absl::Status Set(std::string_view assignment);
  // One line for each setting.
  std::string DescribeSettings() const;

  // The body of a streamed chat completion that asks `question` after all that was said.
  std::string RequestBody(std::string_view question) const;
  void Remember(std::string question, std::string answer);
  void Reset() { said_.clear(); }
  size_t turns() const { return said_.size(); }

 private:
  struct Turn {
    std::string question;
    std::string answer;
  };
  std::optional<double> temperature_;
  std::optional<double> top_p_;
  std::optional<int64_t> top_k_;
  std::optional<int64_t> max_tokens_;
  std::optional<int64_t> seed_;
  std::vector<Turn> said_;
};

// The data of one event of a streamed answer.
struct ChatEvent {
  bool done = false;  // [DONE]
  std::string text;
  std::string finish;  // empty until the end
  std::optional<int64_t> completion_tokens;
  std::optional<double> completion_ms;  // from the first token to the last, by the server's clock
};
// INVALID_ARGUMENT for what is no JSON object, ABORTED with the server's message for an error
// event.
absl::StatusOr<ChatEvent> ParseChatEvent(std::string_view data);

// The message of an error reply, of OpenAI's shape or another; empty when there is none.
std::string ErrorMessageOf(std::string_view body);
// The ids of a reply of GET /v1/models.
absl::StatusOr<std::vector<std::string>> ParseModelList(std::string_view body);

// Server-sent events from bytes in any pieces.
class SseReader {
 public:
  using OnData = std::function<absl::Status(std::string_view data)>;
  // Calls `on_data` with the data of each event that is complete; stops at its first error.
  // RESOURCE_EXHAUSTED for an event of more than 16 MiB.
  absl::Status Push(std::string_view bytes, const OnData& on_data);

 private:
  std::string line_;
  std::string data_;
  bool has_data_ = false;
  bool after_cr_ = false;
};

// `text` without what could command a terminal: control characters other than newline and tab.
std::string PlainText(std::string_view text);

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_CHAT_SESSION_H_
