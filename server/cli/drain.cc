#include "server/cli/drain.h"

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <thread>

#include "base/clock.h"
#include "base/status.h"
#include "server/cli/chat_client.h"
#include "server/cli/command_line.h"

namespace reticle::server::cli {
namespace {

constexpr std::chrono::milliseconds kAskAgain{100};

struct DrainOptions {
  std::string admin = "127.0.0.1:9090";
  std::string token;
  std::string token_file;
  int64_t delay_ms = -1;
  int64_t wait_s = 60;
  bool until_gone = false;
};

absl::StatusOr<std::string> Token(const DrainOptions& options) {
  if (options.token_file.empty()) return options.token;
  std::ifstream file(options.token_file);
  std::string token;
  if (!std::getline(file, token)) {
    return InvalidArgumentError("--token-file %s cannot be read", options.token_file);
  }
  return token;
}

absl::Status Drain(const DrainOptions& options) {
  ASSIGN_OR_RETURN(const std::string token, Token(options));
  ASSIGN_OR_RETURN(const ChatUrl url, ParseChatUrl(options.admin));
  const ChatClient client(url, token);
  const std::atomic<bool> stop{false};
  const std::string body =
      options.delay_ms < 0 ? "{}" : absl::StrFormat(R"({"delay_ms":%d})", options.delay_ms);
  ASSIGN_OR_RETURN(const ChatReply reply, client.Send("/admin/drain", body, nullptr, stop));
  if (reply.status != 202) {
    return FailedPreconditionError("the server answers %d: %s", reply.status, reply.body);
  }
  const int64_t end_ns = Clock::Monotonic().NowNanos() + options.wait_s * 1'000'000'000;
  for (;;) {
    const absl::StatusOr<ChatReply> state = client.Send("/admin/state", "", nullptr, stop);
    if (!state.ok()) return absl::OkStatus();  // it is gone
    if (!options.until_gone && state->status == 200 &&
        state->body.find(R"("admitting":false)") != std::string::npos) {
      return absl::OkStatus();
    }
    if (Clock::Monotonic().NowNanos() > end_ns) {
      return DeadlineExceededError("it has not drained within %d s", options.wait_s);
    }
    std::this_thread::sleep_for(kAskAgain);
  }
}

}  // namespace

int RunDrain(const std::vector<std::string>& arguments) {
  DrainOptions options;
  CLI::App app("Asks a running server to drain, and waits until it takes nothing new",
               "reticle drain");
  app.add_option("--admin", options.admin, "HOST:PORT or URL of its admin listener")
      ->capture_default_str();
  app.add_option("--token", options.token, "Bearer token that the listener asks for");
  app.add_option("--token-file", options.token_file, "File that holds it");
  app.add_option("--delay-ms", options.delay_ms,
                 "Time in which it still takes what comes; -1: its own --drain-delay-ms")
      ->capture_default_str();
  app.add_option("--wait", options.wait_s, "Longest time to wait, seconds")->capture_default_str();
  app.add_flag("--until-gone", options.until_gone, "Wait until the process has ended");
  if (const auto exit = ParseArguments(app, arguments); exit.has_value()) return Finish(*exit);
  const absl::Status status = Drain(options);
  if (status.ok()) return 0;
  std::fprintf(stderr, "reticle drain: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace reticle::server::cli
