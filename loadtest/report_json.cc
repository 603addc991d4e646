#include "absl/strings/str_format.h"
#include "loadtest/report.h"
#include "loadtest/text.h"

namespace reticle::loadtest {
namespace {

constexpr double kNsPerMs = 1e6;

// Writes members of nested objects; commas are its business.
class Json {
 public:
  void Open(std::string_view key, char bracket) {
    Key(key);
    out_.push_back(bracket);
  }
  void Close(char bracket) { out_.push_back(bracket); }
  void Number(std::string_view key, double value) {
    Key(key);
    AppendDouble(out_, value);
  }
  void Integer(std::string_view key, int64_t value) {
    Key(key);
    AppendInteger(out_, value);
  }
  void Text(std::string_view key, std::string_view value) {
    Key(key);
    AppendJsonString(out_, value);
  }
  void Bool(std::string_view key, bool value) {
    Key(key);
    out_.append(value ? "true" : "false");
  }
  std::string Take() { return std::move(out_); }

 private:
  // An empty key: an element of an array.
  void Key(std::string_view key) {
    if (!out_.empty() && out_.back() != '{' && out_.back() != '[') out_.push_back(',');
    if (key.empty()) return;
    AppendJsonString(out_, key);
    out_.push_back(':');
  }
  std::string out_;
};

void AppendSummary(Json& json, std::string_view name, const Summary& summary, double scale) {
  json.Open(name, '{');
  json.Integer("count", static_cast<int64_t>(summary.count));
  if (summary.count > 0) {
    json.Number("mean", summary.mean * scale);
    json.Number("min", summary.min * scale);
    for (const auto& [percent, value] : summary.percentiles) {
      json.Number(absl::StrFormat("p%g", percent), value * scale);
    }
    json.Number("max", summary.max * scale);
    json.Open("curve", '[');
    for (const auto& [share, value] : summary.curve) {
      json.Open("", '[');
      json.Number("", share);
      json.Number("", value * scale);
      json.Close(']');
    }
    json.Close(']');
  }
  json.Close('}');
}

void AppendCounts(Json& json, std::string_view name, const std::map<std::string, int64_t>& counts) {
  json.Open(name, '{');
  for (const auto& [key, count] : counts) json.Integer(key, count);
  json.Close('}');
}

void AppendIntervals(Json& json, const Report& r) {
  json.Number("interval_s", r.interval_s);
  json.Open("intervals", '[');
  for (const IntervalReport& interval : r.intervals) {
    json.Open("", '{');
    json.Number("begin_s", interval.begin_s);
    json.Integer("sent", interval.sent);
    json.Integer("succeeded", interval.succeeded);
    json.Integer("failed", interval.failed);
    json.Number("tokens_per_s", interval.tokens_per_s);
    json.Number("ttft_p50_ms", interval.ttft_p50_ns / kNsPerMs);
    json.Number("ttft_p99_ms", interval.ttft_p99_ns / kNsPerMs);
    json.Number("itl_p50_ms", interval.gap_p50_ns / kNsPerMs);
    json.Number("itl_p99_ms", interval.gap_p99_ns / kNsPerMs);
    json.Close('}');
  }
  json.Close(']');
}

void AppendClient(Json& json, const Report& r) {
  json.Open("client", '{');
  json.Text("verdict", r.client.bottleneck ? "bottleneck" : "ok");
  json.Open("reasons", '[');
  for (const std::string& reason : r.client.reasons) json.Text("", reason);
  json.Close(']');
  json.Number("cpu_s", r.client_cpu_s);
  json.Open("threads", '[');
  for (const ClientThread& thread : r.threads) {
    json.Open("", '{');
    json.Number("cpu_share", thread.cpu_share);
    json.Number("busy_share", thread.busy_share);
    json.Number("wait_share", thread.wait_share);
    json.Number("wake_delay_ms", thread.wake_delay_ns / kNsPerMs);
    json.Close('}');
  }
  json.Close(']');
  json.Close('}');
}

}  // namespace

std::string FormatJson(const Report& r) {
  Json json;
  json.Open("", '{');
  json.Integer("format", 1);
  json.Text("name", r.name);
  json.Text("description", r.description);
  json.Text("url", r.url);
  json.Text("model", r.model);
  json.Text("version", r.version);
  json.Integer("started_unix_s", r.started_unix_s);
  json.Bool("interrupted", r.interrupted);
  json.Number("window_begin_s", r.window_begin_s);
  json.Number("window_s", r.window_s);
  json.Number("wall_s", r.wall_s);

  json.Open("requests", '{');
  json.Integer("total", r.requests);
  json.Integer("succeeded", r.successes);
  json.Integer("good", r.good);
  json.Integer("rejected", r.rejections);
  json.Integer("disconnected", r.disconnects);
  json.Integer("empty", r.empty_replies);
  json.Integer("short", r.short_replies);
  json.Integer("without_usage", r.without_usage);
  json.Integer("retried", r.retries);
  json.Close('}');
  AppendCounts(json, "errors", r.errors);
  json.Open("error_examples", '{');
  for (const auto& [name, text] : r.error_examples) json.Text(name, text);
  json.Close('}');
  AppendCounts(json, "finish_reasons", r.finish_reasons);

  json.Open("tokens", '{');
  json.Integer("prompt", r.prompt_tokens);
  json.Integer("cached", r.cached_tokens);
  json.Integer("completion", r.completion_tokens);
  json.Integer("completion_events", r.completion_events);
  json.Number("chunks_per_token", r.chunks_per_token);
  json.Close('}');
  json.Open("rates", '{');
  json.Number("requests_per_second", r.requests_per_s);
  json.Number("goodput_per_second", r.goodput_per_s);
  json.Number("output_tokens_per_second", r.output_tokens_per_s);
  json.Number("events_per_second", r.events_per_s);
  json.Close('}');
  json.Open("shares", '{');
  for (const char* name : {"goodput", "errors", "rejected"}) {
    if (const auto value = r.Value(name); value.has_value()) json.Number(name, *value);
  }
  json.Close('}');

  for (const auto& [name, summary] : r.summaries) {
    if (name == "stream_rate") {
      AppendSummary(json, "stream_tokens_per_second", summary, 1);
    } else {
      AppendSummary(json, name + "_ms", summary, 1 / kNsPerMs);
    }
  }
  if (const auto fairness = r.Value("fairness"); fairness.has_value()) {
    json.Number("fairness", *fairness);
  }

  json.Open("connections", '{');
  json.Integer("opened", r.connections);
  json.Integer("reopened", r.reconnects);
  json.Close('}');
  AppendClient(json, r);
  if (r.server_cpu_s.has_value()) json.Number("server_cpu_s", *r.server_cpu_s);

  json.Open("slos", '[');
  for (const SloVerdict& verdict : r.slos) {
    json.Open("", '{');
    json.Text("bound", verdict.slo.text);
    json.Bool("met", verdict.met);
    if (verdict.known) {
      json.Text("measured", FormatMetric(verdict.slo.metric, verdict.value));
    }
    json.Close('}');
  }
  json.Close(']');
  json.Open("notes", '[');
  for (const std::string& note : r.notes) json.Text("", note);
  json.Close(']');
  json.Open("settings", '{');
  for (const auto& [flag, value] : r.settings) json.Text(flag, value);
  json.Close('}');
  AppendIntervals(json, r);
  json.Close('}');
  return json.Take() + "\n";
}

}  // namespace reticle::loadtest
