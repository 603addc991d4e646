#include "server/telemetry/request_log.h"

#include <openssl/sha.h>

#include <array>

#include "base/log.h"

namespace reticle::server {
namespace {

constexpr int kClientGone = 499;
constexpr size_t kHashBytes = 8;
constexpr size_t kMostErrorBytes = 300;
constexpr size_t kMostPromptBytes = 4000;

double Ms(int64_t ns) { return static_cast<double>(ns) * 1e-6; }

LogLevel LevelOf(const RequestSummary& summary) {
  if (summary.failed || (summary.admitted && summary.outcome == Outcome::kError)) {
    return LogLevel::kWarning;
  }
  const bool order = summary.front == "admin" && summary.method != "GET";
  return summary.generation || order ? LogLevel::kInfo : LogLevel::kDebug;
}

// Fields of one line, on the stack.
class Fields {
 public:
  template <typename Value>
  void Add(std::string_view key, Value value) {
    if (count_ < fields_.size()) fields_[count_++] = {key, value};
  }
  void Count(std::string_view key, uint64_t value) { Add(key, static_cast<int64_t>(value)); }
  std::span<const LogField> span() const { return {fields_.data(), count_}; }

 private:
  std::array<LogField, 28> fields_;
  size_t count_ = 0;
};

}  // namespace

std::string_view FinishName(const RequestSummary& summary) {
  if (summary.admitted) return OutcomeName(summary.outcome);
  return summary.front != "grpc" && summary.status == kClientGone ? "abandoned" : "refused";
}

std::string TenantHash(std::string_view organisation) {
  std::array<uint8_t, SHA256_DIGEST_LENGTH> digest;
  SHA256(reinterpret_cast<const unsigned char*>(organisation.data()), organisation.size(),
         digest.data());
  std::string hash;
  AppendHex(digest.data(), kHashBytes, hash);
  return hash;
}

void LogRequest(const RequestSummary& summary) {
  const LogLevel level = LevelOf(summary);
  if (!LogEnabled(level)) return;
  Fields fields;
  const std::string trace_id = summary.trace.TraceIdHex();
  std::string tenant;
  fields.Add("id", summary.request_id);
  fields.Add("front", summary.front);
  if (summary.front != "grpc") fields.Add("method", summary.method);
  fields.Add("route", summary.route);
  fields.Add("status", int64_t{summary.status});
  if (summary.caller != nullptr) {
    tenant = TenantHash(summary.caller->organisation);
    fields.Add("tenant", std::string_view(tenant));
    fields.Add("tier", std::string_view(summary.caller->tier));
  }
  if (summary.generation) fields.Add("finish", FinishName(summary));
  if (summary.admitted) {
    const Usage& usage = summary.usage;
    fields.Add("model", std::string_view(summary.model->id));
    fields.Add("device", std::string_view(summary.model->device));
    fields.Add("stream", summary.stream);
    fields.Count("choices", summary.choices);
    fields.Count("prompt_tokens", usage.prompt_tokens);
    fields.Count("cached_tokens", usage.cached_tokens);
    fields.Count("output_tokens", usage.completion_tokens);
    fields.Add("queue_ms", Ms(usage.queue_ns));
    if (summary.first_token_ns != 0) {
      fields.Add("ttft_ms", Ms(summary.first_token_ns - summary.arrival_ns));
    }
    fields.Add("prefill_ms", Ms(usage.prompt_ns));
    fields.Add("decode_ms", Ms(usage.completion_ns));
    fields.Add("device_ms", Ms(static_cast<int64_t>(usage.device_busy_ns)));
    if (usage.recoveries > 0) fields.Count("recoveries", usage.recoveries);
  }
  fields.Add("total_ms", Ms(summary.end_ns - summary.arrival_ns));
  fields.Add("trace_id", std::string_view(trace_id));
  const std::string error(summary.error.message().substr(0, kMostErrorBytes));
  if (!summary.error.ok()) fields.Add("error", std::string_view(error));
  if (!summary.prompt.empty()) {
    fields.Add("prompt", std::string_view(summary.prompt).substr(0, kMostPromptBytes));
  }
  LogEvent(level, "request", fields.span());
}

}  // namespace reticle::server
