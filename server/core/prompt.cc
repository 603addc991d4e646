#include <ctime>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/status.h"
#include "server/core/error.h"
#include "server/core/valid_request.h"

namespace reticle::server {
namespace {

using tokenizer::jinja::Value;

absl::Status CheckMessage(const ChatMessage& message, size_t index) {
  const std::string where = absl::StrFormat("messages[%d]", index);
  const std::string& role = message.role;
  if (role != "system" && role != "developer" && role != "user" && role != "assistant" &&
      role != "tool") {
    return WithParam(InvalidArgumentError(
                         "%s.role is \"%s\"; it must be system, developer, user, assistant or tool",
                         where, role.substr(0, 64)),
                     where + ".role");
  }
  if (!message.tool_calls.empty() && role != "assistant") {
    return WithParam(InvalidArgumentError(
                         "%s.tool_calls is set, but only assistant messages may have it", where),
                     where + ".tool_calls");
  }
  if (!message.content.has_value() && message.tool_calls.empty()) {
    return WithParam(InvalidArgumentError("%s.content is missing", where), where + ".content");
  }
  if (role == "tool" && message.tool_call_id.empty()) {
    return WithParam(
        InvalidArgumentError("%s.tool_call_id is missing; a tool message needs it", where),
        where + ".tool_call_id");
  }
  return absl::OkStatus();
}

Value MessageValue(const ChatMessage& message) {
  Value::Object object;
  // Templates know the older name of the developer's role only.
  object.emplace_back("role", Value(message.role == "developer" ? "system" : message.role));
  object.emplace_back("content",
                      message.content.has_value() ? Value(*message.content) : Value(Value::None{}));
  if (!message.name.empty()) object.emplace_back("name", Value(message.name));
  if (!message.tool_call_id.empty()) {
    object.emplace_back("tool_call_id", Value(message.tool_call_id));
  }
  if (!message.tool_calls.empty()) {
    Value::List calls;
    for (const ToolCall& call : message.tool_calls) {
      Value::Object function;
      function.emplace_back("name", Value(call.name));
      function.emplace_back("arguments", call.arguments);
      Value::Object item;
      item.emplace_back("id", Value(call.id));
      item.emplace_back("type", Value("function"));
      item.emplace_back("function", Value(std::move(function)));
      calls.push_back(Value(std::move(item)));
    }
    object.emplace_back("tool_calls", Value(std::move(calls)));
  }
  return Value(std::move(object));
}

std::string ControlText(const tokenizer::Tokenizer& tokenizer, std::optional<TokenId> token) {
  return token.has_value() ? std::string(tokenizer.TokenText(*token)) : std::string();
}

// Control tokens are those that the template itself wrote; everything between two of them, whoever
// wrote it, is one text to the encoder, as in training.
std::vector<TokenId> EncodeSegments(const std::vector<tokenizer::ChatTemplate::Segment>& segments,
                                    const tokenizer::Tokenizer& tokenizer, bool add_special) {
  std::vector<TokenId> tokens;
  if (add_special && tokenizer.bos().has_value()) tokens.push_back(*tokenizer.bos());
  std::string text;
  const auto flush = [&] {
    tokenizer.Encode(text, {.add_special = false, .parse_special = false}, tokens);
    text.clear();
  };
  for (const tokenizer::ChatTemplate::Segment& segment : segments) {
    const std::string_view part = segment.text;
    size_t done = 0;
    if (!segment.from_message) {
      std::vector<TokenId> parsed;
      tokenizer.Encode(part, {.add_special = false, .parse_special = true}, parsed);
      for (const TokenId token : parsed) {
        if (!tokenizer.IsControl(token)) continue;
        const std::string_view literal = tokenizer.TokenText(token);
        const size_t at = literal.empty() ? std::string_view::npos : part.find(literal, done);
        if (at == std::string_view::npos) continue;
        text.append(part.substr(done, at - done));
        flush();
        tokens.push_back(token);
        done = at + literal.size();
      }
    }
    text.append(part.substr(done));
  }
  flush();
  return tokens;
}

absl::StatusOr<std::vector<TokenId>> EncodeChat(const ChatPrompt& chat, const ModelEntry& model,
                                                std::optional<bool> add_special_tokens) {
  if (model.chat_template == nullptr) {
    return WithParam(InvalidArgumentError(
                         "messages: model \"%s\" has no chat template; use completions", model.id),
                     "messages");
  }
  if (chat.messages.empty()) {
    return WithParam(InvalidArgumentError("messages is empty; it needs at least one message"),
                     "messages");
  }
  tokenizer::ChatTemplate::Inputs inputs;
  Value::List messages;
  for (size_t i = 0; i < chat.messages.size(); ++i) {
    RETURN_IF_ERROR(CheckMessage(chat.messages[i], i));
    messages.push_back(MessageValue(chat.messages[i]));
  }
  inputs.messages = Value(std::move(messages));
  inputs.tools = chat.tools;
  inputs.extra = chat.kwargs;
  inputs.add_generation_prompt = chat.add_generation_prompt;
  inputs.bos_token = ControlText(*model.tokenizer, model.tokenizer->bos());
  inputs.eos_token = ControlText(*model.tokenizer, model.tokenizer->eos());
  inputs.now_unix_s = UnixSeconds();
  const auto segments = model.chat_template->RenderSegments(inputs);
  if (!segments.ok()) return WithParam(segments.status(), "messages");
  return EncodeSegments(*segments, *model.tokenizer, add_special_tokens.value_or(false));
}

}  // namespace

absl::StatusOr<std::vector<TokenId>> EncodePrompt(const PromptInput& prompt,
                                                  const ModelEntry& model,
                                                  std::optional<bool> add_special_tokens) {
  if (const auto* chat = std::get_if<ChatPrompt>(&prompt)) {
    return EncodeChat(*chat, model, add_special_tokens);
  }
  if (const auto* tokens = std::get_if<std::vector<TokenId>>(&prompt)) {
    for (size_t i = 0; i < tokens->size(); ++i) {
      if ((*tokens)[i] >= model.limits.vocab_size) {
        return WithParam(
            InvalidArgumentError("prompt[%d] is token %d; this model's vocabulary has %d tokens", i,
                                 (*tokens)[i], model.limits.vocab_size),
            "prompt");
      }
    }
    return *tokens;
  }
  std::vector<TokenId> tokens;
  model.tokenizer->Encode(std::get<std::string>(prompt),
                          {.add_special = add_special_tokens.value_or(true)}, tokens);
  return tokens;
}

}  // namespace reticle::server
