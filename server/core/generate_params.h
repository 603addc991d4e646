// What a client asked for, before anything is checked: the common form of both fronts. A front
// only copies; Validate() (valid_request.h) decides what is allowed and what an absent field means.
#ifndef RETICLE_SERVER_CORE_GENERATE_PARAMS_H_
#define RETICLE_SERVER_CORE_GENERATE_PARAMS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "tokenizer/jinja/value.h"

namespace reticle::server {

struct ToolCall {
  std::string id;
  std::string name;
  tokenizer::jinja::Value arguments;  // an object
};

struct ChatMessage {
  std::string role;  // system, developer, user, assistant or tool
  // Text parts are joined by the front; nullopt only beside tool_calls.
  std::optional<std::string> content;
  std::string name;
  std::string tool_call_id;  // of a tool's answer
  std::vector<ToolCall> tool_calls;
};

struct ChatPrompt {
  std::vector<ChatMessage> messages;
  tokenizer::jinja::Value tools;   // list of OpenAI tool definitions, or undefined
  tokenizer::jinja::Value kwargs;  // extra template variables: an object, or undefined
  bool add_generation_prompt = true;
};

// One prompt of a completion, or a conversation.
using PromptInput = std::variant<std::string, std::vector<TokenId>, ChatPrompt>;

struct GenerateParams {
  std::string model;                 // empty: the default model
  std::vector<PromptInput> prompts;  // several only for completions of text or tokens

  // Sampling. Absent: the default of ValidRequest's documentation.
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<int64_t> top_k;  // -1 and 0: no limit
  std::optional<double> min_p;
  std::optional<double> frequency_penalty;
  std::optional<double> presence_penalty;
  std::optional<double> repetition_penalty;
  std::optional<int64_t> seed;
  std::vector<std::pair<int64_t, double>> logit_bias;

  // Length and ends.
  std::optional<int64_t> max_tokens;
  std::optional<int64_t> min_tokens;
  std::vector<std::string> stop;
  std::vector<int64_t> stop_token_ids;
  bool ignore_eos = false;
  bool include_stop_str_in_output = false;
  std::optional<int64_t> truncate_prompt_tokens;  // keep the last this many; -1: what fits

  // What is reported.
  std::optional<int64_t> n;
  std::optional<int64_t> logprobs;         // alternatives per token; 0: the chosen token only
  std::optional<int64_t> prompt_logprobs;  // likewise for the prompt
  bool echo = false;
  bool echo_conversation = false;  // `echo` may be set for a conversation; scores no prompt
  bool skip_special_tokens = true;
  // Whether beginning-of-sequence is put before a text prompt. A chat prompt takes it from its
  // template unless this is set.
  std::optional<bool> add_special_tokens;
  bool stream = false;
  bool merge_events = false;  // tokens that are ready together may share one event

  std::optional<int64_t> priority;  // lower runs first
  std::string service_tier;         // as asked for; Gate::Fit puts the one that is given
  // Set by Gate::Fit, for servers with accounts.
  uint64_t tenant = 0;
  // As in scheduler::Request.
  uint32_t appointments = 1;
  int64_t context_bound = 0;          // tokens of prompt and output; 0: the model's
  int64_t output_bound = 0;           // tokens of one choice; 0: the model's
  std::optional<int64_t> timeout_ms;  // from arrival; a sequence still running then is ended
  // On the server's clock, before parsing and tokenising. Queue time, TTFT and the deadline count
  // from here.
  int64_t arrival_ns = 0;
  std::string request_id;  // for logs and replies
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_CORE_GENERATE_PARAMS_H_
