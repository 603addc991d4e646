// A small common face of SQLite and PostgreSQL: parameterised statements, transactions. SQL that
// goes through it keeps to what both understand: $1-style parameters, BIGINT and TEXT,
// ON CONFLICT .. DO UPDATE, RETURNING.
#ifndef RETICLE_SERVER_TENANTS_DATABASE_H_
#define RETICLE_SERVER_TENANTS_DATABASE_H_

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace reticle::server::tenants {

using SqlValue = std::variant<int64_t, std::string>;

// One row of a result; a column that is asked for must exist and have that type.
class SqlRow {
 public:
  explicit SqlRow(std::vector<SqlValue> values) : values_(std::move(values)) {}
  int64_t Int(size_t column) const { return std::get<int64_t>(values_.at(column)); }
  const std::string& Text(size_t column) const { return std::get<std::string>(values_.at(column)); }

 private:
  std::vector<SqlValue> values_;
};

// Used by one thread at a time. Errors: UNAVAILABLE (cannot be reached, locked for too long),
// ALREADY_EXISTS (a unique value is taken), INTERNAL (the statement is wrong); none holds a
// parameter's value.
class Database {
 public:
  virtual ~Database() = default;
  // Prepares `sql` once, runs it and gives all rows. NULL never occurs in our tables.
  virtual absl::StatusOr<std::vector<SqlRow>> Run(const char* sql,
                                                  std::initializer_list<SqlValue> values = {}) = 0;
  // Begins a transaction that writes; nobody else writes until it ends.
  virtual absl::Status Begin() = 0;
  absl::Status Commit() { return Run("COMMIT").status(); }
  absl::Status Rollback() { return Run("ROLLBACK").status(); }
  virtual std::string_view name() const = 0;  // "SQLite" or "PostgreSQL"
};

// Rolls back unless committed.
class Transaction {
 public:
  static absl::StatusOr<std::unique_ptr<Transaction>> Begin(Database& database);
  ~Transaction();
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  absl::Status Commit();

 private:
  explicit Transaction(Database& database) : database_(database) {}
  Database& database_;
  bool open_ = true;
};

// `address`: the path of an SQLite file (created with mode 0600), or "postgresql://...".
absl::StatusOr<std::unique_ptr<Database>> OpenDatabase(const std::string& address);
absl::StatusOr<std::unique_ptr<Database>> OpenSqlite(const std::string& path);
absl::StatusOr<std::unique_ptr<Database>> OpenPostgres(const std::string& address);

}  // namespace reticle::server::tenants

#endif  // RETICLE_SERVER_TENANTS_DATABASE_H_
