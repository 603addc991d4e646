#include "server/cli/chat_session.h"

#include <simdjson.h>

#include <charconv>
#include <cmath>
#include <limits>
#include <utility>

#include "base/status.h"
#include "server/http/json_writer.h"

namespace reticle::server::cli {
namespace {

namespace dom = simdjson::dom;

constexpr size_t kMaxEventBytes = size_t{16} << 20;

std::string_view Trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

struct CommandName {
  std::string_view name;
  ChatCommand::Kind kind;
};

constexpr CommandName kCommands[] = {
    {"help", ChatCommand::Kind::kHelp},   {"?", ChatCommand::Kind::kHelp},
    {"reset", ChatCommand::Kind::kReset}, {"system", ChatCommand::Kind::kSystem},
    {"model", ChatCommand::Kind::kModel}, {"models", ChatCommand::Kind::kModels},
    {"set", ChatCommand::Kind::kSet},     {"stats", ChatCommand::Kind::kStats},
    {"exit", ChatCommand::Kind::kExit},   {"quit", ChatCommand::Kind::kExit},
};

absl::Status SetNumber(std::string_view name, std::string_view text, double low, double high,
                       std::optional<double>& out) {
  double value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size() ||
      !(value >= low && value <= high)) {
    return InvalidArgumentError("%s is \"%s\"; it must be a number from %g to %g", name, text, low,
                                high);
  }
  out = value;
  return absl::OkStatus();
}

absl::Status SetInteger(std::string_view name, std::string_view text, int64_t low,
                        std::optional<int64_t>& out) {
  int64_t value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size() || value < low) {
    if (low == std::numeric_limits<int64_t>::min()) {
      return InvalidArgumentError("%s is \"%s\"; it must be a whole number", name, text);
    }
    return InvalidArgumentError("%s is \"%s\"; it must be a whole number, at least %d", name, text,
                                low);
  }
  out = value;
  return absl::OkStatus();
}

std::string Number(double value) { return absl::StrFormat("%.15g", value); }

void AppendMessage(std::string& out, std::string_view role, std::string_view content) {
  if (out.back() != '[') out.push_back(',');
  out.append(R"({"role":")").append(role).append(R"(","content":)");
  http::AppendJsonString(out, content);
  out.push_back('}');
}

// The parser keeps its buffers; what it returns lives until its next use.
simdjson::error_code ParseObject(dom::parser& parser, std::string_view json, dom::object& object) {
  return parser.parse(json.data(), json.size()).get_object().get(object);
}

std::string MessageIn(const dom::element& error) {
  std::string_view text;
  if (error.get_string().get(text) == simdjson::SUCCESS ||
      error["message"].get_string().get(text) == simdjson::SUCCESS) {
    return std::string(text);
  }
  return {};
}

}  // namespace

absl::StatusOr<ChatCommand> ParseChatCommand(std::string_view line) {
  line = Trim(line);
  if (line.empty() || line.front() != '/') {
    return InvalidArgumentError("a command begins with \"/\"");
  }
  line.remove_prefix(1);
  const std::string_view name = line.substr(0, line.find_first_of(" \t"));
  ChatCommand command;
  command.argument = std::string(Trim(line.substr(name.size())));
  for (const CommandName& known : kCommands) {
    if (known.name != name) continue;
    command.kind = known.kind;
    if (command.kind == ChatCommand::Kind::kStats && command.argument != "on" &&
        command.argument != "off") {
      return InvalidArgumentError("/stats takes \"on\" or \"off\"");
    }
    return command;
  }
  return InvalidArgumentError("there is no command /%s; /help lists them", name.substr(0, 40));
}

std::string_view ChatHelp() {
  return "/help                 this list\n"
         "/reset                forget the conversation\n"
         "/system [TEXT]        instructions for the model; without TEXT: none\n"
         "/model [NAME]         ask this model from now on; without NAME: say which one it is\n"
         "/models               list the server's models\n"
         "/set [NAME VALUE]     temperature, top_p, top_k, max_tokens or seed; \"default\" takes "
         "it "
         "back\n"
         "/stats on|off         speed and time to first token after each answer\n"
         "/exit                 leave (also Ctrl-D)\n"
         "Ctrl-C stops an answer. A line that ends in \\ goes on in the next one.\n";
}

absl::Status ChatSession::Set(std::string_view assignment) {
  assignment = Trim(assignment);
  const std::string_view name = assignment.substr(0, assignment.find_first_of(" \t="));
  std::string_view value = Trim(assignment.substr(name.size()));
  if (value.starts_with('=')) value = Trim(value.substr(1));
  if (value.empty()) return InvalidArgumentError("/set takes a name and a value");
  const bool reset = value == "default";
  const auto number = [&](double low, double high, std::optional<double>& out) {
    if (!reset) return SetNumber(name, value, low, high, out);
    out.reset();
    return absl::OkStatus();
  };
  const auto integer = [&](int64_t low, std::optional<int64_t>& out) {
    if (!reset) return SetInteger(name, value, low, out);
    out.reset();
    return absl::OkStatus();
  };
  if (name == "temperature") return number(0, 2, temperature_);
  if (name == "top_p") return number(0, 1, top_p_);
  if (name == "top_k") return integer(-1, top_k_);
  if (name == "max_tokens") return integer(1, max_tokens_);
  if (name == "seed") return integer(std::numeric_limits<int64_t>::min(), seed_);
  return InvalidArgumentError(
      "there is no setting \"%s\"; there are temperature, top_p, top_k, max_tokens and seed",
      name.substr(0, 40));
}

std::string ChatSession::DescribeSettings() const {
  std::string out;
  const auto line = [&](const char* name, const std::string& value) {
    out.append(absl::StrFormat("%-12s %s\n", name, value));
  };
  const auto number = [](const std::optional<double>& value) {
    return value.has_value() ? Number(*value) : std::string("default");
  };
  const auto integer = [](const std::optional<int64_t>& value) {
    return value.has_value() ? std::to_string(*value) : std::string("default");
  };
  line("temperature", number(temperature_));
  line("top_p", number(top_p_));
  line("top_k", integer(top_k_));
  line("max_tokens", integer(max_tokens_));
  line("seed", integer(seed_));
  return out;
}

std::string ChatSession::RequestBody(std::string_view question) const {
  std::string out = "{";
  if (!model.empty()) {
    out.append(R"("model":)");
    http::AppendJsonString(out, model);
    out.push_back(',');
  }
  out.append(R"("stream":true,"stream_options":{"include_usage":true},"messages":[)");
  if (!system.empty()) AppendMessage(out, "system", system);
  for (const Turn& turn : said_) {
    AppendMessage(out, "user", turn.question);
    AppendMessage(out, "assistant", turn.answer);
  }
  AppendMessage(out, "user", question);
  out.push_back(']');
  const auto field = [&](const char* name, const std::string& value) {
    out.append(",\"").append(name).append("\":").append(value);
  };
  if (temperature_.has_value()) field("temperature", Number(*temperature_));
  if (top_p_.has_value()) field("top_p", Number(*top_p_));
  if (top_k_.has_value()) field("top_k", std::to_string(*top_k_));
  if (max_tokens_.has_value()) field("max_tokens", std::to_string(*max_tokens_));
  if (seed_.has_value()) field("seed", std::to_string(*seed_));
  out.push_back('}');
  return out;
}

void ChatSession::Remember(std::string question, std::string answer) {
  said_.push_back({std::move(question), std::move(answer)});
}

absl::StatusOr<ChatEvent> ParseChatEvent(std::string_view data) {
  ChatEvent event;
  if (data == "[DONE]") {
    event.done = true;
    return event;
  }
  dom::parser parser;
  dom::object object;
  if (ParseObject(parser, data, object) != simdjson::SUCCESS) {
    return InvalidArgumentError("the server sent an event that is no JSON object");
  }
  dom::element error;
  if (object["error"].get(error) == simdjson::SUCCESS && !error.is_null()) {
    const std::string message = MessageIn(error);
    return absl::AbortedError(message.empty() ? "the server gave the answer up" : message);
  }
  std::string_view text;
  dom::element choice;
  if (object["choices"].at(0).get(choice) == simdjson::SUCCESS) {
    if (choice["delta"]["content"].get_string().get(text) == simdjson::SUCCESS) event.text = text;
    if (choice["finish_reason"].get_string().get(text) == simdjson::SUCCESS) event.finish = text;
  }
  int64_t tokens = 0;
  if (object["usage"]["completion_tokens"].get_int64().get(tokens) == simdjson::SUCCESS) {
    event.completion_tokens = tokens;
  }
  double ms = 0;
  if (object["usage"]["reticle"]["completion_ms"].get_double().get(ms) == simdjson::SUCCESS) {
    event.completion_ms = ms;
  }
  return event;
}

std::string ErrorMessageOf(std::string_view body) {
  dom::parser parser;
  dom::object object;
  if (ParseObject(parser, body, object) != simdjson::SUCCESS) return {};
  for (const char* name : {"error", "detail", "message"}) {
    dom::element error;
    if (object[name].get(error) != simdjson::SUCCESS) continue;
    if (std::string message = MessageIn(error); !message.empty()) return message;
  }
  return {};
}

absl::StatusOr<std::vector<std::string>> ParseModelList(std::string_view body) {
  dom::parser parser;
  dom::object object;
  dom::array data;
  if (ParseObject(parser, body, object) != simdjson::SUCCESS ||
      object["data"].get_array().get(data) != simdjson::SUCCESS) {
    return InvalidArgumentError("the server's list of models is not of OpenAI's shape");
  }
  std::vector<std::string> ids;
  for (const dom::element model : data) {
    std::string_view id;
    if (model["id"].get_string().get(id) == simdjson::SUCCESS) ids.emplace_back(id);
  }
  return ids;
}

absl::Status SseReader::Push(std::string_view bytes, const OnData& on_data) {
  while (!bytes.empty()) {
    if (after_cr_ && bytes.front() == '\n') bytes.remove_prefix(1);
    after_cr_ = false;
    const size_t end = bytes.find_first_of("\r\n");
    line_.append(bytes.substr(0, end));
    if (line_.size() + data_.size() > kMaxEventBytes) {
      return ResourceExhaustedError("the server sent an event of more than 16 MiB");
    }
    if (end == std::string_view::npos) break;
    after_cr_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    const std::string line = std::move(line_);
    line_.clear();
    if (!line.empty()) {
      const bool bare = line == "data";
      if (!bare && !line.starts_with("data:")) continue;
      if (has_data_) data_.push_back('\n');
      has_data_ = true;
      if (!bare) data_.append(line, line.size() > 5 && line[5] == ' ' ? 6 : 5);
      continue;
    }
    if (!has_data_) continue;
    const std::string data = std::move(data_);
    data_.clear();
    has_data_ = false;
    RETURN_IF_ERROR(on_data(data));
  }
  return absl::OkStatus();
}

std::string PlainText(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f) continue;
    // U+0080 to U+009F, the eight-bit control characters.
    if (c == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0) {
      ++i;
      continue;
    }
    out.push_back(text[i]);
  }
  return out;
}

}  // namespace reticle::server::cli
