// Messages and tools of the chat API, from JSON. Internal to the parsers of request bodies.
#ifndef RETICLE_SERVER_HTTP_CHAT_JSON_H_
#define RETICLE_SERVER_HTTP_CHAT_JSON_H_

#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "server/core/generate_params.h"
#include "server/http/json_fields.h"

namespace reticle::server::http {

// A list of messages: content as a string or a list of text parts (joined by line feeds), tool
// calls with their arguments as a JSON string.
absl::Status ReadMessages(std::string_view name, const Json& value, std::vector<ChatMessage>& out);
// A list of function tools. Other kinds are refused.
absl::Status ReadTools(std::string_view name, const Json& value, tokenizer::jinja::Value& out);

}  // namespace reticle::server::http

#endif  // RETICLE_SERVER_HTTP_CHAT_JSON_H_
