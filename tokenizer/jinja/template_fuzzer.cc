// libFuzzer entry: the input is a template, rendered over a fixed conversation.

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tokenizer/jinja/json.h"
#include "tokenizer/jinja/template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using reticle::tokenizer::jinja::Limits;
  using reticle::tokenizer::jinja::ParseJson;
  using reticle::tokenizer::jinja::Template;
  using reticle::tokenizer::jinja::Value;

  static const Value messages = *ParseJson(
      R"([{"role": "system", "content": "s"}, {"role": "user", "content": "h\u00e9 <x> 'q'"},
          {"role": "assistant", "content": null, "tool_calls": [{"id": "abcdefghi", "function":
            {"name": "f", "arguments": {"a": 1.5, "b": [true, null]}}}]},
          {"role": "tool", "content": [{"type": "text", "text": "t"}]}])",
      {.untrusted = true});
  Limits limits;
  limits.max_steps = 20'000;
  limits.max_allocated_bytes = size_t{8} << 20;
  const std::string_view source(reinterpret_cast<const char*>(data), size);
  const auto parsed = Template::Create(source, limits);
  if (!parsed.ok()) return 0;
  const auto rendered = (*parsed)->Render({{"messages", messages},
                                           {"tools", messages},
                                           {"x", Value(int64_t{5})},
                                           {"d", messages.items()[2]},
                                           {"bos_token", Value("<s>")},
                                           {"add_generation_prompt", Value(true)}});
  return rendered.ok() && rendered->size() > limits.max_output_bytes ? -1 : 0;
}
