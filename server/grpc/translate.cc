#include "server/grpc/translate.h"

#include <string>
#include <utility>

#include "base/status.h"
#include "server/core/json_value.h"

namespace reticle::server {

absl::StatusOr<ChatPrompt> ToChatPrompt(const v1::ChatInput& chat) {
  ChatPrompt prompt;
  for (const v1::ChatMessage& message : chat.messages()) {
    ChatMessage& out = prompt.messages.emplace_back();
    out.role = message.role();
    out.content = message.content();
    out.name = message.name();
    out.tool_call_id = message.tool_call_id();
  }
  if (!chat.tools_json().empty()) {
    absl::StatusOr<tokenizer::jinja::Value> tools = ParseJsonValue(chat.tools_json());
    if (!tools.ok()) {
      return InvalidArgumentError("tools_json: %s", std::string(tools.status().message()));
    }
    prompt.tools = *std::move(tools);
  }
  prompt.add_generation_prompt = !chat.omit_generation_prompt();
  return prompt;
}

absl::StatusOr<GenerateParams> ToParams(const v1::GenerateRequest& request) {
  GenerateParams params;
  params.model = request.model();
  switch (request.input_case()) {
    case v1::GenerateRequest::kPrompt:
      params.prompts.emplace_back(request.prompt());
      break;
    case v1::GenerateRequest::kPromptTokens:
      params.prompts.emplace_back(std::vector<TokenId>(request.prompt_tokens().ids().begin(),
                                                       request.prompt_tokens().ids().end()));
      break;
    case v1::GenerateRequest::kChat: {
      ASSIGN_OR_RETURN(ChatPrompt chat, ToChatPrompt(request.chat()));
      params.prompts.emplace_back(std::move(chat));
      break;
    }
    case v1::GenerateRequest::INPUT_NOT_SET:
      return InvalidArgumentError(
          "input is not set; it must be one of prompt, prompt_tokens and chat");
  }
  const v1::SamplingParams& sampling = request.sampling();
  if (sampling.has_temperature()) params.temperature = sampling.temperature();
  if (sampling.has_top_p()) params.top_p = sampling.top_p();
  if (sampling.has_top_k()) params.top_k = sampling.top_k();
  if (sampling.has_min_p()) params.min_p = sampling.min_p();
  if (sampling.has_frequency_penalty()) params.frequency_penalty = sampling.frequency_penalty();
  if (sampling.has_presence_penalty()) params.presence_penalty = sampling.presence_penalty();
  if (sampling.has_repetition_penalty()) params.repetition_penalty = sampling.repetition_penalty();
  if (sampling.has_seed()) params.seed = static_cast<int64_t>(sampling.seed());
  for (const v1::LogitBias& bias : sampling.logit_bias()) {
    params.logit_bias.emplace_back(bias.token(), bias.bias());
  }
  const v1::StopParams& stop = request.stop();
  if (stop.has_max_tokens()) params.max_tokens = stop.max_tokens();
  if (stop.has_min_tokens()) params.min_tokens = stop.min_tokens();
  params.stop.assign(stop.stop().begin(), stop.stop().end());
  params.stop_token_ids.assign(stop.stop_token_ids().begin(), stop.stop_token_ids().end());
  params.ignore_eos = stop.ignore_eos();
  params.include_stop_str_in_output = stop.include_stop_str_in_output();
  const v1::OutputParams& output = request.output();
  if (output.has_logprobs()) params.logprobs = output.logprobs();
  if (output.has_prompt_logprobs()) params.prompt_logprobs = output.prompt_logprobs();
  params.echo = output.echo();
  params.skip_special_tokens = !output.keep_special_tokens();
  if (request.has_n()) params.n = request.n();
  if (request.has_truncate_prompt_tokens()) {
    params.truncate_prompt_tokens = request.truncate_prompt_tokens();
  }
  if (request.priority() != 0) params.priority = request.priority();
  if (request.omit_special_tokens()) params.add_special_tokens = false;
  params.request_id = request.request_id();
  params.service_tier = request.service_tier();
  return params;
}

void FillLogprobs(const TokenOut& token, const tokenizer::Tokenizer& tokenizer,
                  v1::PositionLogprobs& out) {
  if (token.logprobs == nullptr) return;
  const auto fill = [&tokenizer](TokenId id, float logprob, v1::TokenLogprob& to) {
    const std::string_view bytes = tokenizer.TokenBytes(id);
    to.set_token(id);
    to.set_text(bytes.data(), bytes.size());
    to.set_logprob(logprob);
  };
  fill(token.token, token.logprobs->logprob, *out.mutable_chosen());
  out.set_rank(token.logprobs->rank);
  for (const auto& [id, logprob] : token.logprobs->top) fill(id, logprob, *out.add_top());
}

void FillUsage(const Usage& usage, v1::Usage& out) {
  out.set_prompt_tokens(static_cast<uint32_t>(usage.prompt_tokens));
  out.set_cached_tokens(static_cast<uint32_t>(usage.cached_tokens));
  out.set_completion_tokens(static_cast<uint32_t>(usage.completion_tokens));
  out.set_queue_time_s(static_cast<double>(usage.queue_ns) * 1e-9);
  out.set_prompt_time_s(static_cast<double>(usage.prompt_ns) * 1e-9);
  out.set_completion_time_s(static_cast<double>(usage.completion_ns) * 1e-9);
  out.set_device_time_s(static_cast<double>(usage.device_busy_ns) * 1e-9);
  out.set_energy_j(static_cast<double>(usage.energy_nj) * 1e-9);
  out.set_recoveries(usage.recoveries);
  if (usage.usd_per_million_tokens.has_value()) {
    out.set_usd_per_million_tokens(*usage.usd_per_million_tokens);
  }
}

v1::FinishReason ToFinishReason(Outcome outcome) {
  switch (outcome) {
    case Outcome::kStop:
      return v1::FINISH_REASON_STOP;
    case Outcome::kLength:
      return v1::FINISH_REASON_LENGTH;
    case Outcome::kAbort:
    case Outcome::kDeadline:
    case Outcome::kError:
      break;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

absl::StatusOr<std::shared_ptr<const Caller>> CallerOf(ServerContext& server,
                                                       const grpc::CallbackServerContext& call) {
  Gate* const gate = server.options().gate;
  if (gate == nullptr) return nullptr;
  return gate->Authenticate(MetadataOf(call, "authorization"));
}

std::string_view MetadataOf(const grpc::CallbackServerContext& call, const char* name) {
  const auto& metadata = call.client_metadata();
  const auto found = metadata.find(name);
  if (found == metadata.end()) return {};
  return {found->second.data(), found->second.size()};
}

TraceContext BeginTraceOf(ServerContext& server, grpc::CallbackServerContext& call,
                          const std::string& request_id) {
  // Two of them say nothing.
  const bool one = call.client_metadata().count("traceparent") == 1;
  const TraceContext trace = server.Trace(one ? MetadataOf(call, "traceparent") : "");
  call.AddInitialMetadata("traceparent", trace.Traceparent());
  if (!request_id.empty()) call.AddInitialMetadata("x-request-id", request_id);
  return trace;
}

}  // namespace reticle::server
