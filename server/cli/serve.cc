#include "server/cli/serve.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "server/cli/admin.h"
#include "server/http/http_server.h"
#include "server/tenants/accounts.h"

namespace reticle::server::cli {
namespace {

constexpr int64_t kPollNs = 20'000'000;

LogLevel ParseLogLevel(const std::string& name) {
  if (name == "debug") return LogLevel::kDebug;
  if (name == "warning") return LogLevel::kWarning;
  if (name == "error") return LogLevel::kError;
  if (name == "off") return LogLevel::kOff;
  return LogLevel::kInfo;
}

// SIGTERM and SIGINT, taken by asking for them.
class Signals {
 public:
  Signals() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGTERM);
    sigaddset(&set_, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
  }
  // Whether one came within `timeout_ns`.
  bool Wait(int64_t timeout_ns) {
    const timespec timeout{.tv_sec = timeout_ns / 1'000'000'000,
                           .tv_nsec = timeout_ns % 1'000'000'000};
    return sigtimedwait(&set_, nullptr, &timeout) > 0;
  }
  void WaitForEver() {
    int signal = 0;
    while (sigwait(&set_, &signal) != 0) {
    }
  }

 private:
  sigset_t set_;
};

absl::StatusOr<std::unique_ptr<tenants::Accounts>> OpenAccounts(const ServeOptions& options,
                                                                ServerProbe* probe) {
  tenants::AccountsOptions accounts;
  accounts.store = options.tenants_store;
  accounts.secret_file = options.tenants_secret;
  accounts.auto_approve_per_day = options.auto_approve_per_day;
  accounts.applications_per_hour = options.applications_per_hour;
  accounts.redis = options.redis;
  for (const std::string& limit : options.tier_limits) {
    RETURN_IF_ERROR(accounts.tiers.Set(limit));
  }
  return tenants::Accounts::Open(std::move(accounts), Clock::Monotonic(), probe);
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "reticle serve: %s\n", std::string(status.message()).c_str());
  return 1;
}

void PrintInvitation(const http::HttpServer* http, const Front* grpc, const std::string& model) {
  if (http != nullptr) {
    const std::string url = http->address();
    std::printf(
        "\nTry it:\n"
        "  curl -N %s/v1/chat/completions -H 'Content-Type: application/json' -d "
        "'{\"model\":\"%s\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"Who are "
        "you?\"}]}'\n",
        url.c_str(), model.c_str());
    std::printf(
        "  node -e \"new (require('openai'))({baseURL:'%s/v1',apiKey:'none'}).chat.completions"
        ".create({model:'%s',messages:[{role:'user',content:'Who are you?'}]}).then(r=>"
        "console.log(r.choices[0].message.content))\"\n",
        url.c_str(), model.c_str());
  }
  if (grpc != nullptr) {
    std::printf(
        "  grpcurl -plaintext -d '{\"model\":\"%s\",\"prompt\":\"Hello\"}' %s "
        "reticle.v1.InferenceService/GenerateStream\n",
        model.c_str(), grpc->address().c_str());
  }
  std::fflush(stdout);
}

}  // namespace

int Serve(const ServeOptions& options, const ServeParts& parts) {
  Signals signals;
  SetLogLevel(ParseLogLevel(options.log_level));

  std::unique_ptr<tenants::Accounts> accounts;
  if (options.tenants) {
    auto opened = OpenAccounts(options, parts.server_probe);
    if (!opened.ok()) return Fail(opened.status());
    accounts = *std::move(opened);
  }
  std::atomic<LoadedModel*> live{nullptr};
  ServerContext::Options context_options;
  context_options.render_metrics = parts.render_metrics;
  context_options.gate = accounts.get();
  context_options.public_metrics = options.public_metrics;
  context_options.queue_size = [&live] {
    int64_t waiting = 0;
    if (LoadedModel* const loaded_model = live.load(std::memory_order_acquire)) {
      for (const auto& group : loaded_model->groups()) {
        waiting += group->dispatcher().Gauges().waiting;
      }
    }
    return waiting;
  };
  context_options.current_adapter = [&live]() -> std::string {
    LoadedModel* const loaded_model = live.load(std::memory_order_acquire);
    if (loaded_model == nullptr) return "";
    return loaded_model->AdaptersOn(*loaded_model->groups().front()->cards().front().engine);
  };
  ServerContext context(std::move(context_options), Clock::Monotonic(), parts.server_probe);
  // Destroyed in reverse: the fronts, with what they still generate, before the engines.
  std::unique_ptr<LoadedModel> model;
  std::unique_ptr<http::HttpServer> http;
  std::unique_ptr<Front> grpc;
  std::unique_ptr<Admin> admin;

  if (options.http != "none") {
    auto started = http::HttpServer::Start(options.http_options, context);
    if (!started.ok()) return Fail(started.status());
    http = *std::move(started);
    std::printf("HTTP  %s\n", http->address().c_str());
  }
  if (options.grpc != "none" && parts.start_grpc) {
    auto started = parts.start_grpc(*ParseHostPort(options.grpc), context, http.get());
    if (!started.ok()) return Fail(started.status());
    grpc = *std::move(started);
    std::printf("gRPC  %s\n", grpc->address().c_str());
  }
  std::fflush(stdout);

  absl::StatusOr<std::unique_ptr<LoadedModel>> loaded = absl::UnknownError("not loaded");
  std::atomic<bool> load_done{false};
  std::thread loader([&] {
    loaded = LoadedModel::Load(options, parts.devices, Clock::Monotonic(), parts.add_engine,
                               context.models(), http.get());
    load_done.store(true, std::memory_order_release);
  });
  while (!load_done.load(std::memory_order_acquire)) {
    // Nothing can be lost yet, and loading cannot be interrupted.
    if (signals.Wait(kPollNs)) _exit(0);
  }
  loader.join();
  if (!loaded.ok()) return Fail(loaded.status());
  model = *std::move(loaded);
  live.store(model.get(), std::memory_order_release);
  if (parts.on_model) parts.on_model(model.get());
  if (options.admin != "none") {
    auto started = Admin::Start(options, *model, context, accounts.get());
    if (!started.ok()) return Fail(started.status());
    admin = *std::move(started);
    std::printf("Admin %s\n", admin->address().c_str());
  }
  context.SetReady([served = model.get()] { return served->Works(); });
  if (http != nullptr) http->OnReady();
  if (grpc != nullptr) grpc->OnReady();
  std::printf("Model %s\n", model->Describe().c_str());
  PrintInvitation(http.get(), grpc.get(), model->id());

  signals.WaitForEver();
  LogInfo("draining: %d requests are running; a second signal ends the process at once",
          context.active_generations());
  context.BeginDrain();
  if (http != nullptr) http->BeginDrain();
  if (grpc != nullptr) grpc->BeginDrain();
  const auto busy = [&] {
    return context.active_generations() + (http != nullptr ? http->busy() : 0) +
           (grpc != nullptr ? grpc->busy() : 0);
  };
  const int64_t give_up_ns =
      Clock::Monotonic().NowNanos() + options.drain_timeout_s * 1'000'000'000;
  while (busy() > 0 && Clock::Monotonic().NowNanos() < give_up_ns) {
    if (signals.Wait(kPollNs) && busy() > 0) {
      LogWarning("second signal: %d requests are cut off", busy());
      _exit(130);
    }
  }
  if (busy() > 0) LogWarning("drain time-out: %d requests are cut off", busy());
  // Its orders may wait for engines that the HTTP loops step.
  admin.reset();
  grpc.reset();
  http.reset();
  if (parts.on_model) parts.on_model(nullptr);
  live.store(nullptr, std::memory_order_release);
  model.reset();
  LogInfo("drained");
  return 0;
}

}  // namespace reticle::server::cli
