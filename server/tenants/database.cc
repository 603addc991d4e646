#include "server/tenants/database.h"

#include "base/status.h"

namespace reticle::server::tenants {

absl::StatusOr<std::unique_ptr<Transaction>> Transaction::Begin(Database& database) {
  RETURN_IF_ERROR(database.Begin());
  return std::unique_ptr<Transaction>(new Transaction(database));
}

Transaction::~Transaction() {
  if (open_) database_.Rollback().IgnoreError();
}

absl::Status Transaction::Commit() {
  RETURN_IF_ERROR(database_.Commit());
  open_ = false;
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Database>> OpenDatabase(const std::string& address) {
  if (address.starts_with("postgresql://") || address.starts_with("postgres://")) {
    return OpenPostgres(address);
  }
  return OpenSqlite(address);
}

}  // namespace reticle::server::tenants
