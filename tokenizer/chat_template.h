// Renders a model's own Jinja chat template (GGUF key tokenizer.chat_template).
//
// Special tokens that a client writes into a message must not become control tokens. RenderSegments
// therefore says of each part of the prompt who wrote it; see Segment for how to encode them.
#ifndef RETICLE_TOKENIZER_CHAT_TEMPLATE_H_
#define RETICLE_TOKENIZER_CHAT_TEMPLATE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "tokenizer/jinja/runtime.h"
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
    // Extra template variables (chat_template_kwargs); an object or none. They come before the ones
    // above: messages and tools cannot be replaced by them.
    jinja::Value extra;
    // Seconds since the Unix epoch for strftime_now (UTC), so that rendering is a function of its
    // inputs.
    int64_t now_unix_s = 0;
  };

  // A run of the prompt. Special tokens may be recognised only where they lie wholly within runs
  // that are not from messages. To get the ids that the model was trained on, look for them there
  // and encode everything between two of them as one text, across the borders of segments.
  struct Segment {
    std::string text;
    // Written by the client: strings of `messages`, `tools` and `extra`, and what was made of them.
    // The known values of `role` (system, user, assistant, tool and so on) count as the template's.
    bool from_message = false;

    bool operator==(const Segment&) const = default;
  };

  // Parses `source`. INVALID_ARGUMENT with line and column when it is not valid.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Create(std::string_view source,
                                                              const jinja::Limits& limits = {});
  ~ChatTemplate();

  // The prompt text. INVALID_ARGUMENT when the template itself raises an exception (its message is
  // kept, after the line) or uses an undefined operation; OUT_OF_RANGE for integers beyond 64 bits;
  // RESOURCE_EXHAUSTED when output or steps pass the engine's limits.
  absl::StatusOr<std::string> Render(const Inputs& inputs) const;

  // The same text in segments, neighbours of equal origin merged, none empty.
  absl::StatusOr<std::vector<Segment>> RenderSegments(const Inputs& inputs) const;

 private:
  struct Impl;

  explicit ChatTemplate(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace reticle::tokenizer

#endif  // RETICLE_TOKENIZER_CHAT_TEMPLATE_H_
