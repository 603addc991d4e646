// The program `reticle`: the only place where concrete parts meet.
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backends/cpu/cpu_device.h"
#include "backends/fake/fake_device.h"
#include "server/cli/chat.h"
#include "server/cli/serve.h"
#include "server/cli/serve_options.h"
#include "server/grpc/grpc_server.h"
#include "server/metrics/metrics_exporter.h"

namespace {

constexpr char kUsage[] =
    "Usage: reticle <command> [options]\n"
    "\n"
    "Commands\n"
    "  serve    serve a model over HTTP and gRPC (reticle serve --help)\n"
    "  chat     talk with a served model in the terminal (reticle chat --help)\n"
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
  reticle::server::EngineMetrics& engine_metrics = metrics.AddEngine();

  cli::ServeParts parts;
  parts.drivers = {{"cpu", reticle::backends::cpu::CpuDeviceApi()},
                   {"fake", reticle::backends::fake::FakeDeviceApi()}};
  parts.engine_probe = &engine_metrics;
  parts.server_probe = &metrics;
  parts.render_metrics = [&metrics] { return metrics.Render(); };
  parts.on_model = [&](cli::LoadedModel* model) {
    if (model == nullptr) {
      metrics.Retire(engine_metrics);
      return;
    }
    metrics.Publish(engine_metrics,
                    {.model_name = model->entry()->id,
                     .engine = "0",
                     .kv_block_tokens = model->engine().capabilities().kv_block_tokens},
                    [model] { return model->engine().Gauges(); });
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

int RunChat(const std::vector<std::string>& arguments) {
  namespace cli = reticle::server::cli;
  cli::ChatOptions options;
  if (const auto exit = cli::ParseChatArguments(arguments, options); exit.has_value()) {
    std::fputs(exit->output.c_str(), exit->status == 0 ? stdout : stderr);
    return exit->status;
  }
  return cli::Chat(options);
}

struct Command {
  const char* name;
  int (*run)(const std::vector<std::string>& arguments);  // those behind the name
};

constexpr Command kCommands[] = {
    {"serve", RunServe},
    {"chat", RunChat},
};

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const std::string command = arguments.empty() ? "" : arguments.front();
  for (const Command& known : kCommands) {
    if (command == known.name) return known.run({arguments.begin() + 1, arguments.end()});
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
