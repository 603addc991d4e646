#include "server/cli/reload.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "base/log.h"
#include "base/status.h"
#include "server/http/json_writer.h"

namespace reticle::server::cli {
namespace {

// Descriptors that are no connections: devices, stores, files, the listeners.
constexpr rlim_t kOtherDescriptors = 256;

void AppendList(std::string& out, const char* name, const std::vector<std::string>& items) {
  out.append("\"").append(name).append("\":[");
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out.push_back(',');
    http::AppendJsonString(out, items[i]);
  }
  out.push_back(']');
}

std::string Trimmed(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  constexpr std::string_view kPrefix = "reticle serve: ";
  return text.starts_with(kPrefix) ? text.substr(kPrefix.size()) : text;
}

}  // namespace

TelemetryOptions TelemetryOptionsOf(const ServeOptions& options, const std::string& version) {
  TelemetryOptions telemetry;
  telemetry.log_requests = options.log_requests;
  telemetry.log_prompts = options.log_prompts;
  telemetry.trace_ratio = options.trace_ratio;
  telemetry.otlp.endpoint = options.otlp_endpoint;
  telemetry.otlp.resource.service_version = version;
  char host[256] = {};
  gethostname(host, sizeof(host) - 1);
  telemetry.otlp.resource.instance = std::string(host) + ":" + std::to_string(getpid());
  return telemetry;
}

absl::StatusOr<tenants::TierTable> TiersOf(const ServeOptions& options) {
  tenants::TierTable tiers;
  for (const std::string& limit : options.tier_limits) RETURN_IF_ERROR(tiers.Set(limit));
  return tiers;
}

uint32_t ConnectionLimit(uint32_t wanted) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return wanted;
  if (limit.rlim_cur < limit.rlim_max) {
    rlimit raised = limit;
    raised.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &raised) == 0) limit = raised;
  }
  if (limit.rlim_cur == RLIM_INFINITY) return wanted;
  const rlim_t reserve = std::min(kOtherDescriptors, limit.rlim_cur / 2);
  const auto left = static_cast<uint32_t>(
      std::clamp<rlim_t>(limit.rlim_cur - reserve, 1, std::numeric_limits<uint32_t>::max()));
  if (left < wanted) {
    LogWarning("--max-connections is %d, but the process may open %d files: it serves %d", wanted,
               limit.rlim_cur, left);
  }
  return std::min(wanted, left);
}

std::string ToJson(const ReloadReport& report) {
  std::string out = "{";
  AppendList(out, "applied", report.applied);
  out.push_back(',');
  AppendList(out, "needs_restart", report.kept);
  out.push_back('}');
  return out;
}

absl::StatusOr<ReloadReport> Reloader::Reload() {
  ServeOptions fresh;
  if (const auto exit = ParseServeArguments(options_.arguments, fresh); exit.has_value()) {
    return InvalidArgumentError("%s", Trimmed(exit->output));
  }
  ASSIGN_OR_RETURN(const tenants::TierTable tiers, TiersOf(fresh));
  ReloadReport report;
  for (const OptionChange& change : Differences(options_, fresh)) {
    (change.reloadable ? report.applied : report.kept).push_back(change.flag);
  }
  // What can fail comes first.
  if (parts_.admin != nullptr) RETURN_IF_ERROR(Admin::CheckToken(fresh));
  if (!options_.http_options.tls_cert.empty()) {
    if (parts_.http != nullptr) RETURN_IF_ERROR(parts_.http->ReloadTls());
    if (parts_.grpc != nullptr) RETURN_IF_ERROR(parts_.grpc->ReloadTls());
    if (parts_.admin != nullptr) RETURN_IF_ERROR(parts_.admin->server().ReloadTls());
    if (parts_.on_certificate) parts_.on_certificate();
    report.applied.push_back("certificates");
  }
  if (parts_.accounts != nullptr) {
    RETURN_IF_ERROR(parts_.accounts->SetTiers(tiers));
    report.applied.push_back("keys");
  }
  TakeReloadable(fresh, options_);
  if (parts_.admin != nullptr) RETURN_IF_ERROR(parts_.admin->SetToken(options_));
  SetLogLevel(*ParseLogLevel(options_.log_level));
  if (parts_.telemetry != nullptr) parts_.telemetry->Configure(TelemetryOptionsOf(options_, ""));
  if (parts_.http != nullptr) {
    parts_.http->SetMaxConnections(ConnectionLimit(options_.http_options.max_connections));
  }
  return report;
}

}  // namespace reticle::server::cli
