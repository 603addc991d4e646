#include "server/cli/serve.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <map>
#include <optional>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "server/cli/admin.h"
#include "server/cli/control.h"
#include "server/cli/reload.h"
#include "server/cli/service_manager.h"
#include "server/http/http_server.h"
#include "server/telemetry/telemetry.h"
#include "server/tenants/accounts.h"

namespace reticle::server::cli {
namespace {

constexpr int64_t kPollMs = 20;
constexpr int64_t kTickMs = 200;
constexpr int64_t kSettleMs = 100;
constexpr int64_t kNsPerMs = 1'000'000;
// For clients whose connections were accepted last to send their requests, and be told to go.
constexpr int64_t kLastConnectionsMs = 1000;
// Shortest delay of a process that hands its listeners over, for clients to hear on their kept
// connections that these end; and the longest that it waits for those that have just connected, who
// are its own to serve.
constexpr int64_t kHandOverMs = 1000;
constexpr int64_t kFirstWordsMs = 5000;
constexpr int64_t kFlushNs = 1'000'000'000;

absl::StatusOr<std::unique_ptr<tenants::Accounts>> OpenAccounts(const ServeOptions& options,
                                                                ServerProbe* probe) {
  tenants::AccountsOptions accounts;
  accounts.store = options.tenants_store;
  accounts.secret_file = options.tenants_secret;
  accounts.auto_approve_per_day = options.auto_approve_per_day;
  accounts.applications_per_hour = options.applications_per_hour;
  accounts.redis = options.redis;
  ASSIGN_OR_RETURN(accounts.tiers, TiersOf(options));
  return tenants::Accounts::Open(std::move(accounts), Clock::Monotonic(), probe);
}

ServerProbe& SilentProbe() {
  static ServerProbe* const probe = new ServerProbe;
  return *probe;
}

[[noreturn]] void Leave(int status) {
  FlushLog(kFlushNs);
  _exit(status);
}

void PrintInvitation(const http::HttpServer* http, const Front* grpc, const std::string& model,
                     bool accounts) {
  if (http != nullptr) {
    const std::string url = http->address();
    if (accounts) {
      std::printf("\nKeys are applied for at %s/apply, or made by \"reticle keys create\".\n",
                  url.c_str());
    }
    std::printf(
        "\nTry it:\n"
        "  curl -N %s/v1/chat/completions %s-H 'Content-Type: application/json' -d "
        "'{\"model\":\"%s\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"Who are "
        "you?\"}]}'\n",
        url.c_str(), accounts ? "-H 'Authorization: Bearer KEY' " : "", model.c_str());
    std::printf(
        "  node -e \"new (require('openai'))({baseURL:'%s/v1',apiKey:'%s'}).chat.completions"
        ".create({model:'%s',messages:[{role:'user',content:'Who are you?'}]}).then(r=>"
        "console.log(r.choices[0].message.content))\"\n",
        url.c_str(), accounts ? "KEY" : "none", model.c_str());
  }
  if (grpc != nullptr) {
    std::printf(
        "  grpcurl -plaintext %s-d '{\"model\":\"%s\",\"prompt\":\"Hello\"}' %s "
        "reticle.v1.InferenceService/GenerateStream\n",
        accounts ? "-H 'authorization: Bearer KEY' " : "", model.c_str(), grpc->address().c_str());
  }
  std::fflush(stdout);
}

// A server process from its listeners to its end. Every step is taken by one thread.
class Process {
 public:
  Process(ServeOptions options, const ServeParts& parts)
      : options_(std::move(options)), parts_(parts) {}

  // Requires that no other thread exists.
  absl::Status Open();
  absl::Status Load();
  // Until the process is asked to end: returns what asked.
  Control::Event Serve();
  void Drain(Control::Event event);
  void Close();

 private:
  void OpenContext();
  int64_t WaitingRequests() const;
  absl::StatusOr<std::string> Reload();
  void Tick();
  // Of calls and connections, also those whose reply is not yet sent.
  int64_t Busy() const;
  // Waits for `done`, for at most `limit_ms`; a second signal ends the process while requests run,
  // and the waiting when none does.
  template <typename Done>
  void WaitFor(int64_t limit_ms, const Done& done);

  ServeOptions options_;
  const ServeParts& parts_;
  Control control_;
  bool handed_over_ = false;  // others accept, or will, from the same addresses
  bool told_serving_ = true;
  int signals_ = 0;

  // Destroyed in reverse: the fronts, with what they still generate, before the engines.
  std::unique_ptr<tenants::Accounts> accounts_;
  std::unique_ptr<Telemetry> telemetry_;
  std::atomic<LoadedModel*> live_{nullptr};
  std::optional<ServerContext> context_;
  std::unique_ptr<LoadedModel> model_;
  std::unique_ptr<http::HttpServer> http_;
  std::unique_ptr<Front> grpc_;
  std::optional<Reloader> reloader_;
  std::unique_ptr<Admin> admin_;
};

int64_t Process::WaitingRequests() const {
  int64_t waiting = 0;
  if (LoadedModel* const loaded_model = live_.load(std::memory_order_acquire)) {
    for (const auto& group : loaded_model->groups()) {
      waiting += group->dispatcher().Gauges().waiting;
    }
  }
  return waiting;
}

void Process::OpenContext() {
  ServerContext::Options options;
  options.render_metrics = parts_.render_metrics;
  options.gate = accounts_.get();
  options.listener = telemetry_.get();
  options.public_metrics = options_.public_metrics;
  options.queue_size = [this] { return WaitingRequests(); };
  options.current_adapter = [this]() -> std::string {
    LoadedModel* const model = live_.load(std::memory_order_acquire);
    if (model == nullptr) return "";
    return model->AdaptersOn(*model->groups().front()->cards().front().engine);
  };
  context_.emplace(std::move(options), Clock::Monotonic(), parts_.server_probe);
}

absl::Status Process::Open() {
  ASSIGN_OR_RETURN(const auto sockets, TakeInheritedSockets());
  handed_over_ = options_.http_options.reuse_port || !sockets.empty();
  for (const auto& [name, fd] : sockets) {
    if (name == "http") options_.http_options.inherited_fd = fd;
    if (name == "grpc") options_.grpc_fd = fd;
    if (name == "admin") options_.admin_fd = fd;
  }
  StartLog({.format = *ParseLogFormat(options_.log_format), .asynchronous = true});
  if (options_.tenants) {
    ASSIGN_OR_RETURN(accounts_, OpenAccounts(options_, parts_.server_probe));
  }
  ASSIGN_OR_RETURN(
      telemetry_,
      Telemetry::Create(TelemetryOptionsOf(options_, parts_.version), Clock::Monotonic(),
                        parts_.server_probe != nullptr ? *parts_.server_probe : SilentProbe()));
  OpenContext();
  if (options_.http != "none" || options_.http_options.inherited_fd >= 0) {
    http::HttpOptions http = options_.http_options;
    http.max_connections = ConnectionLimit(http.max_connections);
    ASSIGN_OR_RETURN(http_, http::HttpServer::Start(http, *context_));
    std::printf("HTTP  %s\n", http_->address().c_str());
  }
  if (!options_.http_options.tls_cert.empty() && parts_.on_certificate) {
    parts_.on_certificate(options_);
  }
  if ((options_.grpc != "none" || options_.grpc_fd >= 0) && parts_.start_grpc) {
    ASSIGN_OR_RETURN(grpc_, parts_.start_grpc(options_, *context_, http_.get()));
    std::printf("gRPC  %s\n", grpc_->address().c_str());
  }
  std::fflush(stdout);
  return absl::OkStatus();
}

absl::Status Process::Load() {
  absl::StatusOr<std::unique_ptr<LoadedModel>> loaded = absl::UnknownError("not loaded");
  std::atomic<bool> load_done{false};
  bool reload = false;
  std::thread loader([&] {
    loaded = LoadedModel::Load(options_, parts_.devices, Clock::Monotonic(), parts_.add_engine,
                               context_->models(), http_.get());
    load_done.store(true, std::memory_order_release);
  });
  while (!load_done.load(std::memory_order_acquire)) {
    const Control::Event event = control_.Wait(kPollMs);
    // Nothing can be lost yet, and loading cannot be interrupted.
    if (event == Control::Event::kTerminate || event == Control::Event::kInterrupt) Leave(0);
    reload |= event == Control::Event::kReload;
  }
  loader.join();
  RETURN_IF_ERROR(loaded.status());
  model_ = *std::move(loaded);
  live_.store(model_.get(), std::memory_order_release);
  if (parts_.on_model) parts_.on_model(model_.get());
  if (options_.admin != "none" || options_.admin_fd >= 0) {
    ServerAdmin orders;
    orders.context = &*context_;
    orders.drain = [this](std::optional<int64_t> delay_ms) { control_.Drain({delay_ms}); };
    orders.reload = [this]() -> absl::StatusOr<std::string> {
      absl::StatusOr<std::string> report = UnavailableError("the server ends");
      control_.Run([&] { report = Reload(); });
      return report;
    };
    ASSIGN_OR_RETURN(
        admin_, Admin::Start(options_, *model_, *context_, accounts_.get(), std::move(orders)));
    std::printf("Admin %s\n", admin_->address().c_str());
  }
  reloader_.emplace(options_, Reloader::Parts{.telemetry = telemetry_.get(),
                                              .accounts = accounts_.get(),
                                              .http = http_.get(),
                                              .grpc = grpc_.get(),
                                              .admin = admin_.get(),
                                              .on_certificate = [this] {
                                                if (parts_.on_certificate)
                                                  parts_.on_certificate(options_);
                                              }});
  context_->SetReady([served = model_.get()] { return served->Works(); });
  if (http_ != nullptr) http_->OnReady();
  if (grpc_ != nullptr) grpc_->OnReady();
  std::printf("Model %s\n", model_->Describe().c_str());
  PrintInvitation(http_.get(), grpc_.get(), model_->id(), accounts_ != nullptr);
  NotifyServiceManager("READY=1\nSTATUS=serving " + model_->id());
  if (reload) Reload().IgnoreError();
  return absl::OkStatus();
}

absl::StatusOr<std::string> Process::Reload() {
  NotifyServiceManager(
      absl::StrFormat("RELOADING=1\nMONOTONIC_USEC=%d", Clock::Monotonic().NowNanos() / 1000));
  const absl::StatusOr<ReloadReport> report = reloader_->Reload();
  NotifyServiceManager("READY=1");
  if (!report.ok()) {
    LogError("the configuration is not reloaded, nothing has changed: %s",
             report.status().message());
    return report.status();
  }
  std::string json = ToJson(*report);
  LogInfo("the configuration is reloaded: %s", json);
  return json;
}

void Process::Tick() {
  const bool serving = context_->Serving();
  if (serving != told_serving_) {
    told_serving_ = serving;
    if (grpc_ != nullptr) grpc_->OnServing(serving);
    NotifyServiceManager(serving ? "STATUS=serving" : "STATUS=no device works");
  }
  telemetry_->ReportLosses();
  ReportSuppressedLines();
}

Control::Event Process::Serve() {
  for (;;) {
    const Control::Event event = control_.Wait(kTickMs);
    Tick();
    if (event == Control::Event::kReload) {
      Reload().IgnoreError();
    } else if (event != Control::Event::kNothing) {
      if (event != Control::Event::kDrain) ++signals_;
      return event;
    }
  }
}

int64_t Process::Busy() const {
  return context_->active_generations() + (http_ != nullptr ? http_->busy() : 0) +
         (grpc_ != nullptr ? grpc_->busy() : 0);
}

template <typename Done>
void Process::WaitFor(int64_t limit_ms, const Done& done) {
  const int64_t end_ns = Clock::Monotonic().NowNanos() + limit_ms * kNsPerMs;
  while (!done() && Clock::Monotonic().NowNanos() < end_ns) {
    const Control::Event event = control_.Wait(kPollMs);
    if (event != Control::Event::kTerminate && event != Control::Event::kInterrupt) continue;
    // The first signal after an order of the admin listener asks for what happens already.
    if (++signals_ < 2) continue;
    // A request whose reply has just gone out is not cut off.
    for (int64_t waited_ms = 0; Busy() > 0 && waited_ms < kSettleMs; waited_ms += kPollMs) {
      control_.Wait(kPollMs);
    }
    if (Busy() == 0) return;
    LogWarning("second signal: %d requests are cut off", Busy());
    Leave(130);
  }
}

void Process::Drain(Control::Event event) {
  int64_t delay_ms = event == Control::Event::kInterrupt ? 0 : options_.drain_delay_ms;
  if (event == Control::Event::kDrain) {
    delay_ms = control_.drain_order().delay_ms.value_or(delay_ms);
  }
  NotifyServiceManager("STOPPING=1\nSTATUS=draining");
  LogInfo("draining: %d requests are running; a second signal ends the process at once",
          context_->active_generations());
  context_->AnnounceDrain();
  Front* const fronts[] = {http_.get(), grpc_.get()};
  for (Front* const front : fronts) {
    if (front == nullptr) continue;
    front->OnServing(false);
    front->AnnounceDrain();
    if (handed_over_) front->StopListening();
  }
  const auto nobody = [this] {
    return Busy() == 0 && (http_ == nullptr || http_->open_connections() == 0);
  };
  const bool patient = handed_over_ && event != Control::Event::kInterrupt;
  if (patient) delay_ms = std::max(delay_ms, kHandOverMs);
  WaitFor(delay_ms, [&] { return handed_over_ && nobody(); });
  const auto all_have_spoken = [this] {
    return http_ == nullptr || http_->silent_connections() == 0;
  };
  if (patient) WaitFor(kFirstWordsMs, all_have_spoken);
  context_->BeginDrain();
  for (Front* const front : fronts) {
    if (front != nullptr) front->BeginDrain();
  }
  WaitFor(options_.drain_timeout_s * 1000, [this] { return Busy() == 0; });
  if (Busy() > 0) LogWarning("drain time-out: %d requests are cut off", Busy());
  for (Front* const front : fronts) {
    if (front != nullptr && !handed_over_) front->StopListening();
  }
  if (Busy() == 0) WaitFor(kLastConnectionsMs, nobody);
}

void Process::Close() {
  control_.Close();
  // Its orders may wait for engines that the HTTP loops step.
  admin_.reset();
  grpc_.reset();
  http_.reset();
  if (parts_.on_model) parts_.on_model(nullptr);
  live_.store(nullptr, std::memory_order_release);
  model_.reset();
  telemetry_->ReportLosses();
  LogInfo("drained");
}

}  // namespace

int Serve(const ServeOptions& options, const ServeParts& parts) {
  SetLogLevel(*ParseLogLevel(options.log_level));
  absl::Status status;
  {
    Process process(options, parts);
    status = process.Open();
    if (status.ok()) status = process.Load();
    if (status.ok()) {
      process.Drain(process.Serve());
      process.Close();
    }
  }
  FlushLog(kFlushNs);
  if (status.ok()) return 0;
  std::fprintf(stderr, "reticle serve: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace reticle::server::cli
