// The program `reticle`: the only place where concrete parts meet.
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backends/cpu/cpu_device.h"
#include "backends/fake/fake_device.h"
#include "server/cli/load.h"
#include "server/cli/serve.h"
#include "server/cli/serve_options.h"
#include "server/grpc/grpc_server.h"
#include "server/metrics/metrics_exporter.h"

namespace {

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

int RunLoad(const std::vector<std::string>& arguments) {
  return reticle::server::cli::RunLoad(arguments, RETICLE_VERSION);
}

// A subcommand; `arguments` of its function are those behind its name.
struct Command {
  const char* name;
  const char* help;
  int (*run)(const std::vector<std::string>& arguments);
};

constexpr Command kCommands[] = {
    {"serve", "serve a model over HTTP and gRPC", RunServe},
    {"load", "put load on a server and measure it", RunLoad},
};

std::string Usage() {
  std::string text = "Usage: reticle <command> [options]\n\nCommands (reticle <command> --help)\n";
  for (const Command& command : kCommands) {
    text += "  " + std::string(command.name);
    text.append(10 - std::string(command.name).size(), ' ').append(command.help).append("\n");
  }
  return text + "\n  --version, --help\n";
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const std::string name = arguments.empty() ? "" : arguments.front();
  for (const Command& command : kCommands) {
    if (name == command.name) return command.run({arguments.begin() + 1, arguments.end()});
  }
  if (name == "--version" || name == "version") {
    std::printf("reticle %s\n", RETICLE_VERSION);
    return 0;
  }
  if (name == "--help" || name == "-h" || name == "help") {
    std::fputs(Usage().c_str(), stdout);
    return 0;
  }
  if (!name.empty()) {
    std::fprintf(stderr, "reticle: unknown command \"%s\"\n\n", name.c_str());
  }
  std::fputs(Usage().c_str(), stderr);
  return 2;
}
