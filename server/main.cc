// The program `reticle`: the only place where concrete parts meet.
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "scheduler/engine.h"
#include "server/cli/built_in_devices.h"
#include "server/cli/compare.h"
#include "server/cli/serve.h"
#include "server/cli/serve_options.h"
#include "server/cli/tapeout.h"
#include "server/grpc/grpc_server.h"
#include "server/metrics/metrics_exporter.h"

namespace {

constexpr char kUsage[] =
    "Usage: reticle <command> [options]\n"
    "\n"
    "Commands\n"
    "  serve     serve a model over HTTP and gRPC (reticle serve --help)\n"
    "  tapeout   make a device image of a model (reticle tapeout --help)\n"
    "  compare   compare device profiles on a workload (reticle compare --help)\n"
    "\n"
    "  --version, --help\n";

int RunServe(const std::vector<std::string>& arguments) {
  namespace cli = reticle::server::cli;
  cli::ServeOptions options;
  if (const auto exit = cli::ParseServeArguments(arguments, options); exit.has_value()) {
    std::fputs(exit->output.c_str(), exit->status == 0 ? stdout : stderr);
    return exit->status;
  }
  reticle::server::MetricsExporter metrics(RETICLE_VERSION);
  std::vector<reticle::server::EngineMetrics*> engines;

  cli::ServeParts parts;
  parts.devices = cli::BuiltInDevices();
  parts.add_engine = [&] {
    engines.push_back(&metrics.AddEngine());
    return engines.back();
  };
  parts.server_probe = &metrics;
  parts.render_metrics = [&metrics] { return metrics.Render(); };
  parts.on_model = [&](cli::LoadedModel* model) {
    if (model == nullptr) {
      for (reticle::server::EngineMetrics* engine : engines) metrics.Retire(*engine);
      return;
    }
    size_t next = 0;
    for (size_t i = 0; i < model->groups().size(); ++i) {
      for (const cli::Card& card : model->groups()[i]->cards()) {
        const reticle::scheduler::Engine* const engine = card.engine.get();
        metrics.Publish(
            *engines[next],
            {.model_name = model->IdOn(i),
             .engine = std::to_string(next),
             .kv_block_tokens = engine->capabilities().kv_block_tokens,
             .device = model->groups()[i]->name(),
             .card = std::to_string(card.index)},
            [engine] { return engine->Gauges(); },
            [engine, model] {
              reticle::server::DeviceSnapshot snapshot = reticle::server::SnapshotOf(*engine);
              snapshot.adapters = model->AdaptersOn(*engine);
              return snapshot;
            });
        ++next;
      }
    }
  };
  parts.start_grpc = [&](const cli::HostPort& address, reticle::server::ServerContext& context)
      -> absl::StatusOr<std::unique_ptr<reticle::server::Front>> {
    reticle::server::GrpcServerOptions grpc;
    grpc.address = address.host + ":" + std::to_string(address.port);
    grpc.tls_certificate_path = options.http_options.tls_cert;
    grpc.tls_key_path = options.http_options.tls_key;
    return reticle::server::GrpcServer::Start(grpc, context);
  };
  return cli::Serve(options, parts);
}

int RunTapeout(const std::vector<std::string>& arguments) {
  namespace cli = reticle::server::cli;
  cli::TapeoutCommand command;
  if (const auto exit = cli::ParseTapeoutArguments(arguments, command); exit.has_value()) {
    std::fputs(exit->output.c_str(), exit->status == 0 ? stdout : stderr);
    return exit->status;
  }
  return cli::RunTapeout(command);
}

// Subcommands and what runs them with the arguments behind.
constexpr struct {
  const char* name;
  int (*run)(const std::vector<std::string>&);
} kCommands[] = {
    {"serve", RunServe}, {"tapeout", RunTapeout}, {"compare", reticle::server::cli::Compare}};

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const std::string command = arguments.empty() ? "" : arguments.front();
  for (const auto& [name, run] : kCommands) {
    if (command == name) return run({arguments.begin() + 1, arguments.end()});
  }
  if (command == "--version" || command == "version") {
    std::printf("reticle %s\n", RETICLE_VERSION);
    return 0;
  }
  if (command == "--help" || command == "-h" || command == "help") {
    std::fputs(kUsage, stdout);
    return 0;
  }
  if (!command.empty()) {
    std::fprintf(stderr, "reticle: unknown command \"%s\"\n\n", command.c_str());
  }
  std::fputs(kUsage, stderr);
  return 2;
}
