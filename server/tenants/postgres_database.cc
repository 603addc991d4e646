#include <libpq-fe.h>

#include <charconv>
#include <string>
#include <unordered_map>
#include <utility>

#include "base/status.h"
#include "server/tenants/database.h"

namespace reticle::server::tenants {
namespace {

constexpr Oid kInt8Oid = 20;

struct ResultDeleter {
  void operator()(PGresult* result) const { PQclear(result); }
};
using Result = std::unique_ptr<PGresult, ResultDeleter>;

// A connection that was lost is made anew at the next statement outside of a transaction.
class PostgresDatabase : public Database {
 public:
  explicit PostgresDatabase(PGconn* connection) : connection_(connection) {}
  ~PostgresDatabase() override { PQfinish(connection_); }

  absl::StatusOr<std::vector<SqlRow>> Run(const char* sql,
                                          std::initializer_list<SqlValue> values) override {
    if (PQstatus(connection_) != CONNECTION_OK) {
      prepared_.clear();
      PQreset(connection_);
      if (PQstatus(connection_) != CONNECTION_OK) return Unreachable();
      if (in_transaction_) {
        in_transaction_ = false;
        return UnavailableError("the connection to the store broke within a transaction");
      }
    }
    const std::string_view text(sql);
    if (values.size() == 0) {
      if (text == "COMMIT" || text == "ROLLBACK") in_transaction_ = false;
      return Take(Result(PQexec(connection_, sql)));
    }
    std::string& statement = prepared_[sql];
    if (statement.empty()) {
      std::string name = "s" + std::to_string(++statements_);
      const Result made(PQprepare(connection_, name.c_str(), sql, 0, nullptr));
      if (PQresultStatus(made.get()) != PGRES_COMMAND_OK) return Error(made.get());
      statement = std::move(name);
    }
    std::vector<std::string> texts;
    std::vector<const char*> pointers;
    texts.reserve(values.size());
    for (const SqlValue& value : values) {
      const int64_t* integer = std::get_if<int64_t>(&value);
      texts.push_back(integer != nullptr ? std::to_string(*integer) : std::get<std::string>(value));
      pointers.push_back(texts.back().c_str());
    }
    return Take(
        Result(PQexecPrepared(connection_, statement.c_str(), static_cast<int>(pointers.size()),
                              pointers.data(), nullptr, nullptr, 0)));
  }

  absl::Status Begin() override {
    RETURN_IF_ERROR(Run("BEGIN", {}).status());
    in_transaction_ = true;
    // Writers follow each other, as in SQLite, so that versions become visible in their order.
    return Run("SELECT pg_advisory_xact_lock(7237125)", {}).status();
  }
  std::string_view name() const override { return "PostgreSQL"; }

  absl::Status Unreachable() const {
    return UnavailableError("the store cannot be reached: %s", PQerrorMessage(connection_));
  }

 private:
  absl::Status Error(const PGresult* result) const {
    if (PQstatus(connection_) != CONNECTION_OK) return Unreachable();
    const char* state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char* primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const std::string why = primary == nullptr ? "no reason given" : primary;
    if (state != nullptr && std::string_view(state).starts_with("23")) {
      return AlreadyExistsError("the store refuses a value: %s", why);
    }
    return InternalError("the store fails: %s", why);
  }

  absl::StatusOr<std::vector<SqlRow>> Take(Result result) const {
    const ExecStatusType status = PQresultStatus(result.get());
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) return Error(result.get());
    std::vector<SqlRow> rows;
    const int columns = PQnfields(result.get());
    for (int row = 0; row < PQntuples(result.get()); ++row) {
      std::vector<SqlValue> values;
      for (int column = 0; column < columns; ++column) {
        const std::string_view text(PQgetvalue(result.get(), row, column),
                                    static_cast<size_t>(PQgetlength(result.get(), row, column)));
        if (PQftype(result.get(), column) == kInt8Oid) {
          int64_t integer = 0;
          std::from_chars(text.data(), text.data() + text.size(), integer);
          values.emplace_back(integer);
        } else {
          values.emplace_back(std::string(text));
        }
      }
      rows.emplace_back(std::move(values));
    }
    return rows;
  }

  PGconn* const connection_;
  bool in_transaction_ = false;
  uint64_t statements_ = 0;                                // prepared so far, failed ones included
  std::unordered_map<std::string, std::string> prepared_;  // SQL to statement name
};

}  // namespace

absl::StatusOr<std::unique_ptr<Database>> OpenPostgres(const std::string& address) {
  auto database = std::make_unique<PostgresDatabase>(PQconnectdb(address.c_str()));
  // The notices of IF NOT EXISTS would go to standard error.
  RETURN_IF_ERROR(database->Run("SET client_min_messages = warning", {}).status());
  return database;
}

}  // namespace reticle::server::tenants
