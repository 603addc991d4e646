// The program `reticle`: the only place where concrete parts meet.
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "scheduler/engine.h"
#include "server/cli/bench.h"
#include "server/cli/built_in_devices.h"
#include "server/cli/card.h"
#include "server/cli/chat.h"
#include "server/cli/compare.h"
#include "server/cli/devices.h"
#include "server/cli/drain.h"
#include "server/cli/keys.h"
#include "server/cli/load.h"
#include "server/cli/plan.h"
#include "server/cli/serve.h"
#include "server/cli/serve_options.h"
#include "server/cli/tapeout.h"
#include "server/grpc/grpc_server.h"
#include "server/metrics/buckets.h"
#include "server/metrics/certificate.h"
#include "server/metrics/metric.h"
#include "server/metrics/metrics_exporter.h"
#include "server/tenants/tier.h"

namespace {

int RunServe(const std::vector<std::string>& arguments) {
  namespace cli = reticle::server::cli;
  cli::ServeOptions options;
  if (const auto exit = cli::ParseServeArguments(arguments, options); exit.has_value()) {
    return cli::Finish(*exit);
  }
  auto buckets = reticle::server::Buckets::Create(options.metrics_buckets);
  if (!buckets.ok()) {
    std::fprintf(stderr, "reticle serve: %s\n", std::string(buckets.status().message()).c_str());
    return 1;
  }
  reticle::server::MetricsExporter metrics(RETICLE_VERSION, *std::move(buckets));
  static constexpr std::string_view kNoTier[] = {"none"};
  if (options.tenants) {
    metrics.ExpectTiers(reticle::server::tenants::kTierNames);
  } else {
    metrics.ExpectTiers(kNoTier);
  }
  std::vector<reticle::server::EngineMetrics*> engines;

  cli::ServeParts parts;
  parts.devices = cli::BuiltInDevices();
  parts.add_engine = [&] {
    engines.push_back(&metrics.AddEngine());
    return engines.back();
  };
  parts.server_probe = &metrics;
  parts.render_metrics = [&metrics] { return metrics.Render(); };
  parts.on_certificate = [&metrics](const cli::ServeOptions& served) {
    const auto expiry = reticle::server::CertificateExpiry(served.http_options.tls_cert);
    if (expiry.ok()) metrics.SetCertificateExpiry(*expiry);
  };
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
  parts.start_grpc = [](const cli::ServeOptions& served, reticle::server::ServerContext& context,
                        reticle::server::LoopHost* loops)
      -> absl::StatusOr<std::unique_ptr<reticle::server::Front>> {
    const cli::HostPort address = *cli::ParseHostPort(served.grpc);
    reticle::server::GrpcServerOptions grpc;
    grpc.listen = {.host = address.host,
                   .port = address.port,
                   .reuse_port = served.http_options.reuse_port,
                   .inherited_fd = served.grpc_fd};
    grpc.tls_certificate_path = served.http_options.tls_cert;
    grpc.tls_key_path = served.http_options.tls_key;
    grpc.loops = loops;
    return reticle::server::GrpcServer::Start(grpc, context);
  };
  parts.version = RETICLE_VERSION;
  return cli::Serve(options, parts);
}

int RunChat(const std::vector<std::string>& arguments) {
  namespace cli = reticle::server::cli;
  cli::ChatOptions options;
  if (const auto exit = cli::ParseChatArguments(arguments, options); exit.has_value()) {
    return cli::Finish(*exit);
  }
  return cli::Chat(options);
}

int RunTapeout(const std::vector<std::string>& arguments) {
  namespace cli = reticle::server::cli;
  cli::TapeoutCommand command;
  if (const auto exit = cli::ParseTapeoutArguments(arguments, command); exit.has_value()) {
    return cli::Finish(*exit);
  }
  return cli::RunTapeout(command);
}

// Prints what docs/metrics.md says of every metric.
int RunMetrics(const std::vector<std::string>& arguments) {
  if (!arguments.empty()) {
    const bool help = arguments.front() == "--help" || arguments.front() == "-h";
    std::fputs("Usage: reticle metrics\n\nPrints the metrics that serve exports, as Markdown.\n",
               help ? stdout : stderr);
    return help ? 0 : 2;
  }
  std::fputs(reticle::server::CatalogueMarkdown().c_str(), stdout);
  return 0;
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
    {"tapeout", "make a device image of a model", RunTapeout},
    {"chat", "talk with a served model in the terminal", RunChat},
    {"devices", "list and describe device profiles", reticle::server::cli::RunDevices},
    {"compare", "compare device profiles on a workload", reticle::server::cli::Compare},
    {"plan", "say how many cards some traffic needs", reticle::server::cli::RunPlan},
    {"card", "run an emulated card as a process of its own", reticle::server::cli::RunCard},
    {"drain", "ask a running server to drain", reticle::server::cli::RunDrain},
    {"keys", "administer accounts and keys", reticle::server::cli::RunKeys},
    {"load", "put load on a server and measure it", RunLoad},
    {"metrics", "list the metrics that serve exports", RunMetrics},
    {"bench", "measure the server's own cost, and models on the CPU",
     reticle::server::cli::RunBench},
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
