// Renders a model's own Jinja chat template (GGUF key tokenizer.chat_template).
#ifndef RETICLE_TOKENIZER_CHAT_TEMPLATE_H_
#define RETICLE_TOKENIZER_CHAT_TEMPLATE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "tokenizer/jinja/value.h"

namespace reticle::tokenizer {

// Immutable after Create, so thread-safe.
class ChatTemplate {
 public:
  struct Inputs {
    // Array of message objects as in OpenAI's API: role, content (string, or array of {type:"text",
    // text} parts), and whatever else the client sent (name, tool_calls, tool_call_id).
    jinja::Value messages;
    // Array of tool definitions as in OpenAI's API, or none.
    jinja::Value tools;
    bool add_generation_prompt = true;
    std::string bos_token;
    std::string eos_token;
    // Extra template variables (chat_template_kwargs); an object or none.
    jinja::Value extra;
    // Seconds since the Unix epoch for strftime_now, so that rendering is a function of its inputs.
    int64_t now_unix_s = 0;
  };

  // Parses `source`. INVALID_ARGUMENT with line and column when it is not valid.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Create(std::string_view source);
  ~ChatTemplate();

  // The prompt text. INVALID_ARGUMENT when the template itself raises an exception (its message is
  // kept) or uses an undefined operation; RESOURCE_EXHAUSTED when output or steps pass the engine's
  // limits.
  absl::StatusOr<std::string> Render(const Inputs& inputs) const;

 private:
  ChatTemplate();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace reticle::tokenizer

#endif  // RETICLE_TOKENIZER_CHAT_TEMPLATE_H_
