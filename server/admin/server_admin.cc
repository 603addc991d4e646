#include "server/admin/server_admin.h"

#include <span>
#include <string_view>

#include "base/log.h"
#include "base/status.h"
#include "server/core/error.h"
#include "server/http/json_fields.h"
#include "server/http/json_writer.h"

namespace reticle::server {
namespace {

constexpr int64_t kMostDelayMs = 86'400'000;

struct Order {
  std::optional<int64_t> delay_ms;
  std::string level;
};

absl::Status ReadDelay(std::string_view name, const http::Json& value, Order& order) {
  return http::ReadInt(name, value, order.delay_ms);
}

absl::Status ReadLevel(std::string_view name, const http::Json& value, Order& order) {
  return http::ReadString(name, value, order.level);
}

AdminReply LogState() {
  const LogCounts counts = CountLog();
  return {.body = absl::StrFormat(R"({"level":"%s","dropped":%d,"suppressed":%d})",
                                  LogLevelName(GetLogLevel()), counts.dropped, counts.suppressed)};
}

absl::StatusOr<AdminReply> SetLevel(const std::string& body) {
  constexpr http::Field<Order> kFields[] = {{"level", &ReadLevel}};
  ASSIGN_OR_RETURN(const Order order, http::ParseFields<Order>(body, kFields));
  const absl::StatusOr<LogLevel> level = ParseLogLevel(order.level);
  if (!level.ok()) return WithParam(level.status(), "level");
  SetLogLevel(*level);
  return LogState();
}

absl::StatusOr<AdminReply> Drain(const ServerAdmin& admin, const std::string& body) {
  constexpr http::Field<Order> kFields[] = {{"delay_ms", &ReadDelay}};
  ASSIGN_OR_RETURN(const Order order, http::ParseFields<Order>(body, kFields));
  const int64_t delay_ms = order.delay_ms.value_or(0);
  if (delay_ms < 0 || delay_ms > kMostDelayMs) {
    return WithParam(
        InvalidArgumentError("delay_ms is %d; it must be between 0 and %d", delay_ms, kMostDelayMs),
        "delay_ms");
  }
  admin.drain(order.delay_ms);
  return AdminReply{.body = R"({"status":"draining"})", .status = 202};
}

AdminReply State(const ServerContext& context) {
  const bool admitting = context.CheckAdmission().ok();
  return {.body =
              absl::StrFormat(R"({"state":"%s","serving":%s,"admitting":%s,"active_requests":%d})",
                              ServerContext::LifecycleName(context.lifecycle()),
                              context.Serving() ? "true" : "false", admitting ? "true" : "false",
                              context.active_generations())};
}

}  // namespace

void AddServerRoutes(const ServerAdmin& admin, AdminRouter& router) {
  router.Add("GET", "/admin/state", [&admin](const AdminRequest&) -> absl::StatusOr<AdminReply> {
    return State(*admin.context);
  });
  router.Add("GET", "/admin/log",
             [](const AdminRequest&) -> absl::StatusOr<AdminReply> { return LogState(); });
  router.Add("POST", "/admin/log",
             [](const AdminRequest& request) { return SetLevel(request.body); });
  if (admin.drain) {
    router.Add("POST", "/admin/drain",
               [&admin](const AdminRequest& request) { return Drain(admin, request.body); });
  }
  if (admin.reload) {
    router.AddSlow("POST", "/admin/reload",
                   [&admin](const AdminRequest&) -> absl::StatusOr<AdminReply> {
                     AdminReply reply;
                     ASSIGN_OR_RETURN(reply.body, admin.reload());
                     return reply;
                   });
  }
}

}  // namespace reticle::server
