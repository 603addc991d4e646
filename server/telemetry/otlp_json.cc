#include "server/telemetry/otlp_json.h"

#include <algorithm>
#include <string_view>

#include "server/http/json_writer.h"
#include "server/telemetry/request_log.h"

namespace reticle::server {
namespace {

using http::AppendInt;
using http::AppendJsonString;

// opentelemetry.proto.trace.v1: Span.SpanKind and Status.StatusCode.
constexpr int kInternal = 1;
constexpr int kServer = 2;
constexpr int kStatusError = 2;

class Attributes {
 public:
  explicit Attributes(std::string& out) : out_(out) { out_.append(R"("attributes":[)"); }
  ~Attributes() { out_.push_back(']'); }
  Attributes(const Attributes&) = delete;
  Attributes& operator=(const Attributes&) = delete;

  void Text(std::string_view key, std::string_view value) {
    if (value.empty()) return;
    Begin(key);
    out_.append(R"({"stringValue":)");
    AppendJsonString(out_, value);
    out_.append("}}");
  }
  void Int(std::string_view key, int64_t value) {
    Begin(key);
    out_.append(R"({"intValue":")");
    AppendInt(out_, value);
    out_.append(R"("}})");
  }
  void List(std::string_view key, std::string_view only) {
    Begin(key);
    out_.append(R"({"arrayValue":{"values":[{"stringValue":)");
    AppendJsonString(out_, only);
    out_.append("}]}}}");
  }

 private:
  void Begin(std::string_view key) {
    if (!first_) out_.push_back(',');
    first_ = false;
    out_.append(R"({"key":)");
    AppendJsonString(out_, key);
    out_.append(R"(,"value":)");
  }
  std::string& out_;
  bool first_ = true;
};

struct SpanHead {
  const TraceContext& trace;
  const std::array<uint8_t, 8>& id;
  const std::array<uint8_t, 8>* parent;  // null: none
  std::string_view name;
  int kind;
  int64_t begin_unix_ns, end_unix_ns;
};

template <size_t kBytes>
void AppendId(std::string& out, const char* key, const std::array<uint8_t, kBytes>& id) {
  out.append("\"").append(key).append("\":\"");
  AppendHex(id.data(), id.size(), out);
  out.append("\",");
}

// Up to the attributes.
void AppendHead(std::string& out, const SpanHead& span) {
  out.push_back('{');
  AppendId(out, "traceId", span.trace.trace_id);
  AppendId(out, "spanId", span.id);
  if (span.parent != nullptr) AppendId(out, "parentSpanId", *span.parent);
  out.append(R"("name":)");
  AppendJsonString(out, span.name);
  out.append(R"(,"kind":)");
  AppendInt(out, span.kind);
  out.append(R"(,"startTimeUnixNano":")");
  AppendInt(out, span.begin_unix_ns);
  out.append(R"(","endTimeUnixNano":")");
  AppendInt(out, std::max(span.begin_unix_ns, span.end_unix_ns));
  out.append(R"(",)");
}

void AppendRequest(std::string& out, const TracedRequest& request, int64_t offset_ns) {
  const bool grpc = request.front == "grpc";
  AppendHead(out, {.trace = request.trace,
                   .id = request.trace.span_id,
                   .parent = request.trace.has_parent() ? &request.trace.parent_id : nullptr,
                   .name = grpc ? request.route : request.method + " " + request.route,
                   .kind = kServer,
                   .begin_unix_ns = request.begin_ns + offset_ns,
                   .end_unix_ns = request.end_ns + offset_ns});
  {
    Attributes attributes(out);
    if (grpc) {
      attributes.Text("rpc.system", "grpc");
      attributes.Text("rpc.method", request.route);
      attributes.Int("rpc.grpc.status_code", request.status);
    } else {
      attributes.Text("http.request.method", request.method);
      attributes.Text("http.route", request.route);
      attributes.Int("http.response.status_code", request.status);
    }
    attributes.Text("reticle.request_id", request.request_id);
    attributes.Text("gen_ai.request.model", request.model);
    attributes.Text("reticle.device", request.device);
    attributes.Text("reticle.service_tier", request.service_tier);
    if (!request.finish.empty()) attributes.List("gen_ai.response.finish_reasons", request.finish);
    if (request.admitted) {
      const Usage& usage = request.usage;
      attributes.Int("gen_ai.usage.input_tokens", static_cast<int64_t>(usage.prompt_tokens));
      attributes.Int("gen_ai.usage.output_tokens", static_cast<int64_t>(usage.completion_tokens));
      attributes.Int("reticle.cached_tokens", static_cast<int64_t>(usage.cached_tokens));
      attributes.Int("reticle.device_busy_ns", static_cast<int64_t>(usage.device_busy_ns));
      attributes.Int("reticle.recoveries", usage.recoveries);
    }
  }
  if (request.failed) {
    out.append(R"(,"status":{"code":)");
    AppendInt(out, kStatusError);
    out.append(R"(,"message":)");
    AppendJsonString(out, request.error);
    out.push_back('}');
  }
  out.push_back('}');
  if (!request.admitted) return;
  const struct {
    const char* name;
    int64_t ns;
    const char* count_name;
    uint64_t count;
  } parts[] = {{"queue", request.usage.queue_ns, nullptr, 0},
               {"prefill", request.usage.prompt_ns, "gen_ai.usage.input_tokens",
                request.usage.prompt_tokens},
               {"decode", request.usage.completion_ns, "gen_ai.usage.output_tokens",
                request.usage.completion_tokens}};
  int64_t at_ns = request.begin_ns + offset_ns;
  for (const auto& part : parts) {
    if (part.ns <= 0) continue;
    out.push_back(',');
    AppendHead(out, {.trace = request.trace,
                     .id = NewSpanId(),
                     .parent = &request.trace.span_id,
                     .name = part.name,
                     .kind = kInternal,
                     .begin_unix_ns = at_ns,
                     .end_unix_ns = at_ns + part.ns});
    {
      Attributes attributes(out);
      if (part.count_name != nullptr) {
        attributes.Int(part.count_name, static_cast<int64_t>(part.count));
      }
    }
    out.push_back('}');
    at_ns += part.ns;
  }
}

}  // namespace

TracedRequest::TracedRequest(const RequestSummary& summary)
    : trace(summary.trace),
      front(summary.front),
      method(summary.method),
      route(summary.route),
      request_id(summary.request_id),
      service_tier(summary.service_tier),
      error(summary.error.message()),
      status(summary.status),
      failed(summary.failed || (summary.admitted && summary.outcome == Outcome::kError)),
      admitted(summary.admitted),
      begin_ns(summary.arrival_ns),
      end_ns(summary.end_ns),
      first_token_ns(summary.first_token_ns),
      usage(summary.usage) {
  if (summary.generation) finish = FinishName(summary);
  if (summary.model != nullptr) {
    model = summary.model->id;
    device = summary.model->device;
  }
}

size_t TracedRequest::spans() const {
  if (!admitted) return 1;
  return 1 + (usage.queue_ns > 0 ? 1 : 0) + (usage.prompt_ns > 0 ? 1 : 0) +
         (usage.completion_ns > 0 ? 1 : 0);
}

std::string OtlpTraceJson(const OtlpResource& resource, std::span<const TracedRequest> requests,
                          int64_t unix_offset_ns) {
  std::string out = R"({"resourceSpans":[{"resource":{)";
  {
    Attributes attributes(out);
    attributes.Text("service.name", resource.service_name);
    attributes.Text("service.version", resource.service_version);
    attributes.Text("service.instance.id", resource.instance);
  }
  out.append(R"(},"scopeSpans":[{"scope":{"name":"reticle.server","version":)");
  AppendJsonString(out, resource.service_version);
  out.append(R"(},"spans":[)");
  bool first = true;
  for (const TracedRequest& request : requests) {
    if (!first) out.push_back(',');
    first = false;
    AppendRequest(out, request, unix_offset_ns);
  }
  out.append("]}]}]}");
  return out;
}

}  // namespace reticle::server
