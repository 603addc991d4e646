#include "loadtest/runner.h"

#include <sys/prctl.h>
#include <sys/resource.h>

#include <algorithm>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "loadtest/driver.h"
#include "loadtest/preflight.h"
#include "loadtest/process_usage.h"
#include "loadtest/text.h"

namespace reticle::loadtest {
namespace {

constexpr int64_t kWatchNs = 50'000'000;
constexpr int64_t kProgressNs = 1'000'000'000;
constexpr int64_t kMostIntervals = 300;
constexpr int64_t kLeastIntervalNs = 250'000'000;
// Threads start a moment after the run's time 0 is fixed, so that none is late.
constexpr int64_t kStartDelayNs = 20'000'000;

int64_t Now() { return Clock::Monotonic().NowNanos(); }
int64_t Load(const std::atomic<int64_t>& value) { return value.load(std::memory_order_relaxed); }

// One client thread with what it measures.
struct Client {
  std::unique_ptr<Recorder> recorder;
  std::unique_ptr<Driver> driver;
  std::atomic<bool> done{false};
  std::thread thread;  // last: runs over the others
};

void RaiseFileLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// Says so when the run ends before its trace does.
std::string LateEntries(const Scenario& scenario, const Trace* trace) {
  if (trace == nullptr) return "";
  const double end_ms = static_cast<double>(scenario.duration_ns) / 1e6 * scenario.trace_speed;
  const auto late =
      std::count_if(trace->entries.begin(), trace->entries.end(),
                    [&](const TraceEntry& entry) { return entry.timestamp_ms >= end_ms; });
  if (late == 0) return "";
  return absl::StrFormat("%d of the trace's %d requests lie behind --duration and were not sent",
                         late, trace->entries.size());
}

std::string ProgressLine(const std::vector<std::unique_ptr<Client>>& clients,
                         const Scenario& scenario, double elapsed_s, double events_per_s) {
  int64_t sent = 0;
  int64_t succeeded = 0;
  int64_t failed = 0;
  int64_t ttft_p50 = 0;
  int64_t ttft_p99 = 0;
  int64_t lag = 0;
  for (const auto& client : clients) {
    const LiveCounters& live = client->recorder->live();
    sent += Load(live.sent);
    succeeded += Load(live.succeeded);
    failed += Load(live.failed);
    ttft_p50 = std::max(ttft_p50, Load(live.ttft_p50_ns));
    ttft_p99 = std::max(ttft_p99, Load(live.ttft_p99_ns));
    lag = std::max(lag, Load(live.loop_lag_p99_ns));
  }
  const double total_s = static_cast<double>(scenario.duration_ns) / 1e9;
  std::string line =
      absl::StrFormat("%4.0f/%.0fs  sent %d  ok %d", elapsed_s, total_s, sent, succeeded);
  if (failed > 0) line += absl::StrFormat("  failed %d", failed);
  line +=
      absl::StrFormat("  running %d  %s events/s  TTFT p50 %s p99 %s  lag p99 %s",
                      std::max<int64_t>(sent - succeeded - failed, 0), FormatCount(events_per_s),
                      FormatNs(static_cast<double>(ttft_p50)),
                      FormatNs(static_cast<double>(ttft_p99)), FormatNs(static_cast<double>(lag)));
  if (elapsed_s < static_cast<double>(scenario.warmup_ns) / 1e9) line += "  (warm-up)";
  if (elapsed_s > total_s) line += "  (draining)";
  return line;
}

// CPU time of the client and the server over the window, sampled by the watching thread.
class WindowCpu {
 public:
  explicit WindowCpu(int64_t server_pid) : server_pid_(server_pid) {}

  void Update(bool in_window) {
    if (in_window == measuring_) return;
    measuring_ = in_window;
    const double sign = in_window ? -1 : 1;
    client_s_ += sign * ProcessCpuSeconds();
    if (server_pid_ == 0) return;
    const std::optional<double> server_s = ProcessCpuSeconds(server_pid_);
    lost_ = lost_ || !server_s.has_value();
    server_s_ += sign * server_s.value_or(0);
  }

  double client_s() const { return client_s_; }
  std::optional<double> server_s() const {
    return server_pid_ == 0 || lost_ ? std::nullopt : std::optional<double>(server_s_);
  }

 private:
  const int64_t server_pid_;
  bool measuring_ = false;
  bool lost_ = false;
  double client_s_ = 0;
  double server_s_ = 0;
};

void Watch(const std::vector<std::unique_ptr<Client>>& clients, const Scenario& scenario,
           const RunOptions& options, const Recorder::Options& window, RunControl& control,
           WindowCpu& cpu) {
  int64_t next_progress_ns = window.start_ns + kProgressNs;
  int64_t last_ns = window.start_ns;
  int64_t last_events = 0;
  const auto all_done = [&] {
    return std::all_of(clients.begin(), clients.end(), [](const auto& client) {
      return client->done.load(std::memory_order_acquire);
    });
  };
  while (!all_done()) {
    std::this_thread::sleep_for(std::chrono::nanoseconds(kWatchNs));
    const int64_t now_ns = Now();
    cpu.Update(now_ns >= window.window_begin_ns && now_ns < window.window_end_ns);
    if (options.interrupted != nullptr && options.interrupted->load(std::memory_order_relaxed)) {
      control.stop.store(true, std::memory_order_relaxed);
    }
    if (now_ns < next_progress_ns || !options.on_progress) continue;
    next_progress_ns += kProgressNs;
    int64_t events = 0;
    for (const auto& client : clients) events += Load(client->recorder->live().events);
    const double events_per_s =
        static_cast<double>(events - last_events) * 1e9 / static_cast<double>(now_ns - last_ns);
    last_ns = now_ns;
    last_events = events;
    options.on_progress(ProgressLine(
        clients, scenario, static_cast<double>(now_ns - window.start_ns) / 1e9, events_per_s));
  }
  cpu.Update(false);
}

}  // namespace

absl::StatusOr<Report> RunScenario(const Scenario& scenario, const RunOptions& options) {
  RaiseFileLimit();
  Report report;
  ASSIGN_OR_RETURN(const std::unique_ptr<Workload> workload, Workload::Create(scenario));
  ASSIGN_OR_RETURN(const Target target, FindTarget(scenario));
  if (scenario.calibrate && scenario.source == PromptSource::kSynthetic) {
    std::string note;
    workload->set_word_scale(CalibrateWords(scenario, target, note));
    report.notes.push_back(std::move(note));
  }

  if (std::string note = LateEntries(scenario, workload->trace()); !note.empty()) {
    report.notes.push_back(std::move(note));
  }
  const bool grpc = target.endpoint.protocol == Protocol::kGrpc;
  const BodyWriter body(scenario, target.model);
  RunControl control;
  control.requests_left = scenario.requests;
  Recorder::Options window;
  window.start_ns = Now() + kStartDelayNs;
  window.window_begin_ns = window.start_ns + scenario.warmup_ns;
  window.window_end_ns = window.start_ns + scenario.duration_ns;
  window.interval_ns =
      std::max(kLeastIntervalNs, scenario.duration_ns / kMostIntervals / 250'000'000 * 250'000'000);
  window.slo = scenario.slos.request;
  window.expect_exact_length = scenario.ignore_eos;

  std::vector<std::unique_ptr<Client>> clients;
  const Driver::MakeTransport make_transport = TransportMaker(scenario, target);
  for (int64_t t = 0; t < scenario.threads; ++t) {
    auto client = std::make_unique<Client>();
    client->recorder = std::make_unique<Recorder>(window);
    ASSIGN_OR_RETURN(client->driver, Driver::Create({.scenario = &scenario,
                                                     .workload = workload.get(),
                                                     .body = grpc ? nullptr : &body,
                                                     .control = &control,
                                                     .thread = t,
                                                     .start_ns = window.start_ns},
                                                    *client->recorder, make_transport));
    clients.push_back(std::move(client));
  }
  report.started_unix_s = UnixSeconds();
  for (const auto& client : clients) {
    client->thread = std::thread([&client = *client] {
      prctl(PR_SET_TIMERSLACK, 1UL);
      client.driver->Run();
      client.done.store(true, std::memory_order_release);
    });
  }
  WindowCpu cpu(options.server_pid);
  Watch(clients, scenario, options, window, control, cpu);

  Recorder all(window);
  int64_t end_ns = window.start_ns;
  for (const auto& client : clients) {
    client->thread.join();
    all.Merge(*client->recorder);
    end_ns = std::max(end_ns, client->driver->end_ns());
    const Driver::Usage& usage = client->driver->usage();
    ClientThread thread;
    if (usage.wall_s > 0) {
      thread.cpu_share = usage.cpu_s / usage.wall_s;
      thread.wait_share = usage.wait_s / usage.wall_s;
      thread.busy_share = usage.busy_s / usage.wall_s;
      thread.wake_delay_ns = usage.runs > 0 ? usage.wait_s * 1e9 / usage.runs : 0;
    }
    report.threads.push_back(thread);
  }
  report.name = scenario.name;
  report.description = scenario.description;
  report.url = scenario.url;
  report.model = target.model;
  report.version = options.version;
  report.interrupted = control.stop.load();
  report.wall_s = static_cast<double>(end_ns - window.start_ns) / 1e9;
  report.window_begin_s = static_cast<double>(scenario.warmup_ns) / 1e9;
  report.window_s = std::max(
      0.0,
      static_cast<double>(std::min(end_ns, window.window_end_ns) - window.window_begin_ns) / 1e9);
  Scenario copy = scenario;
  for (const Setting& setting : ScenarioSettings(copy)) {
    if (setting.flag == "--api-key" || setting.is_list) continue;
    report.settings.emplace_back(setting.flag, setting.default_text);
  }
  report.spin = scenario.spin;
  report.client_cpu_s = cpu.client_s();
  report.server_cpu_s = cpu.server_s();
  FillReport(all, report);
  report.slos =
      JudgeSlos(scenario.slos, [&](std::string_view metric) { return report.Value(metric); });
  return report;
}

}  // namespace reticle::loadtest
