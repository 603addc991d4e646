#include "loadtest/null_reply.h"

#include <algorithm>

#include "base/clock.h"
#include "loadtest/json_scanner.h"
#include "loadtest/text.h"

namespace reticle::loadtest {
namespace {

constexpr int64_t kBlock = 64;
constexpr std::string_view kWord = " token";
constexpr std::string_view kId = "6e756c6c6e756c6c6e756c6c6e756c6c";
constexpr std::string_view kTrace = "00-6e756c6c6e756c6c6e756c6c6e756c6c-6e756c6c6e756c6c-00";
constexpr std::string_view kDate = "Sun, 01 Jan 2023 00:00:00 GMT";

// True, false or anything else: whether `true` stands there.
bool ReadTrue(JsonScanner& json) {
  const bool value = json.Peek() == 't';
  json.Skip();
  return value;
}

void AppendResponseHead(std::string& out, std::string_view status, std::string_view type) {
  out.append("HTTP/1.1 ").append(status).append("\r\nDate: ").append(kDate);
  out.append("\r\nServer: reticle\r\nx-request-id: ").append(kId);
  out.append("\r\ntraceparent: ").append(kTrace);
  out.append("\r\nContent-Type: ").append(type).append("\r\n");
}

void AppendChunkSize(std::string& out, size_t size) {
  char digits[10] = {'0', '0', '0', '0', '0', '0', '0', '0', '\r', '\n'};
  for (int i = 7; i >= 0; --i, size >>= 4) digits[i] = "0123456789abcdef"[size & 15];
  out.append(digits, sizeof(digits));
}

}  // namespace

bool ParseNullRequest(std::string_view body, NullRequest& request) {
  request.body_bytes = static_cast<int64_t>(body.size());
  JsonScanner json(body);
  std::string_view key;
  for (json.EnterObject(); json.NextKey(key);) {
    if (key == "max_tokens" || key == "max_completion_tokens") {
      json.Integer(request.max_tokens);
    } else if (key == "stream") {
      request.stream = ReadTrue(json);
    } else if (key == "stream_options" && json.Peek() == '{') {
      std::string_view option;
      for (json.EnterObject(); json.NextKey(option);) {
        if (option == "include_usage") {
          request.include_usage = ReadTrue(json);
        } else {
          json.Skip();
        }
      }
    } else {
      json.Skip();
    }
  }
  request.max_tokens = std::clamp<int64_t>(request.max_tokens, 1, 1'000'000'000);
  return json.AtEnd();
}

NullReplies::NullReplies(const std::string& model, int64_t tokens_per_event, bool chat,
                         bool include_usage)
    : chat_(chat), include_usage_(include_usage), tokens_per_event_(tokens_per_event) {
  AppendResponseHead(stream_head_, "200 OK", "text/event-stream; charset=utf-8");
  stream_head_.append(
      "Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\n\r\n");

  const auto head = [&](std::string& out, std::string_view object) {
    out.append(R"({"id":")").append(chat ? "chatcmpl-" : "cmpl-").append(kId);
    out.append(R"(","object":")").append(object).append(R"(","created":)");
    AppendInteger(out, UnixSeconds());
    out.append(R"(,"model":)");
    AppendJsonString(out, model);
    out.append(R"(,"system_fingerprint":"fp_000000000000","service_tier":"default","choices":[)");
  };
  event_head_ = "data: ";
  head(event_head_, chat ? "chat.completion.chunk" : "text_completion");
  head(whole_head_, chat ? "chat.completion" : "text_completion");

  const std::string_view usage = include_usage ? R"(,"usage":null)" : "";
  std::string text;
  for (int64_t t = 0; t < tokens_per_event; ++t) text.append(kWord);
  event_ = event_head_ + (chat ? R"({"index":0,"delta":{"content":")" : R"({"index":0,"text":")");
  event_.append(text).append(chat ? "\"}" : "\"");
  event_.append(R"(,"logprobs":null,"finish_reason":null}])").append(usage).append("}\n\n");
  for (int64_t i = 0; i < kBlock; ++i) events_ += event_;
  if (chat) {
    role_ = event_head_;
    role_.append(R"({"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,)");
    role_.append(R"("finish_reason":null}])").append(usage).append("}\n\n");
  }
}

void NullReplies::AppendStreamHead(std::string& out) const { out.append(stream_head_); }

void NullReplies::AppendEvents(std::string& out, int64_t events, bool first) const {
  const size_t extra = first ? role_.size() : 0;
  AppendChunkSize(out, event_.size() * static_cast<size_t>(events) + extra);
  if (first) out.append(role_);
  for (; events > 0; events -= kBlock) {
    out.append(events_, 0, event_.size() * static_cast<size_t>(std::min(events, kBlock)));
  }
  out.append("\r\n");
}

void NullReplies::AppendUsage(std::string& out, const NullRequest& request) const {
  const int64_t prompt = std::max<int64_t>(request.body_bytes / 4, 1);
  out.append(R"(,"usage":{"prompt_tokens":)");
  AppendInteger(out, prompt);
  out.append(R"(,"completion_tokens":)");
  AppendInteger(out, request.max_tokens);
  out.append(R"(,"total_tokens":)");
  AppendInteger(out, prompt + request.max_tokens);
  out.append(R"(,"prompt_tokens_details":{"cached_tokens":0},)");
  out.append(R"("completion_tokens_details":{"reasoning_tokens":0},)");
  out.append(R"("reticle":{"queue_ms":0.000,"prompt_ms":0.000,"completion_ms":0.000,)");
  out.append(R"("device_ms":0.000,"energy_mj":0.000,"recoveries":0}})");
}

void NullReplies::AppendStreamEnd(std::string& out, const NullRequest& request) const {
  std::string end = event_head_;
  end.append(chat_ ? R"({"index":0,"delta":{})" : R"({"index":0,"text":"")");
  end.append(R"(,"logprobs":null,"finish_reason":"length"}])");
  end.append(include_usage_ ? R"(,"usage":null)" : "").append("}\n\n");
  if (include_usage_) {
    end.append(event_head_).push_back(']');
    AppendUsage(end, request);
    end.append("}\n\n");
  }
  end.append("data: [DONE]\n\n");
  AppendChunkSize(out, end.size());
  out.append(end).append("\r\n0\r\n\r\n");
}

void NullReplies::AppendWhole(std::string& out, const NullRequest& request) const {
  std::string body = whole_head_;
  body.append(chat_ ? R"({"index":0,"message":{"role":"assistant","content":")"
                    : R"({"index":0,"text":")");
  for (int64_t t = 0; t < request.max_tokens; ++t) body.append(kWord);
  body.append(chat_ ? R"(","refusal":null})" : "\"");
  body.append(R"(,"logprobs":null,"finish_reason":"length"}])");
  AppendUsage(body, request);
  body.push_back('}');
  AppendPlainResponse(out, "200 OK", body);
}

void AppendPlainResponse(std::string& out, std::string_view status, std::string_view body) {
  AppendResponseHead(out, status, "application/json");
  out.append("Content-Length: ");
  AppendInteger(out, static_cast<int64_t>(body.size()));
  out.append("\r\n\r\n").append(body);
}

}  // namespace reticle::loadtest
