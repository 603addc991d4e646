// Whole runs against servers in this process: the null server, and one that misbehaves as told.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_format.h"
#include "loadtest/null_reply.h"
#include "loadtest/null_server.h"
#include "loadtest/runner.h"

namespace reticle::loadtest {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::Le;
using ::testing::Pair;

// Answers every request on a listening socket as `serve` says: it gets the request's body and
// writes to the connection; false closes it. One thread a connection, all joined at the end.
class ScriptedServer {
 public:
  using Serve = std::function<bool(int fd, const std::string& body)>;
  explicit ScriptedServer(Serve serve) : serve_(std::move(serve)) {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof(address));
    listen(listener_, 128);
    socklen_t length = sizeof(address);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length);
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { Accept(); });
  }
  ~ScriptedServer() {
    shutdown(listener_, SHUT_RDWR);
    acceptor_.join();
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      for (const int fd : open_) shutdown(fd, SHUT_RDWR);
    }
    for (std::thread& thread : threads_) thread.join();
    close(listener_);
  }

  std::string url() const { return absl::StrFormat("http://127.0.0.1:%d", port_); }
  std::vector<std::string> bodies() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return bodies_;
  }

 private:
  void Accept() {
    while (true) {
      const int fd = accept(listener_, nullptr, nullptr);
      if (fd < 0) return;
      const std::lock_guard<std::mutex> lock(mutex_);
      open_.push_back(fd);
      threads_.emplace_back([this, fd] { Connection(fd); });
    }
  }

  void Connection(int fd) {
    std::string in;
    while (true) {
      size_t end = in.find("\r\n\r\n");
      size_t length = 0;
      if (end != std::string::npos) {
        const size_t at = in.find("Content-Length: ");
        if (at < end) length = std::stoul(in.substr(at + 16));
      }
      if (end == std::string::npos || in.size() < end + 4 + length) {
        char buffer[4096];
        const ssize_t n = recv(fd, buffer, sizeof(buffer), 0);
        if (n <= 0) break;
        in.append(buffer, static_cast<size_t>(n));
        continue;
      }
      const std::string body = in.substr(end + 4, length);
      in.erase(0, end + 4 + length);
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        bodies_.push_back(body);
      }
      if (!serve_(fd, body)) break;
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    std::erase(open_, fd);
    close(fd);
  }

  Serve serve_;
  int listener_ = -1;
  uint16_t port_ = 0;
  std::mutex mutex_;
  std::vector<int> open_;
  std::vector<std::string> bodies_;
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

void Send(int fd, const std::string& text) { send(fd, text.data(), text.size(), MSG_NOSIGNAL); }

// A stream of `events` words as the null server writes it; the last `cut` bytes are left out.
std::string Stream(int64_t events, size_t cut = 0) {
  static const NullReplies replies("m", 1, true, true);
  std::string wire;
  replies.AppendStreamHead(wire);
  for (int64_t i = 0; i < events; ++i) replies.AppendEvents(wire, 1, i == 0);
  replies.AppendStreamEnd(wire, {.chat = true, .include_usage = true, .max_tokens = events});
  wire.resize(wire.size() - cut);
  return wire;
}

// A short closed-loop run of a known number of requests.
Scenario Short(const std::string& url, int64_t requests) {
  Scenario scenario;
  scenario.url = url;
  scenario.model = "m";
  scenario.calibrate = false;
  scenario.requests = requests;
  scenario.output_tokens = Distribution::Fixed(5);
  scenario.timeout_ns = 20'000'000'000;
  return scenario;
}

Report MustRun(Scenario scenario) {
  EXPECT_TRUE(scenario.Validate().ok()) << scenario.Validate();
  absl::StatusOr<Report> report = RunScenario(scenario, {});
  EXPECT_TRUE(report.ok()) << report.status();
  return report.ok() ? *std::move(report) : Report();
}

std::unique_ptr<NullServer> StartNull(const NullServerOptions& options = {}) {
  auto server = NullServer::Start(options);
  EXPECT_TRUE(server.ok()) << server.status();
  return *std::move(server);
}
std::string Url(const NullServer& server) {
  return absl::StrFormat("http://127.0.0.1:%d", server.port());
}

void ExpectAllServed(const Report& report, int64_t requests, int64_t tokens_each) {
  EXPECT_EQ(report.requests, requests);
  EXPECT_EQ(report.successes, requests);
  EXPECT_EQ(report.completion_tokens, requests * tokens_each);
  EXPECT_EQ(report.short_replies, 0);
  EXPECT_TRUE(report.errors.empty());
  EXPECT_THAT(report.finish_reasons, ElementsAre(Pair("length", requests)));
}

TEST(RunTest, ClosedLoopCountsEveryRequestAndToken) {
  const auto server = StartNull();
  Scenario scenario = Short(Url(*server), 200);
  scenario.users = 8;
  scenario.threads = 2;
  const Report report = MustRun(scenario);
  ExpectAllServed(report, 200, 5);
  EXPECT_EQ(report.completion_events, 1000);
  EXPECT_DOUBLE_EQ(report.chunks_per_token, 1);
  // A connection a user, kept; one thread's users may have made all requests before the other
  // began.
  EXPECT_THAT(report.connections, AllOf(Ge(4), Le(8)));
  EXPECT_EQ(report.summaries.at("ttft").count, 200u);
  EXPECT_EQ(report.summaries.at("itl").count, 800u);
  EXPECT_EQ(report.threads.size(), 2u);
}

TEST(RunTest, BothApisStreamedAndWhole) {
  const auto server = StartNull();
  for (const Api api : {Api::kChat, Api::kCompletions}) {
    for (const bool stream : {true, false}) {
      Scenario scenario = Short(Url(*server), 20);
      scenario.api = api;
      scenario.stream = stream;
      const Report report = MustRun(scenario);
      ExpectAllServed(report, 20, 5);
      EXPECT_EQ(report.summaries.at("ttft").count, stream ? 20u : 0u);
      EXPECT_EQ(report.completion_events, stream ? 100 : 20);
    }
  }
}

TEST(RunTest, EveryWayOfWritingGivesTheSameCounts) {
  for (const bool each : {true, false}) {
    for (const double rate : {0.0, 5000.0}) {
      const auto server = StartNull({.token_rate = rate,
                                     .first_token_ns = each ? 0 : 2'000'000,
                                     .write_each_event = each,
                                     .gather_ns = each ? 0 : 3'000'000});
      Scenario scenario = Short(Url(*server), 12);
      scenario.users = 4;
      scenario.output_tokens = Distribution::Fixed(300);
      const Report report = MustRun(scenario);
      ExpectAllServed(report, 12, 300);
      EXPECT_EQ(report.completion_events, 3600);
    }
  }
}

TEST(RunTest, MergedEventsAreNotTokens) {
  const auto server = StartNull({.tokens_per_event = 4});
  Scenario scenario = Short(Url(*server), 10);
  scenario.output_tokens = Distribution::Fixed(10);
  const Report report = MustRun(scenario);
  ExpectAllServed(report, 10, 10);
  EXPECT_EQ(report.completion_events, 30);
  EXPECT_DOUBLE_EQ(report.chunks_per_token, 0.3);
}

TEST(RunTest, OpenLoopSendsTheSameArrivalsWithAnyNumberOfThreads) {
  const auto server = StartNull();
  std::vector<int64_t> requests;
  for (const int64_t threads : {1, 3}) {
    Scenario scenario = Short(Url(*server), 0);
    scenario.mode = ArrivalMode::kPoisson;
    scenario.rate = 400;
    scenario.duration_ns = 300'000'000;
    scenario.threads = threads;
    const Report report = MustRun(scenario);
    EXPECT_EQ(report.successes, report.requests);
    requests.push_back(report.requests);
  }
  EXPECT_GT(requests[0], 60);
  EXPECT_EQ(requests[0], requests[1]);
}

TEST(RunTest, WarmUpIsNotCounted) {
  const auto server = StartNull();
  Scenario scenario = Short(Url(*server), 0);
  scenario.mode = ArrivalMode::kConstant;
  scenario.rate = 200;
  scenario.duration_ns = 400'000'000;
  scenario.warmup_ns = 300'000'000;
  const Report report = MustRun(scenario);
  EXPECT_EQ(report.requests, 20);
  EXPECT_EQ(report.summaries.at("e2e").count, 20u);
}

TEST(RunTest, ATraceIsReplayed) {
  const auto server = StartNull();
  Scenario scenario = Short(Url(*server), 0);
  scenario.mode = ArrivalMode::kTrace;
  scenario.trace = testing::TempDir() + "/trace.jsonl";
  std::ofstream(scenario.trace) << R"({"timestamp": 0, "input_length": 10, "output_length": 3})"
                                << "\n"
                                << R"({"timestamp": 50, "input_length": 20, "output_length": 4})"
                                << "\n";
  const Report report = MustRun(scenario);
  EXPECT_EQ(report.successes, 2);
  EXPECT_EQ(report.completion_tokens, 7);
  EXPECT_TRUE(report.notes.empty());
  scenario.duration_ns = 40'000'000;
  EXPECT_THAT(MustRun(scenario).notes, ElementsAre(HasSubstr("1 of the trace's 2 requests")));
}

TEST(RunTest, ConversationsCarryTheirHistory) {
  ScriptedServer server([](int fd, const std::string&) {
    Send(fd, Stream(2));
    return true;
  });
  Scenario scenario = Short(server.url(), 3);
  scenario.turns = Distribution::Fixed(3);
  scenario.prompt_tokens = Distribution::Fixed(2);
  const Report report = MustRun(scenario);
  EXPECT_EQ(report.successes, 3);
  EXPECT_EQ(report.summaries.at("conversation").count, 1u);
  const std::vector<std::string> bodies = server.bodies();
  ASSERT_EQ(bodies.size(), 3u);
  const auto messages = [](const std::string& body) {
    const size_t begin = body.find("\"messages\":[") + 12;
    return body.substr(begin, body.find("],\"max_tokens\"") - begin);
  };
  const std::string answer = R"(,{"role":"assistant","content":" token token"},)";
  EXPECT_THAT(messages(bodies[1]), testing::StartsWith(messages(bodies[0]) + answer));
  EXPECT_THAT(messages(bodies[2]), testing::StartsWith(messages(bodies[1]) + answer));
}

TEST(RunTest, DisconnectsAreNeitherSuccessNorError) {
  const auto server = StartNull({.token_rate = 2000});
  Scenario scenario = Short(Url(*server), 20);
  scenario.users = 4;
  scenario.output_tokens = Distribution::Fixed(1000);
  scenario.disconnect_share = 1;
  scenario.disconnect_after = Distribution::Fixed(3);
  const Report report = MustRun(scenario);
  EXPECT_EQ(report.disconnects, 20);
  EXPECT_EQ(report.successes, 0);
  EXPECT_TRUE(report.errors.empty());
  EXPECT_EQ(report.connections, 20);
}

TEST(RunTest, SlowReadersGetEverything) {
  const auto server = StartNull();
  Scenario scenario = Short(Url(*server), 2);
  scenario.users = 2;
  scenario.output_tokens = Distribution::Fixed(100);
  scenario.slow_share = 1;
  scenario.slow_bytes_per_s = 200'000;
  ExpectAllServed(MustRun(scenario), 2, 100);
}

TEST(RunTest, AFewConnectionsServeManyUsers) {
  const auto server = StartNull();
  Scenario scenario = Short(Url(*server), 60);
  scenario.users = 12;
  scenario.max_connections = 3;
  const Report report = MustRun(scenario);
  ExpectAllServed(report, 60, 5);
  EXPECT_EQ(report.connections, 3);
}

TEST(RunTest, AServerThatIsAbsentIsUnavailable) {
  Scenario scenario = Short("http://127.0.0.1:1", 1);
  ASSERT_TRUE(scenario.Validate().ok());
  EXPECT_EQ(RunScenario(scenario, {}).status().code(), absl::StatusCode::kUnavailable);
  scenario.url = "http://no-such-host.invalid:80";
  EXPECT_FALSE(RunScenario(scenario, {}).ok());
}

// The errors of a run of 4 requests against a server that answers as `serve` says.
std::map<std::string, int64_t> Errors(ScriptedServer::Serve serve,
                                      const std::function<void(Scenario&)>& change = {}) {
  ScriptedServer server(std::move(serve));
  Scenario scenario = Short(server.url(), 4);
  scenario.users = 4;
  if (change) change(scenario);
  const Report report = MustRun(scenario);
  EXPECT_EQ(report.successes, 0);
  return report.errors;
}

TEST(RunTest, ErrorsAreToldApart) {
  EXPECT_THAT(Errors([](int fd, const std::string&) {
                Send(fd, Stream(5, 400));
                return false;
              }),
              ElementsAre(Pair("closed mid-stream", 4)));
  EXPECT_THAT(Errors([](int, const std::string&) { return false; }),
              ElementsAre(Pair("closed early", 4)));
  EXPECT_THAT(Errors([](int fd, const std::string&) {
                Send(fd,
                     "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                     "Transfer-Encoding: chunked\r\n\r\n10\r\ndata: {\"what\":1}");
                Send(fd, "\r\n2\r\n\n\n\r\n0\r\n\r\n");
                return true;
              }),
              ElementsAre(Pair("malformed reply", 4)));
  EXPECT_THAT(Errors([](int fd, const std::string&) {
                Send(fd, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}");
                return true;
              }),
              ElementsAre(Pair("http 503", 4)));
  EXPECT_THAT(Errors([](int fd, const std::string&) {
                Send(fd, "220 mail ESMTP\r\n\r\n");
                return true;
              }),
              ElementsAre(Pair("malformed reply", 4)));
}

TEST(RunTest, TimeoutsAndWhatIsUnfinishedAreErrors) {
  const auto silent = [](int, const std::string&) { return true; };
  EXPECT_THAT(Errors(silent, [](Scenario& s) { s.timeout_ns = 50'000'000; }),
              ElementsAre(Pair("timeout", 4)));
  EXPECT_THAT(Errors(silent,
                     [](Scenario& s) {
                       s.duration_ns = 50'000'000;
                       s.drain_ns = 10'000'000;
                     }),
              ElementsAre(Pair("unfinished", 4)));
}

TEST(RunTest, RejectedRequestsAreSentAgainWhenAsked) {
  std::atomic<int> count{0};
  ScriptedServer server([&](int fd, const std::string&) {
    if (count.fetch_add(1) < 2) {
      Send(fd, "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n");
    } else {
      Send(fd, Stream(5));
    }
    return true;
  });
  Scenario scenario = Short(server.url(), 3);
  scenario.retries = 3;
  const Report report = MustRun(scenario);
  ExpectAllServed(report, 3, 5);
  EXPECT_EQ(report.retries, 2);
}

TEST(RunTest, AKeptConnectionThatTheServerClosedIsReplaced) {
  ScriptedServer server([](int fd, const std::string&) {
    Send(fd, Stream(5));
    return false;  // although the reply said keep-alive
  });
  const Report report = MustRun(Short(server.url(), 5));
  ExpectAllServed(report, 5, 5);
}

TEST(RunTest, StoppingReportsWhatWasMeasured) {
  const auto server = StartNull({.token_rate = 1000});
  Scenario scenario = Short(Url(*server), 0);
  scenario.users = 4;
  scenario.output_tokens = Distribution::Fixed(20);
  scenario.duration_ns = 3600LL * 1'000'000'000;
  ASSERT_TRUE(scenario.Validate().ok());
  std::atomic<bool> interrupted{false};
  RunOptions options;
  options.interrupted = &interrupted;
  options.on_progress = [&](const std::string& line) {
    EXPECT_THAT(line, HasSubstr("/3600s"));
    interrupted = true;
  };
  const auto report = RunScenario(scenario, options);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->interrupted);
  EXPECT_GT(report->successes, 0);
  EXPECT_TRUE(report->errors.empty());
  EXPECT_EQ(report->requests, report->successes);
}

TEST(RunTest, TheModelIsFoundAndPromptsAreCalibrated) {
  const auto server = StartNull({.model = "found"});
  Scenario scenario = Short(Url(*server), 1);
  scenario.model = "";
  scenario.calibrate = true;
  const Report report = MustRun(scenario);
  EXPECT_EQ(report.model, "found");
  ASSERT_EQ(report.notes.size(), 1u);
  EXPECT_THAT(report.notes[0], HasSubstr("tokens a word"));
}

TEST(RunTest, SlosAreJudged) {
  const auto server = StartNull();
  Scenario scenario = Short(Url(*server), 10);
  scenario.slo_texts = {"ttft<=1h", "ttft.max<=1ns", "errors<=0%", "conversation.p50<=1s"};
  const Report report = MustRun(scenario);
  ASSERT_EQ(report.slos.size(), 4u);
  EXPECT_FALSE(report.slos[0].met);    // ttft.max
  EXPECT_TRUE(report.slos[1].met);     // errors
  EXPECT_FALSE(report.slos[2].known);  // no conversations
  EXPECT_TRUE(report.slos[3].met);     // goodput, by the bound on each request
  EXPECT_EQ(report.good, 10);
  EXPECT_FALSE(report.AllSlosMet());
}

TEST(NullServerTest, RefusesBadOptionsAndTakenAddresses) {
  EXPECT_FALSE(NullServer::Start({.threads = 0}).ok());
  EXPECT_FALSE(NullServer::Start({.token_rate = -1}).ok());
  EXPECT_FALSE(NullServer::Start({.host = "not an address"}).ok());
  EXPECT_FALSE(NullServer::Start({.host = "203.0.113.1"}).ok());
}

}  // namespace
}  // namespace reticle::loadtest
