#include "server/cli/load.h"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <fstream>

#include "base/file.h"
#include "base/status.h"
#include "loadtest/compare.h"
#include "loadtest/report.h"
#include "loadtest/runner.h"
#include "server/cli/load_options.h"

namespace reticle::server::cli {
namespace {

std::atomic<bool> interrupted{false};

// The first signal ends the run with its report, the second ends the process.
void HandleSignal(int signal_number) {
  interrupted.store(true, std::memory_order_relaxed);
  std::signal(signal_number, SIG_DFL);
}

void HandleSignals() {
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGINT, HandleSignal);
  std::signal(SIGTERM, HandleSignal);
}

int Complain(const absl::Status& status, int exit) {
  std::fprintf(stderr, "reticle load: %s\n", std::string(status.message()).c_str());
  return exit;
}

absl::Status WriteFile(const std::string& path, const std::string& text) {
  if (path == "-") {
    std::fputs(text.c_str(), stdout);
    return absl::OkStatus();
  }
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  return file ? absl::OkStatus() : InternalError("%s cannot be written", path);
}

int ListScenarios() {
  for (const loadtest::BuiltInScenario& built_in : loadtest::BuiltInScenarios()) {
    loadtest::Scenario scenario;
    const absl::Status status = loadtest::LoadScenarioByName(std::string(built_in.name), scenario);
    if (!status.ok()) return Complain(status, kLoadUsage);
    std::printf("%-20s %s\n", scenario.name.c_str(), scenario.description.c_str());
  }
  return kLoadOk;
}

int RunNullServer(const LoadOptions& options) {
  const auto server = loadtest::NullServer::Start(options.null_server);
  if (!server.ok()) return Complain(server.status(), kLoadUsage);
  std::printf("HTTP  http://%s:%d\n", options.null_server.host.c_str(), (*server)->port());
  std::fflush(stdout);
  while (!interrupted.load(std::memory_order_relaxed)) usleep(20'000);
  return kLoadOk;
}

int RunCompare(const LoadOptions& options) {
  const auto before = ReadFile("report", options.compare[0]);
  if (!before.ok()) return Complain(before.status(), kLoadUsage);
  const auto after = ReadFile("report", options.compare[1]);
  if (!after.ok()) return Complain(after.status(), kLoadUsage);
  const auto comparison =
      loadtest::CompareReports(*before, options.compare[0], *after, options.compare[1]);
  if (!comparison.ok()) return Complain(comparison.status(), kLoadUsage);
  std::fputs(loadtest::FormatComparison(*comparison, isatty(STDOUT_FILENO) == 1).c_str(), stdout);
  if (options.max_regression < 0) return kLoadOk;
  const auto regressions = comparison->Regressions(options.max_regression);
  for (const loadtest::ComparedMetric* metric : regressions) {
    std::printf("regression: %s is %.1f %% worse\n", metric->name.c_str(), metric->worse * 100);
  }
  return regressions.empty() ? kLoadOk : kLoadMissed;
}

int ExitStatus(const loadtest::Report& report) {
  const auto refused = report.errors.find("no connection");
  if (report.successes + report.disconnects == 0 && report.requests > 0) {
    return refused != report.errors.end() && refused->second == report.requests ? kLoadNoServer
                                                                                : kLoadMissed;
  }
  if (report.AllSlosMet()) return kLoadOk;
  return report.client.bottleneck ? kLoadNoVerdict : kLoadMissed;
}

int RunScenario(const LoadOptions& options, const std::string& version) {
  loadtest::RunOptions run;
  run.interrupted = &interrupted;
  run.server_pid = options.server_pid;
  run.version = version;
  const bool terminal = isatty(STDERR_FILENO) == 1;
  bool line_open = false;
  if (options.progress) {
    run.on_progress = [&](const std::string& line) {
      std::fprintf(stderr, terminal ? "\r\033[K%s" : "%s\n", line.c_str());
      std::fflush(stderr);
      line_open = terminal;
    };
  }
  const auto report = loadtest::RunScenario(options.scenario, run);
  if (line_open) std::fputs("\r\033[K", stderr);
  if (!report.ok()) {
    const bool no_server = absl::IsUnavailable(report.status()) ||
                           (absl::IsNotFound(report.status()) && options.scenario.trace.empty() &&
                            options.scenario.dataset.empty());
    return Complain(report.status(), no_server ? kLoadNoServer : kLoadUsage);
  }
  if (!options.quiet) {
    std::FILE* const out = options.json_path == "-" ? stderr : stdout;
    std::fputs(loadtest::FormatTable(*report, isatty(fileno(out)) == 1).c_str(), out);
  }
  if (!options.json_path.empty()) {
    const absl::Status status = WriteFile(options.json_path, loadtest::FormatJson(*report));
    if (!status.ok()) return Complain(status, kLoadUsage);
  }
  if (!options.html_path.empty()) {
    const absl::Status status = WriteFile(options.html_path, loadtest::FormatPage(*report));
    if (!status.ok()) return Complain(status, kLoadUsage);
  }
  return ExitStatus(*report);
}

}  // namespace

int RunLoad(const std::vector<std::string>& arguments, const std::string& version) {
  LoadOptions options;
  if (const auto exit = ParseLoadArguments(arguments, options); exit.has_value()) {
    return Finish(*exit);
  }
  HandleSignals();
  switch (options.mode) {
    case LoadOptions::Mode::kListScenarios:
      return ListScenarios();
    case LoadOptions::Mode::kNullServer:
      return RunNullServer(options);
    case LoadOptions::Mode::kCompare:
      return RunCompare(options);
    case LoadOptions::Mode::kRun:
      break;
  }
  return RunScenario(options, version);
}

}  // namespace reticle::server::cli
