#include <fcntl.h>
#include <sqlite3.h>
#include <unistd.h>

#include <string>
#include <unordered_map>
#include <utility>

#include "base/status.h"
#include "server/tenants/database.h"

namespace reticle::server::tenants {
namespace {

// How long to wait for another process that writes.
constexpr int kBusyMs = 5000;

class SqliteDatabase : public Database {
 public:
  explicit SqliteDatabase(sqlite3* database) : database_(database) {}
  ~SqliteDatabase() override {
    for (const auto& [sql, statement] : statements_) sqlite3_finalize(statement);
    sqlite3_close(database_);
  }

  absl::StatusOr<std::vector<SqlRow>> Run(const char* sql,
                                          std::initializer_list<SqlValue> values) override {
    sqlite3_stmt*& statement = statements_[sql];
    if (statement == nullptr && sqlite3_prepare_v3(database_, sql, -1, SQLITE_PREPARE_PERSISTENT,
                                                   &statement, nullptr) != SQLITE_OK) {
      return Error();
    }
    sqlite3_reset(statement);
    int number = 0;
    for (const SqlValue& value : values) {
      // $1 may come after $2 in the text: the name counts, not the place.
      const std::string name = "$" + std::to_string(++number);
      const int index = sqlite3_bind_parameter_index(statement, name.c_str());
      if (index == 0) return InternalError("a statement of the store has no parameter %s", name);
      if (const int64_t* integer = std::get_if<int64_t>(&value)) {
        sqlite3_bind_int64(statement, index, *integer);
      } else {
        const std::string& text = std::get<std::string>(value);
        sqlite3_bind_text64(statement, index, text.data(), text.size(), SQLITE_TRANSIENT,
                            SQLITE_UTF8);
      }
    }
    std::vector<SqlRow> rows;
    int code;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) rows.push_back(TakeRow(statement));
    absl::Status status = code == SQLITE_DONE ? absl::OkStatus() : Error();
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    if (!status.ok()) return status;
    return rows;
  }

  absl::Status Begin() override { return Run("BEGIN IMMEDIATE", {}).status(); }
  std::string_view name() const override { return "SQLite"; }

  absl::Status Error() const {
    const int code = sqlite3_extended_errcode(database_);
    const std::string why = sqlite3_errmsg(database_);
    switch (code & 0xff) {
      case SQLITE_BUSY:
      case SQLITE_LOCKED:
      case SQLITE_CANTOPEN:
      case SQLITE_IOERR:
      case SQLITE_FULL:
      case SQLITE_READONLY:
        return UnavailableError("the store cannot be used: %s", why);
      case SQLITE_CONSTRAINT:
        return AlreadyExistsError("the store refuses a value: %s", why);
      default:
        return InternalError("the store fails: %s", why);
    }
  }

 private:
  static SqlRow TakeRow(sqlite3_stmt* statement) {
    std::vector<SqlValue> values;
    const int columns = sqlite3_column_count(statement);
    for (int i = 0; i < columns; ++i) {
      if (sqlite3_column_type(statement, i) == SQLITE_INTEGER) {
        values.emplace_back(static_cast<int64_t>(sqlite3_column_int64(statement, i)));
      } else {
        const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement, i));
        const int size = sqlite3_column_bytes(statement, i);
        values.emplace_back(std::string(text == nullptr ? "" : text, static_cast<size_t>(size)));
      }
    }
    return SqlRow(std::move(values));
  }

  sqlite3* const database_;
  std::unordered_map<std::string, sqlite3_stmt*> statements_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Database>> OpenSqlite(const std::string& path) {
  if (const int created = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600); created >= 0) {
    close(created);
  }
  sqlite3* raw = nullptr;
  const int code =
      sqlite3_open_v2(path.c_str(), &raw, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nullptr);
  auto database = std::make_unique<SqliteDatabase>(raw);
  if (code != SQLITE_OK) {
    return UnavailableError("the store %s cannot be opened: %s", path, sqlite3_errstr(code));
  }
  sqlite3_busy_timeout(raw, kBusyMs);
  for (const char* pragma :
       {"PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON"}) {
    RETURN_IF_ERROR(database->Run(pragma, {}).status());
  }
  return database;
}

}  // namespace reticle::server::tenants
