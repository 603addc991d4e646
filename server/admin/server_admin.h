// The admin API of the process itself: its state, draining, reloading, the log's level.
#ifndef RETICLE_SERVER_ADMIN_SERVER_ADMIN_H_
#define RETICLE_SERVER_ADMIN_SERVER_ADMIN_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "server/admin/admin_router.h"
#include "server/core/server_context.h"

namespace reticle::server {

// What the orders do. All are thread-safe.
struct ServerAdmin {
  const ServerContext* context = nullptr;
  // Ends the process as SIGTERM does, after `delay_ms` in which it still serves (absent: as
  // configured). Returns at once.
  std::function<void(std::optional<int64_t> delay_ms)> drain;
  // As SIGHUP; the JSON of what came of it. May wait.
  std::function<absl::StatusOr<std::string>()> reload;
};

// `admin` and what it names must outlive the router.
void AddServerRoutes(const ServerAdmin& admin, AdminRouter& router);

}  // namespace reticle::server

#endif  // RETICLE_SERVER_ADMIN_SERVER_ADMIN_H_
