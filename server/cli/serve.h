// `reticle serve`: the life of a server process.
#ifndef RETICLE_SERVER_CLI_SERVE_H_
#define RETICLE_SERVER_CLI_SERVE_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/engine_probe.h"
#include "server/cli/model_loader.h"
#include "server/cli/serve_options.h"
#include "server/core/front.h"
#include "server/core/server_context.h"
#include "server/core/server_probe.h"

namespace reticle::server::cli {

// The concrete parts, which main() alone knows.
struct ServeParts {
  std::vector<DeviceChoice> devices;
  // Metrics; null or empty: none. They must outlive the call. add_engine is called for each card.
  std::function<scheduler::EngineProbe*()> add_engine;
  ServerProbe* server_probe = nullptr;
  std::function<std::string()> render_metrics;
  // Told once the engines run, so that their gauges can be read; and, with null, before they go.
  std::function<void(LoadedModel*)> on_model;
  // Told when a certificate is served, at the start and after a reload; empty: nobody.
  std::function<void(const ServeOptions&)> on_certificate;
  // Starts the gRPC front with these options, on the loops of the HTTP front if there is one (else
  // null); empty: there is none.
  std::function<absl::StatusOr<std::unique_ptr<Front>>(const ServeOptions&, ServerContext&,
                                                       LoopHost*)>
      start_grpc;
  std::string version;
};

// Opens the listeners, loads the model while they answer 503, serves until SIGTERM or SIGINT,
// drains and returns the exit status; docs/lifecycle.md has the steps. SIGHUP reloads the
// configuration. A second signal ends the process at once. Call it before any other thread exists:
// it blocks the three signals for all of them.
int Serve(const ServeOptions& options, const ServeParts& parts);

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_SERVE_H_
