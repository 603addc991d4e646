#include "server/telemetry/telemetry.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <simdjson.h>
#include <sys/socket.h>
#include <unistd.h>

#include <map>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "server/core/listen_socket.h"
#include "server/telemetry/http_poster.h"
#include "server/telemetry/otlp_exporter.h"
#include "server/telemetry/otlp_json.h"
#include "server/telemetry/request_log.h"

namespace reticle::server {
namespace {

using simdjson::dom::element;
using testing::HasSubstr;

constexpr char kParent[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

// Answers posts as it is told, one connection at a time.
class Collector {
 public:
  Collector() : socket_(*ListenSocket::Open({})) {
    EXPECT_TRUE(socket_.Listen().ok());
    // accept waits.
    fcntl(socket_.fd(), F_SETFL, 0);
    thread_ = std::thread([this] { Loop(); });
  }
  ~Collector() {
    shutdown(socket_.fd(), SHUT_RDWR);
    thread_.join();
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(socket_.port()); }
  // Statuses of the next replies; afterwards 200.
  void Answer(std::vector<int> statuses) {
    MutexLock lock(mutex_);
    statuses_ = std::move(statuses);
  }
  std::vector<std::string> WaitFor(size_t posts) {
    MutexLock lock(mutex_);
    while (posts_.size() < posts) changed_.Wait(mutex_);
    return posts_;
  }
  size_t taken() {
    MutexLock lock(mutex_);
    return posts_.size();
  }

 private:
  void Loop() {
    for (;;) {
      const int fd = accept(socket_.fd(), nullptr, nullptr);
      if (fd < 0) return;
      std::string text;
      char bytes[4096];
      ssize_t count;
      while ((count = recv(fd, bytes, sizeof(bytes), 0)) > 0) {
        text.append(bytes, static_cast<size_t>(count));
        const size_t head = text.find("\r\n\r\n");
        if (head == std::string::npos) continue;
        const size_t at = text.find("Content-Length: ");
        const size_t length = std::stoul(text.substr(at + 16));
        if (text.size() < head + 4 + length) continue;
        const std::string reply = Take(text.substr(0, head), text.substr(head + 4, length));
        text.erase(0, head + 4 + length);
        send(fd, reply.data(), reply.size(), MSG_NOSIGNAL);
      }
      close(fd);
    }
  }
  std::string Take(const std::string& head, const std::string& body) {
    EXPECT_THAT(head, HasSubstr("POST /v1/traces HTTP/1.1"));
    EXPECT_THAT(head, HasSubstr("Content-Type: application/json"));
    MutexLock lock(mutex_);
    int status = 200;
    if (!statuses_.empty()) {
      status = statuses_.front();
      statuses_.erase(statuses_.begin());
    }
    if (status == 200) posts_.push_back(body);
    changed_.NotifyAll();
    return "HTTP/1.1 " + std::to_string(status) + " X\r\nContent-Length: 2\r\n\r\n{}";
  }

  ListenSocket socket_;
  Mutex mutex_;
  CondVar changed_;
  std::vector<int> statuses_ RETICLE_GUARDED_BY(mutex_);
  std::vector<std::string> posts_ RETICLE_GUARDED_BY(mutex_);
  std::thread thread_;
};

RequestSummary Finished() {
  RequestSummary summary;
  summary.front = "http";
  summary.method = "POST";
  summary.route = "/v1/completions";
  summary.request_id = "id-\"1\"";
  summary.trace = BeginTrace(kParent, 0);
  summary.status = 200;
  summary.arrival_ns = 1'000'000;
  summary.end_ns = 9'000'000;
  summary.generation = true;
  summary.admitted = true;
  summary.outcome = Outcome::kLength;
  auto model = std::make_shared<ModelEntry>();
  model->id = "tiny";
  model->device = "fake";
  summary.model = std::move(model);
  summary.service_tier = "default";
  summary.usage.prompt_tokens = 11;
  summary.usage.cached_tokens = 4;
  summary.usage.completion_tokens = 7;
  summary.usage.queue_ns = 1'000'000;
  summary.usage.prompt_ns = 2'000'000;
  summary.usage.completion_ns = 4'000'000;
  summary.choices = 1;
  return summary;
}

std::string_view Text(simdjson::simdjson_result<element> value) {
  return value.get_string().value();
}

bool IsHex(std::string_view text, size_t digits) {
  return text.size() == digits && text.find_first_not_of("0123456789abcdef") == text.npos &&
         text.find_first_not_of('0') != text.npos;
}

// Checks a span against the JSON mapping of opentelemetry.proto.trace.v1.Span; its attributes.
std::map<std::string, std::string> CheckSpan(element span) {
  for (const auto& [key, value] : span.get_object()) {
    EXPECT_THAT(
        (std::vector<std::string>{"traceId", "spanId", "parentSpanId", "name", "kind",
                                  "startTimeUnixNano", "endTimeUnixNano", "attributes", "status"}),
        testing::Contains(std::string(key)));
  }
  EXPECT_TRUE(IsHex(Text(span["traceId"]), 32));
  EXPECT_TRUE(IsHex(Text(span["spanId"]), 16));
  EXPECT_TRUE(IsHex(Text(span["parentSpanId"]), 16));
  EXPECT_TRUE(span["kind"].is_int64());
  // 64-bit numbers are strings.
  EXPECT_TRUE(span["startTimeUnixNano"].is_string());
  EXPECT_TRUE(span["endTimeUnixNano"].is_string());
  EXPECT_LE(std::stoull(std::string(Text(span["startTimeUnixNano"]))),
            std::stoull(std::string(Text(span["endTimeUnixNano"]))));
  std::map<std::string, std::string> attributes;
  for (element attribute : span["attributes"].get_array()) {
    const std::string key{Text(attribute["key"])};
    const element value = attribute["value"];
    EXPECT_EQ(value.get_object().value().size(), 1u) << key;
    std::string_view text;
    if (value["stringValue"].get(text) != simdjson::SUCCESS &&
        value["intValue"].get(text) != simdjson::SUCCESS) {
      text = Text(value["arrayValue"]["values"].at(0)["stringValue"]);
    }
    EXPECT_TRUE(attributes.emplace(key, std::string(text)).second) << key;
  }
  return attributes;
}

TEST(OtlpJsonTest, IsTheMappingOfOtlp) {
  const TracedRequest request(Finished());
  EXPECT_EQ(request.spans(), 4u);
  const std::string body = OtlpTraceJson({.service_version = "1.2", .instance = "host:1"},
                                         std::span(&request, 1), 1'700'000'000'000'000'000);
  simdjson::dom::parser parser;
  element root;
  ASSERT_EQ(parser.parse(body).get(root), simdjson::SUCCESS) << body;
  const element resource = root["resourceSpans"].at(0);
  EXPECT_EQ(Text(resource["resource"]["attributes"].at(0)["value"]["stringValue"]), "reticle");
  const element scope = resource["scopeSpans"].at(0);
  EXPECT_EQ(Text(scope["scope"]["version"]), "1.2");
  const auto spans = scope["spans"].get_array().value();
  ASSERT_EQ(spans.size(), 4u);
  const element server = spans.at(0);
  const auto attributes = CheckSpan(server);
  EXPECT_EQ(Text(server["traceId"]), "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(Text(server["parentSpanId"]), "00f067aa0ba902b7");
  EXPECT_EQ(Text(server["name"]), "POST /v1/completions");
  EXPECT_EQ(server["kind"].get_int64().value(), 2);
  EXPECT_EQ(Text(server["startTimeUnixNano"]), "1700000000001000000");
  EXPECT_EQ(Text(server["endTimeUnixNano"]), "1700000000009000000");
  EXPECT_EQ(attributes.at("reticle.request_id"), "id-\"1\"");
  EXPECT_EQ(attributes.at("gen_ai.usage.input_tokens"), "11");
  EXPECT_EQ(attributes.at("gen_ai.response.finish_reasons"), "length");
  EXPECT_EQ(attributes.at("http.response.status_code"), "200");
  const char* const names[] = {"queue", "prefill", "decode"};
  const char* const begins[] = {"1700000000001000000", "1700000000002000000",
                                "1700000000004000000"};
  for (size_t i = 0; i < 3; ++i) {
    const element child = spans.at(i + 1);
    CheckSpan(child);
    EXPECT_EQ(Text(child["name"]), names[i]);
    EXPECT_EQ(child["kind"].get_int64().value(), 1);
    EXPECT_EQ(Text(child["parentSpanId"]), Text(server["spanId"]));
    EXPECT_EQ(Text(child["startTimeUnixNano"]), begins[i]);
  }
}

TEST(OtlpJsonTest, AFailureHasItsStatusAndARefusalNoParts) {
  RequestSummary summary = Finished();
  summary.admitted = false;
  summary.model = nullptr;
  summary.status = 500;
  summary.failed = true;
  summary.error = absl::InternalError("it \"broke\"");
  summary.trace = BeginTrace("", 1);
  const TracedRequest request(summary);
  EXPECT_EQ(request.spans(), 1u);
  simdjson::dom::parser parser;
  const std::string body = OtlpTraceJson({}, std::span(&request, 1), 0);
  element root;
  ASSERT_EQ(parser.parse(body).get(root), simdjson::SUCCESS);
  const auto spans = root["resourceSpans"].at(0)["scopeSpans"].at(0)["spans"].get_array().value();
  ASSERT_EQ(spans.size(), 1u);
  EXPECT_EQ(spans.at(0)["status"]["code"].get_int64().value(), 2);
  EXPECT_EQ(Text(spans.at(0)["status"]["message"]), "it \"broke\"");
  EXPECT_EQ(spans.at(0)["parentSpanId"].error(), simdjson::NO_SUCH_FIELD);
}

size_t SpansIn(const std::string& body) {
  simdjson::dom::parser parser;
  element root;
  if (parser.parse(body).get(root) != simdjson::SUCCESS) return 0;
  return root["resourceSpans"].at(0)["scopeSpans"].at(0)["spans"].get_array().value().size();
}

OtlpOptions Quick(const std::string& url) {
  OtlpOptions options;
  options.endpoint = url;
  options.interval_ms = 5;
  options.first_pause_ms = 5;
  options.longest_pause_ms = 10;
  return options;
}

TEST(OtlpExporterTest, SendsInBatchesAndTheRestAtTheEnd) {
  Collector collector;
  OtlpOptions options = Quick(collector.url());
  options.batch_requests = 10;
  options.interval_ms = 60'000;
  {
    auto exporter = OtlpExporter::Create(options, Clock::Monotonic());
    ASSERT_TRUE(exporter.ok()) << exporter.status();
    for (int i = 0; i < 25; ++i) (*exporter)->Add(Finished());
    EXPECT_EQ(SpansIn(collector.WaitFor(2).at(1)), 40u);
  }
  const std::vector<std::string> posts = collector.WaitFor(3);
  EXPECT_EQ(posts.size(), 3u);
  EXPECT_EQ(SpansIn(posts[2]), 20u);
}

TEST(OtlpExporterTest, TriesAgainWhenTheCollectorAsksForPatienceAndDropsWhatItRefuses) {
  Collector collector;
  collector.Answer({503, 429, 200, 400});
  auto exporter = OtlpExporter::Create(Quick(collector.url()), Clock::Monotonic());
  ASSERT_TRUE(exporter.ok());
  (*exporter)->Add(Finished());
  EXPECT_EQ(SpansIn(collector.WaitFor(1).at(0)), 4u);
  (*exporter)->Add(Finished());
  while ((*exporter)->counts().dropped == 0) std::this_thread::yield();
  (*exporter)->Add(Finished());
  collector.WaitFor(2);
  while ((*exporter)->counts().exported < 8) std::this_thread::yield();
  EXPECT_EQ((*exporter)->counts().dropped, 4u);
}

TEST(OtlpExporterTest, NobodyThereFillsTheQueueAndNoMore) {
  const uint16_t port = ListenSocket::Open({})->port();
  OtlpOptions options = Quick("http://127.0.0.1:" + std::to_string(port));
  options.queue_requests = 16;
  options.batch_requests = 4;
  options.farewell_ms = 50;
  auto exporter = OtlpExporter::Create(options, Clock::Monotonic());
  ASSERT_TRUE(exporter.ok());
  for (int i = 0; i < 1000; ++i) (*exporter)->Add(Finished());
  // One batch may be on its way.
  EXPECT_GE((*exporter)->counts().dropped, 4u * (1000 - 16 - 4));
  EXPECT_EQ((*exporter)->counts().exported, 0u);
  exporter->reset();
}

TEST(HttpPosterTest, EndpointsAreCheckedAndGetTheirPath) {
  const auto plain = ParseHttpEndpoint("http://collector:4318", "/v1/traces");
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(plain->host + "|" + plain->port + "|" + plain->path, "collector|4318|/v1/traces");
  const auto v6 = ParseHttpEndpoint("http://[::1]:1/x/y", "/v1/traces");
  ASSERT_TRUE(v6.ok());
  EXPECT_EQ(v6->host + "|" + v6->port + "|" + v6->path, "::1|1|/x/y");
  EXPECT_EQ(ParseHttpEndpoint("http://a/", "/d")->port, "80");
  EXPECT_EQ(ParseHttpEndpoint("http://a/", "/d")->path, "/d");
  for (const char* const bad : {"", "collector:4318", "https://a", "http://", "http://a:0",
                                "http://a:65536", "http://a:b", "http://:80"}) {
    EXPECT_FALSE(ParseHttpEndpoint(bad, "/").ok()) << bad;
  }
}

TEST(TelemetryTest, SamplingIsTheCallersOrItsShareAndNothingWithoutACollector) {
  ServerProbe probe;
  TelemetryOptions options;
  auto none = Telemetry::Create(options, Clock::Monotonic(), probe);
  ASSERT_TRUE(none.ok());
  EXPECT_FALSE((*none)->Trace("").sampled);
  EXPECT_TRUE((*none)->Trace(kParent).sampled);
  Collector collector;
  options.otlp = Quick(collector.url());
  options.log_requests = false;
  auto telemetry = Telemetry::Create(options, Clock::Monotonic(), probe);
  ASSERT_TRUE(telemetry.ok());
  EXPECT_TRUE((*telemetry)->Trace("").sampled);
  options.trace_ratio = 0;
  (*telemetry)->Configure(options);
  EXPECT_FALSE((*telemetry)->Trace("").sampled);
  RequestSummary unsampled = Finished();
  unsampled.trace.sampled = false;
  (*telemetry)->OnRequestOver(unsampled);
  (*telemetry)->OnRequestOver(Finished());
  EXPECT_EQ(SpansIn(collector.WaitFor(1).at(0)), 4u);
  telemetry->reset();
  EXPECT_EQ(collector.taken(), 1u);
  options.trace_ratio = 1.5;
  EXPECT_FALSE(Telemetry::Create(options, Clock::Monotonic(), probe).ok());
}

TEST(RequestLogTest, TenantsAreHashedTheSameEverywhere) {
  EXPECT_EQ(TenantHash("org_1"), TenantHash("org_1"));
  EXPECT_NE(TenantHash("org_1"), TenantHash("org_2"));
  EXPECT_TRUE(IsHex(TenantHash("org_1"), 16));
  // SHA-256 of nothing begins so.
  EXPECT_EQ(TenantHash(""), "e3b0c44298fc1c14");
}

TEST(RequestLogTest, FinishSaysHowItEnded) {
  RequestSummary summary = Finished();
  EXPECT_EQ(FinishName(summary), "length");
  summary.admitted = false;
  summary.status = 429;
  EXPECT_EQ(FinishName(summary), "refused");
  summary.status = 499;
  EXPECT_EQ(FinishName(summary), "abandoned");
}

}  // namespace
}  // namespace reticle::server
