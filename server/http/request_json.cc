#include "server/http/request_json.h"

#include <charconv>
#include <utility>

#include "base/status.h"
#include "server/core/error.h"
#include "server/http/chat_json.h"
#include "server/http/json_fields.h"

namespace reticle::server::http {
namespace {

namespace dom = simdjson::dom;

// OpenAI's bound; a device may have a lower one.
constexpr int64_t kMaxTopLogprobs = 20;

// A completion body while it is read: what needs a second look when all fields are known.
struct Draft {
  CompletionBody body;
  ChatPrompt chat;
  bool has_prompt = false;
  bool has_stream_options = false;
  bool wants_logprobs = false;          // chat: logprobs
  std::optional<int64_t> top_logprobs;  // chat
  std::optional<int64_t> max_completion_tokens;
  std::optional<int64_t> best_of;
  bool no_tools = false;  // tool_choice: none
};

using DraftField = Field<Draft>;

// What clients send for OpenAI's own bookkeeping: checked, and then not looked at.
absl::Status IgnoreString(std::string_view name, const Json& value, Draft&) {
  std::string text;
  return ReadString(name, value, text);
}

absl::Status IgnoreBool(std::string_view name, const Json& value, Draft&) {
  bool ignored = false;
  return ReadBool(name, value, ignored);
}

absl::Status IgnoreObject(std::string_view name, const Json& value, Draft&) {
  if (value.is_null() || value.is_object()) return absl::OkStatus();
  return TypeError(name, value, "an object");
}

absl::Status Refuse(std::string_view name, const Json& value, Draft&) {
  if (value.is_null()) return absl::OkStatus();
  return UnsupportedField(name);
}

// Refused unless false.
absl::Status RefuseTrue(std::string_view name, const Json& value, Draft&) {
  bool wanted = false;
  RETURN_IF_ERROR(ReadBool(name, value, wanted));
  return wanted ? UnsupportedField(name) : absl::OkStatus();
}

// Refused unless true.
absl::Status RefuseFalse(std::string_view name, const Json& value, Draft&) {
  bool wanted = true;
  RETURN_IF_ERROR(ReadBool(name, value, wanted));
  return wanted ? absl::OkStatus() : UnsupportedField(name, "false is not offered");
}

absl::Status ReadStreamOptions(std::string_view name, const Json& value, Draft& draft) {
  if (value.is_null()) return absl::OkStatus();
  dom::object object;
  if (value.get_object().get(object) != simdjson::SUCCESS) {
    return TypeError(name, value, "an object");
  }
  draft.has_stream_options = true;
  for (const dom::key_value_pair member : object) {
    const std::string field = absl::StrFormat("%s.%s", name, member.key.substr(0, 100));
    if (member.key == "include_usage") {
      RETURN_IF_ERROR(ReadBool(field, member.value, draft.body.include_usage));
    } else if (member.key == "continuous_usage_stats") {
      RETURN_IF_ERROR(ReadBool(field, member.value, draft.body.continuous_usage_stats));
    } else if (member.key == "merge_events") {
      RETURN_IF_ERROR(ReadBool(field, member.value, draft.body.params.merge_events));
    } else if (member.key == "include_obfuscation") {
      RETURN_IF_ERROR(RefuseTrue(field, member.value, draft));
    } else {
      return FieldError(field, "Unrecognized request field: " + field);
    }
  }
  return absl::OkStatus();
}

absl::Status ReadLogitBias(std::string_view name, const Json& value, Draft& draft) {
  if (value.is_null()) return absl::OkStatus();
  dom::object object;
  if (value.get_object().get(object) != simdjson::SUCCESS) {
    return TypeError(name, value, "an object of token ids to numbers");
  }
  for (const dom::key_value_pair member : object) {
    int64_t token = 0;
    const char* const end = member.key.data() + member.key.size();
    const auto parsed = std::from_chars(member.key.data(), end, token);
    if (parsed.ec != std::errc() || parsed.ptr != end) {
      return FieldError(name, absl::StrFormat("%s has the key \"%s\", which is no token id", name,
                                              member.key.substr(0, 100)));
    }
    std::optional<double> bias;
    const std::string field = absl::StrFormat("%s.%d", name, token);
    RETURN_IF_ERROR(ReadDouble(field, member.value, bias));
    if (!bias.has_value()) return TypeError(field, member.value, "a number");
    draft.body.params.logit_bias.emplace_back(token, *bias);
  }
  return absl::OkStatus();
}

absl::Status ReadResponseFormat(std::string_view name, const Json& value, Draft&) {
  if (value.is_null()) return absl::OkStatus();
  dom::object object;
  if (value.get_object().get(object) != simdjson::SUCCESS) {
    return TypeError(name, value, "an object");
  }
  std::string_view type;
  if (object["type"].get_string().get(type) != simdjson::SUCCESS) {
    return FieldError("response_format.type", "response_format.type must be a string");
  }
  if (type != "text") {
    return UnsupportedField("response_format", absl::StrFormat("type \"%s\" needs constrained "
                                                               "decoding; only \"text\" is offered",
                                                               type.substr(0, 100)));
  }
  return absl::OkStatus();
}

absl::Status ReadToolChoice(std::string_view name, const Json& value, Draft& draft) {
  if (value.is_null()) return absl::OkStatus();
  std::string_view choice;
  if (value.get_string().get(choice) != simdjson::SUCCESS) {
    if (!value.is_object()) return TypeError(name, value, "a string or an object");
    return UnsupportedField(name, "a named function cannot be forced; use \"auto\" or \"none\"");
  }
  if (choice == "none") {
    draft.no_tools = true;
  } else if (choice == "required") {
    return UnsupportedField(name, "\"required\" cannot be forced; use \"auto\" or \"none\"");
  } else if (choice != "auto") {
    return FieldError(name, absl::StrFormat("%s is \"%s\"; it must be \"auto\" or \"none\"", name,
                                            choice.substr(0, 100)));
  }
  return absl::OkStatus();
}

absl::Status ReadModalities(std::string_view name, const Json& value, Draft&) {
  std::vector<std::string> modalities;
  if (value.is_string()) return TypeError(name, value, "a list of strings");
  RETURN_IF_ERROR(ReadStringOrList(name, value, modalities));
  for (const std::string& modality : modalities) {
    if (modality != "text") return UnsupportedField(name, "only \"text\" is offered");
  }
  return absl::OkStatus();
}

absl::Status ReadKwargs(std::string_view name, const Json& value, Draft& draft) {
  if (value.is_null()) return absl::OkStatus();
  if (!value.is_object()) return TypeError(name, value, "an object");
  draft.chat.kwargs = ToTemplateValue(value);
  return absl::OkStatus();
}

// A string, a list of strings, a list of token ids, or a list of such lists.
absl::Status ReadPrompt(std::string_view name, const Json& value, Draft& draft) {
  std::vector<PromptInput>& prompts = draft.body.params.prompts;
  draft.has_prompt = true;
  std::string_view text;
  if (value.get_string().get(text) == simdjson::SUCCESS) {
    prompts.emplace_back(std::string(text));
    return absl::OkStatus();
  }
  dom::array array;
  if (value.get_array().get(array) != simdjson::SUCCESS) {
    return TypeError(name, value, "a string, a list of strings or a list of token ids");
  }
  if (array.size() > 0 && array.at(0).is_number()) {
    std::vector<TokenId> tokens;
    RETURN_IF_ERROR(ReadTokenList(name, value, tokens));
    prompts.emplace_back(std::move(tokens));
    return absl::OkStatus();
  }
  for (const Json item : array) {
    const std::string where = absl::StrFormat("%s[%d]", name, prompts.size());
    if (item.get_string().get(text) == simdjson::SUCCESS) {
      prompts.emplace_back(std::string(text));
    } else if (item.is_array()) {
      std::vector<TokenId> tokens;
      RETURN_IF_ERROR(ReadTokenList(where, item, tokens));
      prompts.emplace_back(std::move(tokens));
    } else {
      return TypeError(where, item, "a string or a list of token ids");
    }
  }
  return absl::OkStatus();
}

#define RETICLE_PARAM(field, Read)                                       \
  {                                                                      \
    #field, [](std::string_view name, const Json& value, Draft& draft) { \
      return Read(name, value, draft.body.params.field);                 \
    }                                                                    \
  }

constexpr DraftField kCommonFields[] = {
    RETICLE_PARAM(model, ReadString),
    RETICLE_PARAM(stream, ReadBool),
    {"stream_options", ReadStreamOptions},
    RETICLE_PARAM(temperature, ReadDouble),
    RETICLE_PARAM(top_p, ReadDouble),
    RETICLE_PARAM(top_k, ReadInt),
    RETICLE_PARAM(min_p, ReadDouble),
    RETICLE_PARAM(frequency_penalty, ReadDouble),
    RETICLE_PARAM(presence_penalty, ReadDouble),
    RETICLE_PARAM(repetition_penalty, ReadDouble),
    RETICLE_PARAM(seed, ReadInt),
    {"logit_bias", ReadLogitBias},
    RETICLE_PARAM(max_tokens, ReadInt),
    RETICLE_PARAM(min_tokens, ReadInt),
    RETICLE_PARAM(stop, ReadStringOrList),
    RETICLE_PARAM(stop_token_ids, ReadIntList),
    RETICLE_PARAM(ignore_eos, ReadBool),
    RETICLE_PARAM(include_stop_str_in_output, ReadBool),
    RETICLE_PARAM(truncate_prompt_tokens, ReadInt),
    RETICLE_PARAM(n, ReadInt),
    RETICLE_PARAM(prompt_logprobs, ReadInt),
    RETICLE_PARAM(skip_special_tokens, ReadBool),
    RETICLE_PARAM(priority, ReadInt),
    RETICLE_PARAM(service_tier, ReadString),
    {"add_special_tokens",
     [](std::string_view name, const Json& value, Draft& draft) {
       bool add = false;
       RETURN_IF_ERROR(ReadBool(name, value, add));
       if (!value.is_null()) draft.body.params.add_special_tokens = add;
       return absl::OkStatus();
     }},
    {"best_of", [](std::string_view name, const Json& value,
                   Draft& draft) { return ReadInt(name, value, draft.best_of); }},
    {"response_format", ReadResponseFormat},
    {"spaces_between_special_tokens", RefuseFalse},
    // They cannot change the output.
    {"user", IgnoreString},
    {"metadata", IgnoreObject},
    {"store", IgnoreBool},
    {"safety_identifier", IgnoreString},
    {"prompt_cache_key", IgnoreString},
    {"prompt_cache_retention", IgnoreString},
    // They would, and are not offered.
    {"guided_json", Refuse},
    {"guided_regex", Refuse},
    {"guided_choice", Refuse},
    {"guided_grammar", Refuse},
    {"guided_json_object", Refuse},
    {"guided_decoding_backend", Refuse},
    {"guided_whitespace_pattern", Refuse},
    {"structured_outputs", Refuse},
    {"json_schema", Refuse},
    {"json_object", Refuse},
    {"regex", Refuse},
    {"grammar", Refuse},
    {"choice", Refuse},
    {"use_beam_search", RefuseTrue},
    {"length_penalty", Refuse},
    {"logits_processors", Refuse},
    {"bad_words", Refuse},
    {"allowed_token_ids", Refuse},
    {"kv_transfer_params", Refuse},
};

constexpr DraftField kChatFields[] = {
    {"messages",
     [](std::string_view name, const Json& value, Draft& draft) {
       draft.has_prompt = true;
       return ReadMessages(name, value, draft.chat.messages);
     }},
    {"tools", [](std::string_view name, const Json& value,
                 Draft& draft) { return ReadTools(name, value, draft.chat.tools); }},
    {"tool_choice", ReadToolChoice},
    {"parallel_tool_calls", IgnoreBool},
    {"logprobs", [](std::string_view name, const Json& value,
                    Draft& draft) { return ReadBool(name, value, draft.wants_logprobs); }},
    {"top_logprobs", [](std::string_view name, const Json& value,
                        Draft& draft) { return ReadInt(name, value, draft.top_logprobs); }},
    {"max_completion_tokens",
     [](std::string_view name, const Json& value, Draft& draft) {
       return ReadInt(name, value, draft.max_completion_tokens);
     }},
    {"add_generation_prompt",
     [](std::string_view name, const Json& value, Draft& draft) {
       return ReadBool(name, value, draft.chat.add_generation_prompt);
     }},
    {"chat_template_kwargs", ReadKwargs},
    {"modalities", ReadModalities},
    {"echo", RefuseTrue},
    {"continue_final_message", RefuseTrue},
    {"chat_template", Refuse},
    {"documents", Refuse},
    {"audio", Refuse},
    {"prediction", Refuse},
    {"reasoning_effort", Refuse},
    {"verbosity", Refuse},
    {"web_search_options", Refuse},
    {"functions", Refuse},
    {"function_call", Refuse},
};

constexpr DraftField kCompletionFields[] = {
    {"prompt", ReadPrompt},
    RETICLE_PARAM(echo, ReadBool),
    RETICLE_PARAM(logprobs, ReadInt),
    {"suffix",
     [](std::string_view name, const Json& value, Draft& draft) {
       std::string suffix;
       RETURN_IF_ERROR(ReadString(name, value, suffix));
       return suffix.empty() ? absl::OkStatus() : UnsupportedField(name);
     }},
};
#undef RETICLE_PARAM

absl::Status FinishCommon(Draft& draft) {
  GenerateParams& params = draft.body.params;
  if (draft.has_stream_options && !params.stream) {
    return FieldError("stream_options", "stream_options is set, but stream is not true");
  }
  if (draft.best_of.has_value() && *draft.best_of != params.n.value_or(1)) {
    return UnsupportedField("best_of", absl::StrFormat("it is %d; only best_of equal to n (%d) is",
                                                       *draft.best_of, params.n.value_or(1)));
  }
  return absl::OkStatus();
}

absl::Status FinishChat(Draft& draft) {
  GenerateParams& params = draft.body.params;
  if (!draft.has_prompt) return FieldError("messages", "messages is missing");
  if (draft.top_logprobs.has_value() && !draft.wants_logprobs) {
    return FieldError("top_logprobs", "top_logprobs is set, but logprobs is not true");
  }
  if (draft.wants_logprobs) params.logprobs = draft.top_logprobs.value_or(0);
  if (params.logprobs.has_value() && (*params.logprobs < 0 || *params.logprobs > kMaxTopLogprobs)) {
    return FieldError("top_logprobs",
                      absl::StrFormat("top_logprobs is %d; it must be between 0 and %d",
                                      *params.logprobs, kMaxTopLogprobs));
  }
  if (draft.max_completion_tokens.has_value()) {
    if (params.max_tokens.has_value() && *params.max_tokens != *draft.max_completion_tokens) {
      return FieldError("max_completion_tokens",
                        absl::StrFormat("max_completion_tokens is %d and max_tokens is %d; set one",
                                        *draft.max_completion_tokens, *params.max_tokens));
    }
    params.max_tokens = draft.max_completion_tokens;
  }
  if (draft.no_tools) draft.chat.tools = tokenizer::jinja::Value();
  params.prompts.emplace_back(std::move(draft.chat));
  return absl::OkStatus();
}

struct TokenizeDraft {
  TokenizeBody body;
  ChatPrompt chat;
  bool has_prompt = false;
  bool has_messages = false;
};

constexpr Field<TokenizeDraft> kTokenizeFields[] = {
    {"model", [](std::string_view name, const Json& value,
                 TokenizeDraft& draft) { return ReadString(name, value, draft.body.model); }},
    {"prompt",
     [](std::string_view name, const Json& value, TokenizeDraft& draft) {
       if (!value.is_string()) return TypeError(name, value, "a string");
       draft.has_prompt = true;
       std::string text;
       RETURN_IF_ERROR(ReadString(name, value, text));
       draft.body.prompt = std::move(text);
       return absl::OkStatus();
     }},
    {"messages",
     [](std::string_view name, const Json& value, TokenizeDraft& draft) {
       draft.has_messages = true;
       return ReadMessages(name, value, draft.chat.messages);
     }},
    {"tools", [](std::string_view name, const Json& value,
                 TokenizeDraft& draft) { return ReadTools(name, value, draft.chat.tools); }},
    {"chat_template_kwargs",
     [](std::string_view name, const Json& value, TokenizeDraft& draft) {
       if (value.is_null()) return absl::OkStatus();
       if (!value.is_object()) return TypeError(name, value, "an object");
       draft.chat.kwargs = ToTemplateValue(value);
       return absl::OkStatus();
     }},
    {"add_generation_prompt",
     [](std::string_view name, const Json& value, TokenizeDraft& draft) {
       return ReadBool(name, value, draft.chat.add_generation_prompt);
     }},
    {"add_special_tokens",
     [](std::string_view name, const Json& value, TokenizeDraft& draft) {
       bool add = false;
       RETURN_IF_ERROR(ReadBool(name, value, add));
       if (!value.is_null()) draft.body.add_special_tokens = add;
       return absl::OkStatus();
     }},
    {"return_token_strs",
     [](std::string_view name, const Json& value, TokenizeDraft& draft) {
       return ReadBool(name, value, draft.body.return_token_strs);
     }},
};

constexpr Field<DetokenizeBody> kDetokenizeFields[] = {
    {"model", [](std::string_view name, const Json& value,
                 DetokenizeBody& body) { return ReadString(name, value, body.model); }},
    {"tokens", [](std::string_view name, const Json& value,
                  DetokenizeBody& body) { return ReadTokenList(name, value, body.tokens); }},
};

}  // namespace

absl::StatusOr<CompletionBody> ParseChatBody(std::string_view json) {
  Draft draft;
  draft.body.chat = true;
  RETURN_IF_ERROR(WithJsonObject(json, [&](const dom::object& object) {
    return ReadFields<Draft>(object, draft, {kCommonFields, kChatFields});
  }));
  RETURN_IF_ERROR(FinishCommon(draft));
  RETURN_IF_ERROR(FinishChat(draft));
  return std::move(draft.body);
}

absl::StatusOr<CompletionBody> ParseCompletionBody(std::string_view json) {
  Draft draft;
  RETURN_IF_ERROR(WithJsonObject(json, [&](const dom::object& object) {
    return ReadFields<Draft>(object, draft, {kCommonFields, kCompletionFields});
  }));
  RETURN_IF_ERROR(FinishCommon(draft));
  if (!draft.has_prompt) return FieldError("prompt", "prompt is missing");
  return std::move(draft.body);
}

absl::StatusOr<TokenizeBody> ParseTokenizeBody(std::string_view json) {
  TokenizeDraft draft;
  RETURN_IF_ERROR(WithJsonObject(json, [&](const dom::object& object) {
    return ReadFields<TokenizeDraft>(object, draft, {kTokenizeFields});
  }));
  if (draft.has_prompt == draft.has_messages) {
    return FieldError("prompt", "exactly one of prompt and messages must be set");
  }
  if (draft.has_messages) draft.body.prompt = std::move(draft.chat);
  return std::move(draft.body);
}

absl::StatusOr<DetokenizeBody> ParseDetokenizeBody(std::string_view json) {
  DetokenizeBody body;
  bool has_tokens = false;
  RETURN_IF_ERROR(WithJsonObject(json, [&](const dom::object& object) {
    has_tokens = object["tokens"].error() == simdjson::SUCCESS;
    return ReadFields<DetokenizeBody>(object, body, {kDetokenizeFields});
  }));
  if (!has_tokens) return FieldError("tokens", "tokens is missing");
  return body;
}

}  // namespace reticle::server::http
