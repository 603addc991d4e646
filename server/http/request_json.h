// JSON bodies of the API to plain parameters. Every field is read, refused by name or known to
// change nothing about the output; nothing is ignored silently.
#ifndef RETICLE_SERVER_HTTP_REQUEST_JSON_H_
#define RETICLE_SERVER_HTTP_REQUEST_JSON_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/ids.h"
#include "server/core/generate_params.h"

namespace reticle::server::http {

struct CompletionBody {
  GenerateParams params;
  bool chat = false;
  bool include_usage = false;           // stream_options
  bool continuous_usage_stats = false;  // stream_options
};

struct TokenizeBody {
  std::string model;
  PromptInput prompt;
  std::optional<bool> add_special_tokens;
  bool return_token_strs = false;
};

struct DetokenizeBody {
  std::string model;
  std::vector<TokenId> tokens;
};

// Errors: INVALID_ARGUMENT with the field's name as param. Invalid UTF-8, malformed JSON, nesting
// beyond 64 levels and a body that is no object are told apart in the message. Thread-safe.
absl::StatusOr<CompletionBody> ParseChatBody(std::string_view json);
absl::StatusOr<CompletionBody> ParseCompletionBody(std::string_view json);
absl::StatusOr<TokenizeBody> ParseTokenizeBody(std::string_view json);
absl::StatusOr<DetokenizeBody> ParseDetokenizeBody(std::string_view json);

}  // namespace reticle::server::http

#endif  // RETICLE_SERVER_HTTP_REQUEST_JSON_H_
