#include "server/bench/serve_bench.h"

#include <sys/resource.h>
#include <sys/socket.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "base/status.h"
#include "server/bench/grpc_client.h"
#include "server/bench/http_client.h"
#include "server/bench/metrics_text.h"
#include "server/bench/report.h"
#include "server/bench/server_process.h"

namespace reticle::server::bench {
namespace {

constexpr int kServerCpu = 0;
constexpr int kClientCpu = 1;
constexpr int64_t kSecondNs = 1'000'000'000;
// A token of Taalas' HC1 by the vendor's figure of 16,960 tokens a second and user.
constexpr int64_t kHc1TokenNs = 58'962;
// Profiles of the emulated card.
constexpr char kPaced[] = "taalas-hc1";
constexpr char kUnlimited[] = "unlimited";
constexpr char kNullReady[] = "HTTP";
constexpr char kCompletions[] = "/v1/completions";
constexpr char kChat[] = "/v1/chat/completions";
constexpr char kPrompt[] = "one two three four five six seven eight nine ten";

struct BenchOptions {
  int repeats = 3;
  double seconds = 2;  // of each measurement
  std::string folder = "build/bench";
  std::vector<std::string> only;
  bool pin = true;
};

using Server = std::unique_ptr<ServerProcess>;

// Gathers the repeats of figures in the order in which they first come.
class Samples {
 public:
  void Add(const std::string& name, double value) {
    for (auto& [known, values] : all_) {
      if (known == name) return values.push_back(value);
    }
    all_.emplace_back(name, std::vector<double>{value});
  }
  const std::vector<double>* Find(const std::string& name) const {
    for (const auto& [known, values] : all_) {
      if (known == name) return &values;
    }
    return nullptr;
  }

 private:
  std::vector<std::pair<std::string, std::vector<double>>> all_;
};

// The name, unit, direction and goal of each figure. Goals are those for a machine with two cores.
struct Meaning {
  const char* name;
  const char* unit;
  bool higher_is_better;
  std::optional<double> goal;
};
const Meaning kMeanings[] = {
    {"one_stream.rate", "tok/s", true, {}},
    {"one_stream.rate_over_device", "", true, 0.99},
    {"one_stream.added_latency_p50", "us", false, 15},
    {"one_stream.added_latency_p99", "us", false, 150},
    {"one_stream.added_latency_mean", "us", false, {}},
    {"one_stream.stage.poll", "us", false, {}},
    {"one_stream.stage.wake", "us", false, {}},
    {"one_stream.stage.hand_over", "us", false, {}},
    {"one_stream.stage.frame", "us", false, {}},
    {"one_stream.stage.write", "us", false, {}},
    {"grpc_stream.rate_over_device", "", true, 0.99},
    {"grpc_stream.tokens_per_message", "", false, {}},
    {"grpc_stream.added_latency_p50", "us", false, {}},
    {"grpc_stream.added_latency_p99", "us", false, {}},
    {"first_token.p50", "us", false, 200},
    {"first_token.p99", "us", false, 1000},
    {"64_streams.rate", "tok/s", true, 500'000},
    {"64_streams.null_server", "tok/s", true, {}},
    {"64_streams.share_of_null_server", "", true, 0.5},
    {"64_streams.server_cpu_per_token", "us", false, {}},
    {"64_streams.client_cpu_per_token", "us", false, {}},
    {"64_merged.rate", "tok/s", true, 2'000'000},
    {"64_merged.server_cpu_per_token", "us", false, {}},
    {"64_merged.tokens_per_event", "", true, {}},
    {"512_paced.pace", "", true, 0.99},
    {"512_paced.fairness_max_over_min", "", false, 1.05},
    {"512_paced.events_per_read", "", false, {}},
    {"512_paced.server_cpu", "%", false, {}},
    {"one_token.requests", "1/s", true, 25'000},
    {"one_token.server_cpu_per_request", "us", false, 40},
    {"one_token_chat.requests", "1/s", true, {}},
    {"one_token_chat.server_cpu_per_request", "us", false, {}},
    {"one_token.null_server", "1/s", true, {}},
    {"idle.cpu", "%", false, 1},
    {"idle_connections.cpu", "%", false, 1},
    {"idle_connections.memory_each", "bytes", false, 20'000},
};

class Bench {
 public:
  explicit Bench(const BenchOptions& options) : options_(options) {
    const bool two_cores = options.pin && std::thread::hardware_concurrency() >= 2;
    server_cpu_ = two_cores ? kServerCpu : -1;
    if (two_cores) PinTo(kClientCpu);
  }

  absl::Status Run();
  Report MakeReport() const;

 private:
  struct Scenario {
    const char* name;
    absl::Status (Bench::*run)();
  };
  static const Scenario kScenarios[];

  // The emulated card in replay, at the pace of profile `device`.
  absl::StatusOr<Server> Serve(const char* device,
                               std::vector<std::string> device_options = {}) const;
  absl::StatusOr<Server> NullServer() const;
  std::string Body(uint32_t tokens, const std::string& stream_options = "") const;
  absl::StatusOr<std::string> Metrics(const Server& server) const {
    return Fetch(server->Port("HTTP"), "GET", "/metrics", "");
  }
  // Runs `streams` streams of `tokens` tokens against `server` and notes rate and CPU time.
  absl::Status Total(const std::string& name, const Server& server, size_t streams, uint32_t tokens,
                     const std::string& stream_options);
  absl::Status Exchanges(const std::string& name, const Server& server, const char* path,
                         const std::string& body);
  void NoteAddedLatency(const std::string& name, const std::string& before,
                        const std::string& after);
  int64_t RunNs() const { return static_cast<int64_t>(options_.seconds * 1e9); }

  // Lets the server of a scenario, and this process, use every core.
  class Unpinned {
   public:
    explicit Unpinned(Bench& bench) : bench_(bench), server_cpu_(bench.server_cpu_) {
      bench_.server_cpu_ = -1;
      if (server_cpu_ >= 0) PinTo(-1);
    }
    ~Unpinned() {
      bench_.server_cpu_ = server_cpu_;
      if (server_cpu_ >= 0) PinTo(kClientCpu);
    }

   private:
    Bench& bench_;
    const int server_cpu_;
  };

  absl::Status OneStream();
  absl::Status GrpcStream();
  absl::Status FirstToken();
  absl::Status ManyStreams();
  absl::Status MergedStreams();
  absl::Status PacedStreams();
  absl::Status OneToken();
  absl::Status Idle();
  absl::Status IdleConnections();

  const BenchOptions options_;
  int server_cpu_ = -1;
  Samples samples_;
  std::vector<std::string> notes_;
};

const Bench::Scenario Bench::kScenarios[] = {
    {"one_stream", &Bench::OneStream},
    {"grpc_stream", &Bench::GrpcStream},
    {"first_token", &Bench::FirstToken},
    {"64_streams", &Bench::ManyStreams},
    {"64_merged", &Bench::MergedStreams},
    {"512_paced", &Bench::PacedStreams},
    {"one_token", &Bench::OneToken},
    {"idle", &Bench::Idle},
    {"idle_connections", &Bench::IdleConnections},
};

absl::StatusOr<Server> Bench::Serve(const char* device,
                                    std::vector<std::string> device_options) const {
  std::vector<std::string> all = {"serve",       "--device",      device, "--content",
                                  "replay",      "--http",        "0",    "--grpc",
                                  "127.0.0.1:0", "--log-level",   "off",  "--max-connections",
                                  "20000",       "--max-waiting", "4096"};
  // Long enough streams; the profiles' own limits have no part in what is measured.
  device_options.insert(device_options.end(),
                        {"limits.context=131072", "limits.kv_memory=1000000"});
  for (const std::string& option : device_options) {
    all.insert(all.end(), {"--device-option", option});
  }
  return ServerProcess::Start(all, server_cpu_, "Model");
}

absl::StatusOr<Server> Bench::NullServer() const {
  return ServerProcess::Start({"load", "--null-server", "127.0.0.1:0"}, server_cpu_, kNullReady);
}

std::string Bench::Body(uint32_t tokens, const std::string& stream_options) const {
  std::string body = R"({"prompt":")" + std::string(kPrompt) + R"(","temperature":0,)" +
                     R"("ignore_eos":true,"max_tokens":)" + std::to_string(tokens);
  body += R"(,"stream":true)";
  if (!stream_options.empty()) body += R"(,"stream_options":{)" + stream_options + "}";
  return body + "}";
}

void Bench::NoteAddedLatency(const std::string& name, const std::string& before,
                             const std::string& after) {
  const char* const metric = "reticle_server_added_latency_seconds";
  const HistogramDelta delta(metric, before, after);
  if (delta.count() == 0) return;
  samples_.Add(name + ".added_latency_p50", delta.Quantile(0.5) * 1e6);
  samples_.Add(name + ".added_latency_p99", delta.Quantile(0.99) * 1e6);
  samples_.Add(name + ".added_latency_mean", delta.sum() / delta.count() * 1e6);
  for (const char* stage : {"poll", "wake", "hand_over", "frame", "write"}) {
    const std::string series = std::string("reticle_server_added_latency_stage_seconds_total") +
                               "{stage=\"" + stage + "\"}";
    const double spent = MetricValue(after, series) - MetricValue(before, series);
    samples_.Add(name + ".stage." + stage, spent / delta.count() * 1e6);
  }
}

absl::Status Bench::OneStream() {
  ASSIGN_OR_RETURN(const Server server, Serve(kPaced));
  const auto tokens = static_cast<uint32_t>(RunNs() / kHc1TokenNs);
  const uint16_t port = server->Port("HTTP");
  RETURN_IF_ERROR(ReadStreams(port, 1, kCompletions, Body(1000)).status());
  ASSIGN_OR_RETURN(const std::string before, Metrics(server));
  ASSIGN_OR_RETURN(const auto seen,
                   ReadStreams(port, 1, kCompletions, Body(tokens), Waiting::kSpin));
  ASSIGN_OR_RETURN(const std::string after, Metrics(server));
  const double seconds = static_cast<double>(seen[0].last_ns - seen[0].first_ns) * 1e-9;
  const double rate = (tokens - 1) / seconds;
  samples_.Add("one_stream.rate", rate);
  samples_.Add("one_stream.rate_over_device", rate * kHc1TokenNs * 1e-9);
  NoteAddedLatency("one_stream", before, after);
  return absl::OkStatus();
}

absl::Status Bench::GrpcStream() {
  // gRPC has threads of its own, which the loop that spins on a core would keep from it.
  const Unpinned unpinned(*this);
  ASSIGN_OR_RETURN(const Server server, Serve(kPaced));
  const auto tokens = static_cast<uint32_t>(RunNs() / kHc1TokenNs);
  const uint16_t port = server->Port("gRPC");
  RETURN_IF_ERROR(ReadGrpcStream(port, kPrompt, 1000).status());
  ASSIGN_OR_RETURN(const std::string before, Metrics(server));
  ASSIGN_OR_RETURN(const GrpcStreamSeen seen, ReadGrpcStream(port, kPrompt, tokens));
  ASSIGN_OR_RETURN(const std::string after, Metrics(server));
  const double seconds = static_cast<double>(seen.last_ns - seen.first_ns) * 1e-9;
  samples_.Add("grpc_stream.rate_over_device", (tokens - 1) / seconds * kHc1TokenNs * 1e-9);
  samples_.Add("grpc_stream.tokens_per_message",
               static_cast<double>(seen.tokens) / static_cast<double>(seen.messages));
  NoteAddedLatency("grpc_stream", before, after);
  return absl::OkStatus();
}

absl::Status Bench::FirstToken() {
  ASSIGN_OR_RETURN(const Server server, Serve(kUnlimited));
  constexpr int64_t kPauseNs = 5'000'000;
  const int rounds = static_cast<int>(RunNs() / kPauseNs);
  const std::string request = HttpRequestText("POST", kCompletions, Body(2));
  RETURN_IF_ERROR(FirstByteTimes(server->Port("HTTP"), request, 20, 1'000'000).status());
  ASSIGN_OR_RETURN(std::vector<int64_t> times,
                   FirstByteTimes(server->Port("HTTP"), request, rounds, kPauseNs));
  std::sort(times.begin(), times.end());
  samples_.Add("first_token.p50", static_cast<double>(times[times.size() / 2]) * 1e-3);
  samples_.Add("first_token.p99", static_cast<double>(times[times.size() * 99 / 100]) * 1e-3);
  return absl::OkStatus();
}

absl::Status Bench::Total(const std::string& name, const Server& server, size_t streams,
                          uint32_t tokens, const std::string& stream_options) {
  const uint16_t port = server->Port("HTTP");
  RETURN_IF_ERROR(ReadStreams(port, streams, kCompletions, Body(500, stream_options)).status());
  const int64_t server_before = server->Cpu();
  const int64_t client_before = OwnCpu();
  ASSIGN_OR_RETURN(const auto seen,
                   ReadStreams(port, streams, kCompletions, Body(tokens, stream_options)));
  const double server_cpu = static_cast<double>(server->Cpu() - server_before);
  const double client_cpu = static_cast<double>(OwnCpu() - client_before);
  int64_t from = INT64_MAX;
  int64_t to = 0;
  uint64_t events = 0;
  for (const StreamSeen& stream : seen) {
    from = std::min(from, stream.sent_ns);
    to = std::max(to, stream.last_ns);
    events += stream.events;
  }
  const double total = static_cast<double>(tokens) * static_cast<double>(streams);
  samples_.Add(name + ".rate", total / (static_cast<double>(to - from) * 1e-9));
  samples_.Add(name + ".server_cpu_per_token", server_cpu / total * 1e-3);
  samples_.Add(name + ".client_cpu_per_token", client_cpu / total * 1e-3);
  samples_.Add(name + ".tokens_per_event", total / static_cast<double>(events));
  return absl::OkStatus();
}

absl::Status Bench::ManyStreams() {
  const auto tokens = static_cast<uint32_t>(options_.seconds * 15'000);
  {
    ASSIGN_OR_RETURN(const Server server, Serve(kUnlimited));
    RETURN_IF_ERROR(Total("64_streams", server, 64, tokens, ""));
  }
  const absl::StatusOr<Server> null_server = NullServer();
  if (!null_server.ok()) return absl::OkStatus();
  Samples own;
  std::swap(own, samples_);
  const absl::Status status = Total("null", *null_server, 64, tokens, "");
  std::swap(own, samples_);
  RETURN_IF_ERROR(status);
  const double rate = own.Find("null.rate")->back();
  samples_.Add("64_streams.null_server", rate);
  samples_.Add("64_streams.share_of_null_server", samples_.Find("64_streams.rate")->back() / rate);
  return absl::OkStatus();
}

absl::Status Bench::MergedStreams() {
  ASSIGN_OR_RETURN(const Server server, Serve(kUnlimited));
  const auto tokens = static_cast<uint32_t>(std::min(options_.seconds * 50'000, 130'000.0));
  return Total("64_merged", server, 64, tokens, R"("merge_events":true)");
}

absl::Status Bench::PacedStreams() {
  constexpr size_t kStreams = 512;
  ASSIGN_OR_RETURN(const Server server,
                   Serve(kPaced, {"timing.decode_rate=1000", "timing.pipeline_depth=512",
                                  "timing.prefill_fixed=1", "timing.prefill_per_token=0",
                                  "limits.max_sequences=512"}));
  const auto tokens = static_cast<uint32_t>(2 * RunNs() / 1'000'000);
  const uint16_t port = server->Port("HTTP");
  const int64_t cpu_before = server->Cpu();
  const int64_t begin = NowNanos();
  ASSIGN_OR_RETURN(const auto seen, ReadStreams(port, kStreams, kCompletions, Body(tokens)));
  const double cpu = static_cast<double>(server->Cpu() - cpu_before);
  samples_.Add("512_paced.server_cpu", cpu / static_cast<double>(NowNanos() - begin) * 100);
  double slowest = 1e9;
  double fastest = 0;
  uint64_t events = 0;
  uint64_t reads = 0;
  for (const StreamSeen& stream : seen) {
    const double rate = static_cast<double>(tokens) /
                        (static_cast<double>(stream.last_ns - stream.first_ns) * 1e-9);
    slowest = std::min(slowest, rate);
    fastest = std::max(fastest, rate);
    events += stream.events;
    reads += stream.reads;
  }
  samples_.Add("512_paced.pace", slowest / 1000);
  samples_.Add("512_paced.fairness_max_over_min", fastest / slowest);
  samples_.Add("512_paced.events_per_read",
               static_cast<double>(events) / static_cast<double>(reads));
  return absl::OkStatus();
}

absl::Status Bench::Exchanges(const std::string& name, const Server& server, const char* path,
                              const std::string& body) {
  struct Start {
    const Server& server;
    int64_t cpu = 0;
  } start{server};
  ASSIGN_OR_RETURN(
      const ExchangeRate rate,
      Exchange(
          server->Port("HTTP"), 64, HttpRequestText("POST", path, body), kSecondNs / 4, RunNs(),
          [](void* argument) {
            auto* begun = static_cast<Start*>(argument);
            begun->cpu = begun->server->Cpu();
          },
          &start));
  if (rate.failures > 0) return UnavailableError("%d requests were refused", rate.failures);
  const auto replies = static_cast<double>(rate.replies);
  samples_.Add(name + ".requests", replies / (static_cast<double>(rate.spent_ns) * 1e-9));
  samples_.Add(name + ".server_cpu_per_request",
               static_cast<double>(server->Cpu() - start.cpu) / replies * 1e-3);
  return absl::OkStatus();
}

absl::Status Bench::OneToken() {
  const std::string body =
      R"({"prompt":")" + std::string(kPrompt) + R"(","temperature":0,"max_tokens":1})";
  {
    ASSIGN_OR_RETURN(const Server server, Serve(kUnlimited));
    RETURN_IF_ERROR(Exchanges("one_token", server, kCompletions, body));
    RETURN_IF_ERROR(Exchanges("one_token_chat", server, kChat,
                              R"({"messages":[{"role":"user","content":")" + std::string(kPrompt) +
                                  R"("}],"temperature":0,"max_tokens":1})"));
  }
  const absl::StatusOr<Server> null_server = NullServer();
  if (!null_server.ok()) return absl::OkStatus();
  Samples own;
  std::swap(own, samples_);
  const absl::Status status = Exchanges("null", *null_server, kCompletions, body);
  std::swap(own, samples_);
  RETURN_IF_ERROR(status);
  samples_.Add("one_token.null_server", own.Find("null.requests")->back());
  return absl::OkStatus();
}

absl::Status Bench::Idle() {
  ASSIGN_OR_RETURN(const Server server, Serve(kUnlimited));
  RETURN_IF_ERROR(ReadStreams(server->Port("HTTP"), 1, kCompletions, Body(1000)).status());
  const int64_t before = server->Cpu();
  const int64_t begin = NowNanos();
  std::this_thread::sleep_for(std::chrono::nanoseconds(RunNs()));
  samples_.Add("idle.cpu", static_cast<double>(server->Cpu() - before) /
                               static_cast<double>(NowNanos() - begin) * 100);
  return absl::OkStatus();
}

absl::Status Bench::IdleConnections() {
  constexpr size_t kConnections = 10'000;
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);  // the server inherits it
  if (files.rlim_cur < kConnections + 100) {
    notes_.push_back("idle_connections: the limit of open files is too low");
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const Server server, Serve(kUnlimited));
  const uint16_t port = server->Port("HTTP");
  const std::string request = HttpRequestText("GET", "/health/live", "");
  RETURN_IF_ERROR(Fetch(port, "GET", "/health/live", "").status());
  const int64_t resident = server->Resident();
  std::vector<Socket> sockets;
  char reply[1024];
  for (size_t i = 0; i < kConnections; ++i) {
    ASSIGN_OR_RETURN(Socket socket, Socket::Connect(port));
    RETURN_IF_ERROR(socket.Send(request));
    if (recv(socket.fd(), reply, sizeof(reply), 0) <= 0) return UnavailableError("no reply");
    sockets.push_back(std::move(socket));
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  samples_.Add("idle_connections.memory_each",
               static_cast<double>(server->Resident() - resident) / kConnections);
  const int64_t before = server->Cpu();
  const int64_t begin = NowNanos();
  std::this_thread::sleep_for(std::chrono::nanoseconds(RunNs()));
  samples_.Add("idle_connections.cpu", static_cast<double>(server->Cpu() - before) /
                                           static_cast<double>(NowNanos() - begin) * 100);
  return absl::OkStatus();
}

absl::Status Bench::Run() {
  for (const Scenario& scenario : kScenarios) {
    const bool wanted =
        options_.only.empty() ||
        std::find(options_.only.begin(), options_.only.end(), scenario.name) != options_.only.end();
    for (int i = 0; wanted && i < options_.repeats; ++i) {
      std::fprintf(stderr, "%s %d/%d\n", scenario.name, i + 1, options_.repeats);
      if (absl::Status status = (this->*scenario.run)(); !status.ok()) {
        return UnavailableError("%s: %s", scenario.name, status.message());
      }
    }
  }
  return absl::OkStatus();
}

Report Bench::MakeReport() const {
  Report report;
  for (const Meaning& meaning : kMeanings) {
    const std::vector<double>* const values = samples_.Find(meaning.name);
    if (values == nullptr) continue;
    report.Add(meaning.name, meaning.unit, meaning.higher_is_better, *values, meaning.goal);
  }
  for (const std::string& note : notes_) report.Note(note);
  return report;
}

std::string Now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof(text), "%Y%m%dT%H%M%SZ", &parts);
  return text;
}

}  // namespace

int RunBench(const std::vector<std::string>& arguments) {
  BenchOptions options;
  CLI::App app("Measures the server's own cost", "reticle bench");
  CLI::App* const serve = app.add_subcommand("serve", "Server and client in one run");
  serve->add_option("--repeats", options.repeats, "Runs of each scenario; medians are given")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  serve->add_option("--seconds", options.seconds, "Length of each measurement")
      ->capture_default_str()
      ->check(CLI::Range(0.1, 600.0));
  serve->add_option("--out", options.folder, "Folder of the JSON files")->capture_default_str();
  serve->add_option("--only", options.only, "These scenarios only; repeatable");
  serve
      ->add_flag("--pin,!--no-pin", options.pin, "A core for the server and another for the client")
      ->default_str("true");
  app.require_subcommand(1);
  try {
    std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
    app.parse(reversed);
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  }

  Bench bench(options);
  const absl::Status status = bench.Run();
  const Report report = bench.MakeReport();
  if (!report.figures().empty()) {
    std::error_code ignored;
    std::filesystem::create_directories(options.folder, ignored);
    const std::string last = LastReport(options.folder);
    const std::string when = Now();
    std::printf("%s", report.Table(ReadReport(last)).c_str());
    const std::string path = options.folder + "/serve-" + when + ".json";
    std::ofstream(path) << report.Json(when);
    std::printf("written to %s%s%s\n", path.c_str(), last.empty() ? "" : ", compared with ",
                last.c_str());
  }
  if (!status.ok()) {
    std::fprintf(stderr, "reticle bench: %s\n", std::string(status.message()).c_str());
    return 1;
  }
  return 0;
}

}  // namespace reticle::server::bench
