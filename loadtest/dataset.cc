#include "loadtest/dataset.h"

#include <simdjson.h>

#include <utility>

#include "base/file.h"
#include "base/status.h"
#include "loadtest/text.h"

namespace reticle::loadtest {
namespace {

int64_t CountWords(std::string_view text) {
  int64_t words = 0;
  bool inside = false;
  for (const char c : text) {
    const bool space = c == ' ' || c == '\n' || c == '\t' || c == '\r';
    if (!space && !inside) ++words;
    inside = !space;
  }
  return words;
}

// The string under either name; false when there is none.
bool ReadText(const simdjson::dom::object& object, const char* name, const char* other,
              std::string_view& out) {
  return object[name].get(out) == simdjson::SUCCESS || object[other].get(out) == simdjson::SUCCESS;
}

absl::StatusOr<RecordedConversation> ReadConversation(const simdjson::dom::element& element) {
  RecordedConversation conversation;
  simdjson::dom::array messages;
  if (element["conversations"].get(messages) != simdjson::SUCCESS &&
      element["messages"].get(messages) != simdjson::SUCCESS) {
    return InvalidArgumentError("it has no list \"conversations\"");
  }
  for (const simdjson::dom::element item : messages) {
    simdjson::dom::object message;
    std::string_view from;
    std::string_view value;
    if (item.get(message) != simdjson::SUCCESS || !ReadText(message, "from", "role", from) ||
        !ReadText(message, "value", "content", value)) {
      return InvalidArgumentError("a message lacks \"from\" or \"value\"");
    }
    if (from == "human" || from == "user") {
      conversation.turns.push_back({std::string(value), 0});
    } else if ((from == "gpt" || from == "assistant") && !conversation.turns.empty()) {
      conversation.turns.back().reply_words = CountWords(value);
    } else if (from == "system") {
      conversation.system = std::string(value);
    }
  }
  return conversation;
}

}  // namespace

absl::StatusOr<std::vector<RecordedConversation>> ParseShareGpt(std::string_view json,
                                                                const std::string& origin) {
  simdjson::dom::parser parser;
  simdjson::dom::array list;
  if (const auto error = parser.parse(json.data(), json.size()).get(list);
      error != simdjson::SUCCESS) {
    return InvalidArgumentError("%s is no JSON array (%s)", origin, simdjson::error_message(error));
  }
  std::vector<RecordedConversation> conversations;
  size_t index = 0;
  for (const simdjson::dom::element element : list) {
    absl::StatusOr<RecordedConversation> conversation = ReadConversation(element);
    if (!conversation.ok()) {
      return InvalidArgumentError("%s, conversation %d: %s", origin, index,
                                  conversation.status().message());
    }
    ++index;
    if (!conversation->turns.empty()) conversations.push_back(*std::move(conversation));
  }
  if (conversations.empty()) return InvalidArgumentError("%s holds no human turn", origin);
  return conversations;
}

absl::StatusOr<std::vector<RecordedConversation>> LoadShareGpt(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile("dataset file", path));
  return ParseShareGpt(text, path);
}

}  // namespace reticle::loadtest
