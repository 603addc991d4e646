#include "server/http/chat_json.h"

#include <optional>
#include <string>
#include <utility>

#include "base/status.h"
#include "server/core/error.h"
#include "server/core/json_value.h"

namespace reticle::server::http {
namespace {

namespace dom = simdjson::dom;
using tokenizer::jinja::Value;

absl::Status RequireString(const std::string& name, const Json& value, std::string& out) {
  if (!value.is_string()) return TypeError(name, value, "a string");
  return ReadString(name, value, out);
}

absl::Status ReadContent(const std::string& name, const Json& value,
                         std::optional<std::string>& out) {
  if (value.is_null()) return absl::OkStatus();
  if (value.is_string()) return ReadString(name, value, out.emplace());
  dom::array parts;
  if (value.get_array().get(parts) != simdjson::SUCCESS) {
    return TypeError(name, value, "a string or a list of parts");
  }
  out.emplace();
  size_t index = 0;
  for (const Json part : parts) {
    const std::string where = absl::StrFormat("%s[%d]", name, index);
    dom::object object;
    if (part.get_object().get(object) != simdjson::SUCCESS) {
      return TypeError(where, part, "an object");
    }
    std::string type;
    std::string text;
    for (const dom::key_value_pair member : object) {
      if (member.key == "type") {
        RETURN_IF_ERROR(RequireString(where + ".type", member.value, type));
      }
    }
    if (type != "text") {
      return UnsupportedField(where + ".type", "content parts other than \"text\" are not read");
    }
    bool has_text = false;
    for (const dom::key_value_pair member : object) {
      if (member.key == "text") {
        RETURN_IF_ERROR(RequireString(where + ".text", member.value, text));
        has_text = true;
      } else if (member.key != "type") {
        return FieldError(where, absl::StrFormat("%s has an unrecognized field: %s", where,
                                                 member.key.substr(0, 100)));
      }
    }
    if (!has_text) return FieldError(where, where + ".text is missing");
    if (index++ > 0) out->push_back('\n');
    out->append(text);
  }
  return absl::OkStatus();
}

absl::Status ReadCall(const std::string& where, const Json& value, ToolCall& call) {
  dom::object object;
  if (value.get_object().get(object) != simdjson::SUCCESS) {
    return TypeError(where, value, "an object");
  }
  std::string arguments = "{}";
  for (const dom::key_value_pair member : object) {
    if (member.key == "id") {
      RETURN_IF_ERROR(RequireString(where + ".id", member.value, call.id));
    } else if (member.key == "type") {
      std::string type;
      RETURN_IF_ERROR(RequireString(where + ".type", member.value, type));
      if (type != "function") return UnsupportedField(where + ".type", "only \"function\" is");
    } else if (member.key == "function") {
      dom::object function;
      if (member.value.get_object().get(function) != simdjson::SUCCESS) {
        return TypeError(where + ".function", member.value, "an object");
      }
      for (const dom::key_value_pair part : function) {
        if (part.key == "name") {
          RETURN_IF_ERROR(RequireString(where + ".function.name", part.value, call.name));
        } else if (part.key == "arguments") {
          RETURN_IF_ERROR(RequireString(where + ".function.arguments", part.value, arguments));
        } else {
          return FieldError(where + ".function", where + ".function has an unrecognized field");
        }
      }
    } else if (member.key != "index") {
      return FieldError(where, absl::StrFormat("%s has an unrecognized field: %s", where,
                                               member.key.substr(0, 100)));
    }
  }
  if (call.name.empty()) {
    return FieldError(where + ".function.name", where + ".function.name is missing");
  }
  if (arguments.empty()) arguments = "{}";
  absl::StatusOr<Value> parsed = ParseJsonValue(arguments);
  const size_t first = arguments.find_first_not_of(" \t\r\n");
  if (!parsed.ok() || first == std::string::npos || arguments[first] != '{') {
    return FieldError(where + ".function.arguments",
                      where + ".function.arguments must be the text of a JSON object");
  }
  call.arguments = *std::move(parsed);
  return absl::OkStatus();
}

absl::Status ReadMessage(const std::string& where, const Json& value, ChatMessage& message) {
  dom::object object;
  if (value.get_object().get(object) != simdjson::SUCCESS) {
    return TypeError(where, value, "an object");
  }
  for (const dom::key_value_pair member : object) {
    const std::string name = absl::StrFormat("%s.%s", where, member.key.substr(0, 100));
    if (member.key == "role") {
      RETURN_IF_ERROR(RequireString(name, member.value, message.role));
    } else if (member.key == "content") {
      RETURN_IF_ERROR(ReadContent(name, member.value, message.content));
    } else if (member.key == "name") {
      RETURN_IF_ERROR(ReadString(name, member.value, message.name));
    } else if (member.key == "tool_call_id") {
      RETURN_IF_ERROR(ReadString(name, member.value, message.tool_call_id));
    } else if (member.key == "tool_calls") {
      if (member.value.is_null()) continue;
      dom::array calls;
      if (member.value.get_array().get(calls) != simdjson::SUCCESS) {
        return TypeError(name, member.value, "a list");
      }
      for (const Json call : calls) {
        const std::string item = absl::StrFormat("%s[%d]", name, message.tool_calls.size());
        RETURN_IF_ERROR(ReadCall(item, call, message.tool_calls.emplace_back()));
      }
    } else if (member.key == "refusal" || member.key == "audio" || member.key == "function_call" ||
               member.key == "annotations" || member.key == "reasoning_content" ||
               member.key == "reasoning") {
      // Clients send a reply's message back as it came, with these empty.
      const bool empty = member.value.is_null() ||
                         (member.value.is_array() && dom::array(member.value).size() == 0);
      if (!empty) return UnsupportedField(name);
    } else {
      return FieldError(name, "Unrecognized request field: " + name);
    }
  }
  if (message.role.empty()) return FieldError(where + ".role", where + ".role is missing");
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadMessages(std::string_view name, const Json& value, std::vector<ChatMessage>& out) {
  dom::array messages;
  if (value.get_array().get(messages) != simdjson::SUCCESS) {
    return TypeError(name, value, "a list of messages");
  }
  for (const Json message : messages) {
    const std::string where = absl::StrFormat("%s[%d]", name, out.size());
    RETURN_IF_ERROR(ReadMessage(where, message, out.emplace_back()));
  }
  return absl::OkStatus();
}

absl::Status ReadTools(std::string_view name, const Json& value, Value& out) {
  if (value.is_null()) return absl::OkStatus();
  dom::array tools;
  if (value.get_array().get(tools) != simdjson::SUCCESS) {
    return TypeError(name, value, "a list of tools");
  }
  size_t index = 0;
  for (const Json tool : tools) {
    const std::string where = absl::StrFormat("%s[%d]", name, index++);
    if (!tool.is_object()) return TypeError(where, tool, "an object");
    std::string_view type;
    if (tool["type"].get_string().get(type) != simdjson::SUCCESS) {
      return FieldError(where + ".type", where + ".type must be a string");
    }
    if (type != "function") return UnsupportedField(where + ".type", "only \"function\" is");
    std::string_view function;
    if (tool["function"]["name"].get_string().get(function) != simdjson::SUCCESS ||
        function.empty()) {
      return FieldError(where + ".function.name", where + ".function.name must be a string");
    }
  }
  if (index > 0) out = ToTemplateValue(value);
  return absl::OkStatus();
}

}  // namespace reticle::server::http
