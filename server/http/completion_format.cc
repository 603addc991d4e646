#include "server/http/completion_format.h"

#include <string_view>
#include <utility>

#include "server/http/json_writer.h"
#include "tokenizer/tokenizer.h"

namespace reticle::server::http {
namespace {

bool IsWholeUtf8(std::string_view bytes) {
  std::string escaped;
  AppendJsonEscaped(escaped, bytes);
  return escaped.find("\xef\xbf\xbd") == std::string::npos ||
         bytes.find("\xef\xbf\xbd") != std::string_view::npos;
}

// A token's text as a key of OpenAI's completions API, which writes bytes that are no text of their
// own as "bytes:\xe2\x80".
std::string TokenKey(std::string_view bytes) {
  if (IsWholeUtf8(bytes)) return std::string(bytes);
  std::string key = "bytes:";
  for (const char c : bytes) {
    constexpr char kHex[] = "0123456789abcdef";
    key.append("\\x");
    key.push_back(kHex[static_cast<unsigned char>(c) >> 4]);
    key.push_back(kHex[static_cast<unsigned char>(c) & 15]);
  }
  return key;
}

void AppendByteList(std::string& out, std::string_view bytes) {
  out.push_back('[');
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i > 0) out.push_back(',');
    AppendInt(out, static_cast<unsigned char>(bytes[i]));
  }
  out.push_back(']');
}

void Separate(std::string& list) {
  if (!list.empty()) list.push_back(',');
}

}  // namespace

void AppendUsageJson(std::string& out, const Usage& usage) {
  out.append(R"({"prompt_tokens":)");
  AppendInt(out, static_cast<int64_t>(usage.prompt_tokens));
  out.append(R"(,"completion_tokens":)");
  AppendInt(out, static_cast<int64_t>(usage.completion_tokens));
  out.append(R"(,"total_tokens":)");
  AppendInt(out, static_cast<int64_t>(usage.prompt_tokens + usage.completion_tokens));
  out.append(R"(,"prompt_tokens_details":{"cached_tokens":)");
  AppendInt(out, static_cast<int64_t>(usage.cached_tokens));
  out.append(R"(},"completion_tokens_details":{"reasoning_tokens":0},"reticle":{"queue_ms":)");
  AppendMillis(out, usage.queue_ns);
  out.append(R"(,"prompt_ms":)");
  AppendMillis(out, usage.prompt_ns);
  out.append(R"(,"completion_ms":)");
  AppendMillis(out, usage.completion_ns);
  out.append(R"(,"device_ms":)");
  AppendMillis(out, static_cast<int64_t>(usage.device_busy_ns));
  out.append(R"(,"energy_mj":)");
  AppendMillis(out, static_cast<int64_t>(usage.energy_nj));
  out.append(R"(,"recoveries":)");
  AppendInt(out, usage.recoveries);
  if (usage.usd_per_million_tokens.has_value()) {
    out.append(R"(,"usd_per_million_tokens":)");
    AppendFloat(out, static_cast<float>(*usage.usd_per_million_tokens));
  }
  out.append("}}");
}

CompletionFormat::CompletionFormat(Options options, const ValidRequest& request)
    : options_(std::move(options)),
      request_(request),
      tokenizer_(*request.model().tokenizer),
      collected_(request.stream() ? 0 : request.choices()),
      prompt_logprobs_(request.prompts().size()),
      role_sent_(request.choices(), false) {
  head_.append(request.stream() ? R"(data: {"id":)" : R"({"id":)");
  AppendJsonString(head_, options_.id);
  head_.append(R"(,"object":)");
  if (options_.chat) {
    head_.append(request.stream() ? R"("chat.completion.chunk")" : R"("chat.completion")");
  } else {
    head_.append(R"("text_completion")");
  }
  head_.append(R"(,"created":)");
  AppendInt(head_, options_.created_unix_s);
  head_.append(R"(,"model":)");
  AppendJsonString(head_, request.model().id);
  head_.append(R"(,"system_fingerprint":)");
  AppendJsonString(head_, request.model().fingerprint);
  head_.append(R"(,"service_tier":")").append(request.service_tier());
  head_.append(R"(","choices":[)");
}

void CompletionFormat::AppendUsage(std::string& out, const Usage& usage) const {
  out.append(R"(,"usage":)");
  AppendUsageJson(out, usage);
}

void CompletionFormat::AppendEventTail(std::string& out, const Usage& usage) const {
  out.push_back(']');
  if (options_.continuous_usage) {
    AppendUsage(out, usage);
  } else if (options_.include_usage) {
    out.append(R"(,"usage":null)");
  }
  out.append("}\n\n");
}

void CompletionFormat::AppendRole(std::string& out, uint32_t choice, const Usage& usage) {
  role_sent_[choice] = true;
  out.append(head_).append(R"({"index":)");
  AppendInt(out, choice);
  out.append(R"(,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null})");
  AppendEventTail(out, usage);
}

void CompletionFormat::AppendChunk(std::string& out, const Chunk& chunk, const Usage& usage) {
  if (options_.chat && !role_sent_[chunk.choice]) AppendRole(out, chunk.choice, usage);
  out.append(head_).append(R"({"index":)");
  AppendInt(out, chunk.choice);
  if (!options_.chat) {
    out.append(R"(,"text":")");
    AppendJsonEscaped(out, chunk.text);
    out.push_back('"');
  } else if (chunk.finish.has_value()) {
    out.append(R"(,"delta":{})");
  } else {
    out.append(R"(,"delta":{"content":")");
    AppendJsonEscaped(out, chunk.text);
    out.append("\"}");
  }
  out.append(R"(,"logprobs":)");
  if (request_.logprobs().has_value() && !chunk.tokens.empty()) {
    Collected logprobs;
    for (const TokenOut& token : chunk.tokens) AppendLogprobs(logprobs, token);
    AppendLogprobsObject(out, logprobs);
  } else {
    out.append("null");
  }
  AppendFinish(out, chunk);
  out.push_back('}');
  AppendEventTail(out, usage);
}

void CompletionFormat::AppendStreamEnd(std::string& out, const Usage& usage) {
  if (options_.include_usage) {
    out.append(head_).push_back(']');
    AppendUsage(out, usage);
    out.append("}\n\n");
  }
  out.append("data: [DONE]\n\n");
}

void CompletionFormat::AppendFinish(std::string& out, const Chunk& chunk) const {
  if (!chunk.finish.has_value()) {
    out.append(R"(,"finish_reason":null)");
    return;
  }
  out.append(R"(,"finish_reason":")").append(OutcomeName(*chunk.finish)).push_back('"');
  if (!chunk.stop_string.empty()) {
    out.append(R"(,"stop_reason":)");
    AppendJsonString(out, chunk.stop_string);
  } else if (chunk.stop_token.has_value()) {
    out.append(R"(,"stop_reason":)");
    AppendInt(out, *chunk.stop_token);
  }
}

void CompletionFormat::AppendToken(std::string& out, TokenId token) const {
  AppendJsonString(out, TokenKey(tokenizer_.TokenText(token)));
}

void CompletionFormat::AppendLogprobs(Collected& into, const TokenOut& token) const {
  Separate(into.tokens);
  if (options_.chat) {
    const auto append_entry = [&](TokenId id, float logprob) {
      const std::string_view text = tokenizer_.TokenText(id);
      into.tokens.append(R"({"token":)");
      AppendJsonString(into.tokens, text);
      into.tokens.append(R"(,"logprob":)");
      AppendFloat(into.tokens, logprob);
      into.tokens.append(R"(,"bytes":)");
      AppendByteList(into.tokens, text);
    };
    append_entry(token.token, token.logprobs != nullptr ? token.logprobs->logprob : 0.0f);
    into.tokens.append(R"(,"top_logprobs":[)");
    if (token.logprobs != nullptr) {
      bool first = true;
      for (const auto& [id, logprob] : token.logprobs->top) {
        if (!first) into.tokens.push_back(',');
        first = false;
        append_entry(id, logprob);
        into.tokens.push_back('}');
      }
    }
    into.tokens.append("]}");
    return;
  }
  AppendToken(into.tokens, token.token);
  Separate(into.text_offsets);
  AppendInt(into.text_offsets, static_cast<int64_t>(token.text_offset));
  Separate(into.token_logprobs);
  Separate(into.top_logprobs);
  if (token.logprobs == nullptr) {
    into.token_logprobs.append("null");
    into.top_logprobs.append("null");
    return;
  }
  AppendFloat(into.token_logprobs, token.logprobs->logprob);
  into.top_logprobs.push_back('{');
  std::vector<std::string> keys;
  const auto append_top = [&](TokenId id, float logprob) {
    std::string key = TokenKey(tokenizer_.TokenText(id));
    for (const std::string& present : keys) {
      if (present == key) return;
    }
    if (!keys.empty()) into.top_logprobs.push_back(',');
    AppendJsonString(into.top_logprobs, key);
    into.top_logprobs.push_back(':');
    AppendFloat(into.top_logprobs, logprob);
    keys.push_back(std::move(key));
  };
  for (const auto& [id, logprob] : token.logprobs->top) append_top(id, logprob);
  append_top(token.token, token.logprobs->logprob);
  into.top_logprobs.push_back('}');
}

void CompletionFormat::AppendLogprobsObject(std::string& out, const Collected& from) const {
  if (options_.chat) {
    out.append(R"({"content":[)").append(from.tokens).append(R"(],"refusal":null})");
    return;
  }
  out.append(R"({"tokens":[)").append(from.tokens);
  out.append(R"(],"token_logprobs":[)").append(from.token_logprobs);
  out.append(R"(],"top_logprobs":[)").append(from.top_logprobs);
  out.append(R"(],"text_offset":[)").append(from.text_offsets).append("]}");
}

void CompletionFormat::Collect(const Chunk& chunk) {
  Collected& into = collected_[chunk.choice];
  into.text.append(chunk.text);
  if (request_.logprobs().has_value()) {
    for (const TokenOut& token : chunk.tokens) AppendLogprobs(into, token);
  }
  if (chunk.finish.has_value()) AppendFinish(into.finish, chunk);
}

void CompletionFormat::CollectPromptLogprobs(uint32_t prompt, std::span<const TokenOut> tokens) {
  std::string& out = prompt_logprobs_[prompt];
  for (const TokenOut& token : tokens) {
    Separate(out);
    if (token.logprobs == nullptr) {
      out.append("null");
      continue;
    }
    out.push_back('{');
    bool first = true;
    bool has_own = false;
    const auto append_entry = [&](TokenId id, float logprob, uint32_t rank) {
      if (!first) out.push_back(',');
      first = false;
      out.push_back('"');
      AppendInt(out, id);
      out.append(R"(":{"logprob":)");
      AppendFloat(out, logprob);
      out.append(R"(,"rank":)");
      AppendInt(out, rank);
      out.append(R"(,"decoded_token":)");
      AppendJsonString(out, tokenizer_.TokenText(id));
      out.push_back('}');
    };
    uint32_t rank = 0;
    for (const auto& [id, logprob] : token.logprobs->top) {
      append_entry(id, logprob, ++rank);
      has_own = has_own || id == token.token;
    }
    if (!has_own) append_entry(token.token, token.logprobs->logprob, token.logprobs->rank);
    out.push_back('}');
  }
}

void CompletionFormat::AppendPromptLogprobs(std::string& out, uint32_t prompt) const {
  out.append(R"(,"prompt_logprobs":[)").append(prompt_logprobs_[prompt]).push_back(']');
}

void CompletionFormat::AppendBody(std::string& out, const Usage& usage) const {
  // An echo with log-probabilities scores the prompt too, but shows it in "logprobs".
  const bool show_prompt_logprobs = request_.prompt_logprobs().has_value() && !request_.echo();
  out.append(head_);
  for (uint32_t c = 0; c < collected_.size(); ++c) {
    const Collected& choice = collected_[c];
    if (c > 0) out.push_back(',');
    out.append(R"({"index":)");
    AppendInt(out, c);
    if (options_.chat) {
      out.append(R"(,"message":{"role":"assistant","content":)");
      AppendJsonString(out, choice.text);
      out.append(R"(,"refusal":null})");
    } else {
      out.append(R"(,"text":)");
      AppendJsonString(out, choice.text);
    }
    out.append(R"(,"logprobs":)");
    if (request_.logprobs().has_value()) {
      AppendLogprobsObject(out, choice);
    } else {
      out.append("null");
    }
    out.append(choice.finish);
    if (show_prompt_logprobs && !options_.chat) AppendPromptLogprobs(out, c / request_.n());
    out.push_back('}');
  }
  out.push_back(']');
  if (show_prompt_logprobs && options_.chat) AppendPromptLogprobs(out, 0);
  AppendUsage(out, usage);
  out.push_back('}');
}

}  // namespace reticle::server::http
