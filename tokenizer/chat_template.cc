#include "tokenizer/chat_template.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/status.h"
#include "tokenizer/jinja/template.h"

namespace reticle::tokenizer {
namespace {

using jinja::Dict;
using jinja::Sequence;
using jinja::Text;
using jinja::Value;

constexpr std::string_view kRoles[] = {"system",    "developer",    "user",    "assistant",
                                       "tool",      "function",     "ipython", "model",
                                       "tool_call", "tool_response"};

bool IsKnownRole(std::string_view role) {
  return std::find(std::begin(kRoles), std::end(kRoles), role) != std::end(kRoles);
}

// Templates build control tokens around the role ("<|" + role + "|>"), so a known one is trusted.
Value TrustRole(const Value& message) {
  if (!message.is_dict()) return message;
  const Value* const role = message.dict().Find(std::string_view("role"));
  if (role == nullptr || !role->is_string() || !IsKnownRole(role->view())) return message;
  Dict copy = message.dict();
  copy.Set(Value("role"), Value(role->text().str()));
  return Value(std::move(copy));
}

Value MarkMessages(const Value& messages) {
  const Value marked = MarkUntrusted(messages);
  if (!marked.is_sequence()) return marked;
  Sequence copy = marked.sequence();
  for (Value& message : copy.items) message = TrustRole(message);
  return Value(std::move(copy));
}

Value NoneIfUndefined(const Value& value) {
  return value.is_undefined() ? Value(Value::None{}) : value;
}

}  // namespace

struct ChatTemplate::Impl {
  std::unique_ptr<const jinja::Template> parsed;

  absl::StatusOr<Text> Render(const Inputs& inputs, bool mark) const {
    const auto from_client = [mark](const Value& value) {
      return mark ? MarkUntrusted(value) : value;
    };
    jinja::Template::Variables variables;
    if (inputs.extra.is_dict()) {
      for (const auto& [name, value] : inputs.extra.dict().items()) {
        if (name.is_string()) variables.emplace_back(name.text().str(), from_client(value));
      }
    } else if (!inputs.extra.is_none() && !inputs.extra.is_undefined()) {
      return InvalidArgumentError("chat_template_kwargs must be an object, not %s",
                                  inputs.extra.TypeName());
    }
    const bool has_documents =
        std::any_of(variables.begin(), variables.end(),
                    [](const auto& variable) { return variable.first == "documents"; });
    if (!has_documents) variables.emplace_back("documents", Value(Value::None{}));
    variables.emplace_back("messages", mark ? MarkMessages(inputs.messages) : inputs.messages);
    variables.emplace_back("tools", from_client(NoneIfUndefined(inputs.tools)));
    variables.emplace_back("add_generation_prompt", Value(inputs.add_generation_prompt));
    variables.emplace_back("bos_token", Value(inputs.bos_token));
    variables.emplace_back("eos_token", Value(inputs.eos_token));
    return parsed->Render(variables, inputs.now_unix_s);
  }
};

ChatTemplate::ChatTemplate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

ChatTemplate::~ChatTemplate() = default;

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Create(std::string_view source,
                                                                   const jinja::Limits& limits) {
  auto impl = std::make_unique<Impl>();
  absl::StatusOr<std::unique_ptr<const jinja::Template>> parsed =
      jinja::Template::Create(source, limits);
  if (!parsed.ok()) {
    return absl::Status(parsed.status().code(),
                        "chat template, " + std::string(parsed.status().message()));
  }
  impl->parsed = *std::move(parsed);
  return std::unique_ptr<ChatTemplate>(new ChatTemplate(std::move(impl)));
}

absl::StatusOr<std::string> ChatTemplate::Render(const Inputs& inputs) const {
  ASSIGN_OR_RETURN(const Text text, impl_->Render(inputs, false));
  return text.str();
}

absl::StatusOr<std::vector<ChatTemplate::Segment>> ChatTemplate::RenderSegments(
    const Inputs& inputs) const {
  ASSIGN_OR_RETURN(const Text text, impl_->Render(inputs, true));
  std::vector<Segment> segments;
  text.ForEachRun(0, text.size(), [&segments](std::string_view run, bool untrusted) {
    segments.push_back({std::string(run), untrusted});
  });
  return segments;
}

}  // namespace reticle::tokenizer
