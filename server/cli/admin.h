// The admin listener of a served model.
#ifndef RETICLE_SERVER_CLI_ADMIN_H_
#define RETICLE_SERVER_CLI_ADMIN_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/admin/admin_router.h"
#include "server/admin/device_admin.h"
#include "server/admin/server_admin.h"
#include "server/cli/model_loader.h"
#include "server/cli/serve_options.h"
#include "server/core/server_context.h"
#include "server/http/http_server.h"
#include "server/tenants/accounts.h"

namespace reticle::server::cli {

class Admin : private AdapterStore {
 public:
  // Listens on options.admin. INVALID_ARGUMENT when that is beyond loopback and there is no token.
  // `accounts` may be null: there are none. What is named must outlive it. `options` may name a
  // socket that listens already (http_options.inherited_fd).
  static absl::StatusOr<std::unique_ptr<Admin>> Start(const ServeOptions& options,
                                                      LoadedModel& model, ServerContext& context,
                                                      tenants::Accounts* accounts,
                                                      ServerAdmin orders);
  ~Admin() override;

  // Requests to come must bear the token that `options` tell. INVALID_ARGUMENT, and nothing
  // changes, when they tell none that may be used; CheckToken says so before.
  absl::Status SetToken(const ServeOptions& options);
  static absl::Status CheckToken(const ServeOptions& options);

  std::string address() const { return server_->address(); }
  http::HttpServer& server() { return *server_; }

 private:
  Admin(LoadedModel& model, std::string_view token) : model_(model), router_(token) {}
  absl::Status Load(const AdminAdapter& adapter) override;
  absl::Status Unload(const std::string& name) override;
  std::vector<AdminAdapter> List() const override;

  LoadedModel& model_;
  DeviceAdmin devices_;
  ServerAdmin orders_;
  AdminRouter router_;
  std::unique_ptr<http::HttpServer> server_;
};

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_ADMIN_H_
