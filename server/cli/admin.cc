#include "server/cli/admin.h"

#include <arpa/inet.h>

#include <fstream>
#include <utility>

#include "base/status.h"
#include "server/tenants/key_admin.h"

namespace reticle::server::cli {
namespace {

constexpr size_t kMostTokenBytes = 4096;

bool IsLoopback(const std::string& host) {
  in_addr v4{};
  in6_addr v6{};
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  if (inet_pton(AF_INET6, host.c_str(), &v6) == 1) return IN6_IS_ADDR_LOOPBACK(&v6);
  return host == "localhost";
}

absl::StatusOr<std::string> ReadToken(const ServeOptions& options) {
  if (options.admin_token_file.empty()) return options.admin_token;
  std::ifstream file(options.admin_token_file, std::ios::binary);
  std::string token;
  if (!file || !std::getline(file, token) || token.empty() || token.size() > kMostTokenBytes) {
    return InvalidArgumentError(
        "--admin-token-file %s cannot be read, or its first line has %d bytes; a token has 1 to %d",
        options.admin_token_file, token.size(), kMostTokenBytes);
  }
  while (!token.empty() && (token.back() == '\r' || token.back() == ' ')) token.pop_back();
  return token;
}

absl::StatusOr<std::string> Token(const ServeOptions& options) {
  ASSIGN_OR_RETURN(std::string token, ReadToken(options));
  ASSIGN_OR_RETURN(const HostPort listen, ParseHostPort(options.admin));
  if (token.empty() && !IsLoopback(listen.host)) {
    return InvalidArgumentError(
        "--admin listens on %s, which others can reach: it needs --admin-token or "
        "--admin-token-file",
        listen.host);
  }
  return token;
}

}  // namespace

absl::Status Admin::CheckToken(const ServeOptions& options) { return Token(options).status(); }

absl::Status Admin::SetToken(const ServeOptions& options) {
  ASSIGN_OR_RETURN(const std::string token, Token(options));
  router_.SetToken(token);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Admin>> Admin::Start(const ServeOptions& options, LoadedModel& model,
                                                    ServerContext& context,
                                                    tenants::Accounts* accounts,
                                                    ServerAdmin orders) {
  ASSIGN_OR_RETURN(const std::string token, Token(options));
  ASSIGN_OR_RETURN(HostPort listen, ParseHostPort(options.admin));
  std::unique_ptr<Admin> admin(new Admin(model, token));
  for (size_t i = 0; i < model.groups().size(); ++i) {
    const DeviceGroup& group = *model.groups()[i];
    for (const Card& card : group.cards()) {
      AdminCard& made = admin->devices_.cards.emplace_back();
      made.device = group.name();
      made.index = card.index;
      made.model = model.IdOn(i);
      made.engine = card.engine.get();
      if (!group.choice().inject) continue;
      made.inject = [&group, &card](std::string_view fault) { return group.Inject(card, fault); };
    }
  }
  admin->devices_.adapters = admin.get();
  admin->orders_ = std::move(orders);
  AddDeviceRoutes(admin->devices_, admin->router_);
  AddServerRoutes(admin->orders_, admin->router_);
  if (accounts != nullptr) {
    admin->router_.AddSlow(
        "POST", "/admin/keys/{verb}",
        [accounts](const AdminRequest& request) -> absl::StatusOr<AdminReply> {
          AdminReply reply;
          ASSIGN_OR_RETURN(reply.body,
                           tenants::HandleKeyAdmin(*accounts, request.parameters[0], request.body));
          return reply;
        });
  }
  if (const auto& render = context.options().render_metrics) {
    admin->router_.Add("GET", "/metrics",
                       [&render](const AdminRequest&) -> absl::StatusOr<AdminReply> {
                         AdminReply reply;
                         reply.body = render();
                         reply.content_type = "text/plain; version=0.0.4; charset=utf-8";
                         return reply;
                       });
  }
  http::HttpOptions http = options.http_options;
  http.host = std::move(listen.host);
  http.port = listen.port;
  http.io_threads = 1;
  http.worker_threads = 1;
  http.max_connections = 64;
  http.inherited_fd = options.admin_fd;
  http.front = "admin";
  ASSIGN_OR_RETURN(admin->server_, http::HttpServer::Start(http, context, &admin->router_));
  admin->server_->OnReady();
  return admin;
}

Admin::~Admin() = default;

absl::Status Admin::Load(const AdminAdapter& adapter) {
  return model_.LoadAdapter(adapter.name, adapter.path, adapter.scale);
}

absl::Status Admin::Unload(const std::string& name) { return model_.UnloadAdapter(name); }

std::vector<AdminAdapter> Admin::List() const {
  std::vector<AdminAdapter> adapters;
  for (const LoadedModel::Adapter& adapter : model_.adapters()) {
    adapters.push_back({adapter.name, adapter.path, adapter.scale});
  }
  return adapters;
}

}  // namespace reticle::server::cli
