// Taking over a changed configuration while the server runs: on SIGHUP, and POST /admin/reload.
#ifndef RETICLE_SERVER_CLI_RELOAD_H_
#define RETICLE_SERVER_CLI_RELOAD_H_

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/cli/admin.h"
#include "server/cli/serve_options.h"
#include "server/core/front.h"
#include "server/http/http_server.h"
#include "server/telemetry/telemetry.h"
#include "server/tenants/accounts.h"

namespace reticle::server::cli {

// The parts of `options` that logs and traces need. `version` is the program's.
TelemetryOptions TelemetryOptionsOf(const ServeOptions& options, const std::string& version);
// INVALID_ARGUMENT naming the limit.
absl::StatusOr<tenants::TierTable> TiersOf(const ServeOptions& options);
// What is left of `wanted` connections after the descriptors that a process may have; raises its
// soft limit to the hard one.
uint32_t ConnectionLimit(uint32_t wanted);

struct ReloadReport {
  std::vector<std::string> applied;  // flags whose new values are in force, "keys", "certificates"
  std::vector<std::string> kept;     // flags that changed too, but only a restart takes over
};
// {"applied":[..],"needs_restart":[..]}
std::string ToJson(const ReloadReport& report);

// Used by one thread. What it names must outlive it; null: there is none.
class Reloader {
 public:
  struct Parts {
    Telemetry* telemetry = nullptr;
    tenants::Accounts* accounts = nullptr;
    http::HttpServer* http = nullptr;
    Front* grpc = nullptr;
    Admin* admin = nullptr;
    // Called once a certificate was taken over; may be empty.
    std::function<void()> on_certificate = nullptr;
  };
  // `options` are those in force; reloadable ones change in it.
  Reloader(ServeOptions& options, Parts parts) : options_(options), parts_(std::move(parts)) {}

  // Parses the command line's arguments and the file that they name again, and takes over what can
  // be. With an error nothing has changed, and its message says why.
  absl::StatusOr<ReloadReport> Reload();

 private:
  ServeOptions& options_;
  const Parts parts_;
};

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_RELOAD_H_
