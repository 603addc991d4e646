#include "server/tenants/account_store.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "server/core/error.h"

namespace reticle::server::tenants {
namespace {

constexpr int64_t kSecondsPerDay = 86'400;

// Each list brings the schema from the version of its index to the next.
const std::vector<std::vector<const char*>>& Migrations() {
  static const auto* const migrations = new std::vector<std::vector<const char*>>{{
      "CREATE TABLE organisations (id TEXT PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL, "
      "tier TEXT NOT NULL, overrides TEXT NOT NULL, created_at BIGINT NOT NULL)",
      "CREATE TABLE api_keys (id TEXT PRIMARY KEY, organisation TEXT NOT NULL REFERENCES "
      "organisations(id), digest TEXT NOT NULL UNIQUE, prefix TEXT NOT NULL, label TEXT NOT NULL, "
      "created_at BIGINT NOT NULL, expires_at BIGINT NOT NULL, revoked_at BIGINT NOT NULL, "
      "version BIGINT NOT NULL)",
      "CREATE INDEX api_keys_by_version ON api_keys (version)",
      "CREATE INDEX api_keys_by_organisation ON api_keys (organisation)",
      "CREATE TABLE applications (id TEXT PRIMARY KEY, email TEXT NOT NULL, name TEXT NOT NULL, "
      "use_case TEXT NOT NULL, state TEXT NOT NULL, by_itself BIGINT NOT NULL, "
      "organisation TEXT NOT NULL, claim TEXT NOT NULL UNIQUE, created_at BIGINT NOT NULL)",
      "CREATE INDEX applications_by_time ON applications (created_at)",
      "CREATE TABLE usage_days (api_key TEXT NOT NULL, organisation TEXT NOT NULL, "
      "day BIGINT NOT NULL, requests BIGINT NOT NULL, prompt_tokens BIGINT NOT NULL, "
      "cached_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL, PRIMARY KEY (api_key, day))",
      "CREATE INDEX usage_days_by_day ON usage_days (day, organisation)",
      "CREATE TABLE counters (name TEXT PRIMARY KEY, value BIGINT NOT NULL)",
      "INSERT INTO counters (name, value) VALUES ('version', 0)",
  }};
  return *migrations;
}

constexpr char kSelectKeys[] =
    "SELECT k.id, k.organisation, k.prefix, k.label, k.digest, k.created_at, k.expires_at, "
    "k.revoked_at, k.version, o.tier, o.overrides FROM api_keys k JOIN organisations o "
    "ON o.id = k.organisation WHERE k.version > $1 ORDER BY k.version";
constexpr char kSelectKey[] =
    "SELECT k.id, k.organisation, k.prefix, k.label, k.digest, k.created_at, k.expires_at, "
    "k.revoked_at, k.version, o.tier, o.overrides FROM api_keys k JOIN organisations o "
    "ON o.id = k.organisation WHERE k.id = $1 OR k.prefix = $1";

absl::StatusOr<KeyRecord> ToKey(const SqlRow& row) {
  KeyRecord key;
  key.id = row.Text(0);
  key.organisation = row.Text(1);
  key.prefix = row.Text(2);
  key.label = row.Text(3);
  key.digest = row.Text(4);
  key.created_at = row.Int(5);
  key.expires_at = row.Int(6);
  key.revoked_at = row.Int(7);
  key.version = row.Int(8);
  ASSIGN_OR_RETURN(key.tier, ParseTier(row.Text(9)));
  key.overrides = row.Text(10);
  return key;
}

absl::StatusOr<Organisation> ToOrganisation(const SqlRow& row) {
  Organisation organisation;
  organisation.id = row.Text(0);
  organisation.name = row.Text(1);
  organisation.email = row.Text(2);
  ASSIGN_OR_RETURN(organisation.tier, ParseTier(row.Text(3)));
  organisation.overrides = row.Text(4);
  organisation.created_at = row.Int(5);
  return organisation;
}

}  // namespace

absl::Status CheckText(std::string_view field, std::string_view text, size_t max_bytes) {
  if (text.empty()) return WithParam(InvalidArgumentError("%s is missing", field), field);
  if (text.size() > max_bytes) {
    return WithParam(
        InvalidArgumentError("%s has %d bytes; the limit is %d", field, text.size(), max_bytes),
        field);
  }
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && c != '\n' && c != '\r' && c != '\t') || byte == 0x7f) {
      return WithParam(InvalidArgumentError("%s holds a control character", field), field);
    }
  }
  return absl::OkStatus();
}

absl::Status CheckEmail(std::string_view email) {
  RETURN_IF_ERROR(CheckText("email", email, 254));
  const size_t at = email.find('@');
  const bool plain = std::none_of(email.begin(), email.end(), [](char c) {
    return static_cast<unsigned char>(c) <= ' ' || c == '<' || c == '>' || c == ',' || c == '"';
  });
  if (!plain || at == 0 || at == std::string_view::npos || at + 1 == email.size() ||
      email.find('@', at + 1) != std::string_view::npos) {
    return WithParam(InvalidArgumentError("email is no e-mail address"), "email");
  }
  return absl::OkStatus();
}

absl::StatusOr<TierLimits> EffectiveLimits(const TierTable& tiers, TierKind tier,
                                           std::string_view overrides) {
  TierLimits limits = tiers.of(tier);
  RETURN_IF_ERROR(limits.Apply(overrides));
  return limits;
}

absl::StatusOr<std::unique_ptr<AccountStore>> AccountStore::Open(std::unique_ptr<Database> database,
                                                                 const KeyHasher& hasher) {
  std::unique_ptr<AccountStore> store(new AccountStore(std::move(database), hasher));
  RETURN_IF_ERROR(store->Migrate());
  return store;
}

absl::Status AccountStore::Migrate() {
  ASSIGN_OR_RETURN(const auto transaction, Transaction::Begin(*database_));
  RETURN_IF_ERROR(database_
                      ->Run("CREATE TABLE IF NOT EXISTS schema_versions (version BIGINT PRIMARY "
                            "KEY)")
                      .status());
  ASSIGN_OR_RETURN(const auto rows, database_->Run("SELECT version FROM schema_versions"));
  int64_t version = 0;
  for (const SqlRow& row : rows) version = std::max(version, row.Int(0));
  const auto newest = static_cast<int64_t>(Migrations().size());
  if (version > newest) {
    return FailedPreconditionError(
        "the store has schema version %d; this program knows versions up to %d", version, newest);
  }
  for (; version < newest; ++version) {
    for (const char* const sql : Migrations()[static_cast<size_t>(version)]) {
      RETURN_IF_ERROR(database_->Run(sql).status());
    }
    RETURN_IF_ERROR(
        database_->Run("INSERT INTO schema_versions (version) VALUES ($1)", {version + 1})
            .status());
  }
  return transaction->Commit();
}

absl::StatusOr<int64_t> AccountStore::NextVersion() {
  ASSIGN_OR_RETURN(const auto rows,
                   database_->Run("UPDATE counters SET value = value + 1 WHERE name = 'version' "
                                  "RETURNING value"));
  if (rows.size() != 1) return InternalError("the store has no counter \"version\"");
  return rows[0].Int(0);
}

absl::StatusOr<Organisation> AccountStore::InsertOrganisation(const std::string& name,
                                                              const std::string& email,
                                                              TierKind tier, int64_t now) {
  Organisation organisation;
  ASSIGN_OR_RETURN(organisation.id, NewRandomId("org_"));
  organisation.name = name;
  organisation.email = email;
  organisation.tier = tier;
  organisation.created_at = now;
  RETURN_IF_ERROR(database_
                      ->Run("INSERT INTO organisations (id, name, email, tier, overrides, "
                            "created_at) VALUES ($1, $2, $3, $4, '', $5)",
                            {organisation.id, name, email, std::string(TierName(tier)), now})
                      .status());
  return organisation;
}

absl::StatusOr<AccountStore::Applied> AccountStore::Apply(const NewApplication& application) {
  RETURN_IF_ERROR(CheckEmail(application.email));
  RETURN_IF_ERROR(CheckText("name", application.name, 200));
  RETURN_IF_ERROR(CheckText("use_case", application.use_case, 4000));
  Applied applied;
  ASSIGN_OR_RETURN(applied.claim, NewRandomId("claim_"));
  ASSIGN_OR_RETURN(const std::string id, NewRandomId("app_"));
  ASSIGN_OR_RETURN(const auto transaction, Transaction::Begin(*database_));
  const int64_t midnight = application.now - application.now % kSecondsPerDay;
  ASSIGN_OR_RETURN(const auto rows, database_->Run("SELECT COUNT(*) FROM applications WHERE "
                                                   "created_at >= $1 AND by_itself = 1",
                                                   {midnight}));
  applied.approved = rows.at(0).Int(0) < application.auto_approve_per_day;
  RETURN_IF_ERROR(
      database_
          ->Run("INSERT INTO applications (id, email, name, use_case, state, by_itself, "
                "organisation, claim, created_at) VALUES ($1, $2, $3, $4, 'pending', $5, '', $6, "
                "$7)",
                {id, application.email, application.name, application.use_case,
                 int64_t{applied.approved}, DigestToHex(hasher_.Digest(applied.claim)),
                 application.now})
          .status());
  if (applied.approved) {
    RETURN_IF_ERROR(ApproveOpen(id, TierKind::kFree, application.now).status());
  }
  RETURN_IF_ERROR(transaction->Commit());
  return applied;
}

absl::StatusOr<Organisation> AccountStore::ApproveOpen(const std::string& application,
                                                       TierKind tier, int64_t now) {
  ASSIGN_OR_RETURN(
      const auto rows,
      database_->Run("SELECT name, email, state FROM applications WHERE id = $1", {application}));
  if (rows.empty()) return NotFoundError("there is no application %s", application);
  if (rows[0].Text(2) != "pending") {
    return FailedPreconditionError("application %s is %s already", application, rows[0].Text(2));
  }
  ASSIGN_OR_RETURN(Organisation organisation,
                   InsertOrganisation(rows[0].Text(0), rows[0].Text(1), tier, now));
  RETURN_IF_ERROR(database_
                      ->Run("UPDATE applications SET state = 'approved', organisation = $2 WHERE "
                            "id = $1",
                            {application, organisation.id})
                      .status());
  return organisation;
}

absl::StatusOr<Organisation> AccountStore::Approve(const std::string& application, TierKind tier,
                                                   int64_t now) {
  ASSIGN_OR_RETURN(const auto transaction, Transaction::Begin(*database_));
  ASSIGN_OR_RETURN(Organisation organisation, ApproveOpen(application, tier, now));
  RETURN_IF_ERROR(transaction->Commit());
  return organisation;
}

absl::Status AccountStore::Refuse(const std::string& application) {
  ASSIGN_OR_RETURN(const auto rows,
                   database_->Run("UPDATE applications SET state = 'refused' WHERE id = $1 AND "
                                  "state = 'pending' RETURNING id",
                                  {application}));
  if (rows.empty()) return NotFoundError("there is no pending application %s", application);
  return absl::OkStatus();
}

absl::StatusOr<NewKey> AccountStore::Claim(const std::string& claim, int64_t now) {
  const std::string digest = DigestToHex(hasher_.Digest(claim));
  ASSIGN_OR_RETURN(const auto transaction, Transaction::Begin(*database_));
  ASSIGN_OR_RETURN(
      const auto rows,
      database_->Run("SELECT id, state, organisation FROM applications WHERE claim = $1",
                     {digest}));
  if (rows.empty() || rows[0].Text(1) == "refused") {
    return NotFoundError("this claim is not known, or its key was fetched already");
  }
  if (rows[0].Text(1) == "pending") {
    return FailedPreconditionError("the application waits for the operator's approval");
  }
  ASSIGN_OR_RETURN(const Organisation organisation, FindOrganisation(rows[0].Text(2)));
  ASSIGN_OR_RETURN(NewKey key, InsertKey(organisation, "first key", 0, now));
  // A claim is good for one key.
  RETURN_IF_ERROR(database_
                      ->Run("UPDATE applications SET claim = $2 WHERE id = $1",
                            {rows[0].Text(0), "used " + rows[0].Text(0)})
                      .status());
  RETURN_IF_ERROR(transaction->Commit());
  return key;
}

absl::StatusOr<std::vector<Application>> AccountStore::Applications(const std::string& state) {
  ASSIGN_OR_RETURN(const auto rows,
                   database_->Run("SELECT id, email, name, use_case, state, organisation, "
                                  "created_at FROM applications WHERE state = $1 OR $1 = '' "
                                  "ORDER BY created_at DESC, id",
                                  {state}));
  std::vector<Application> applications;
  for (const SqlRow& row : rows) {
    applications.push_back(
        {row.Text(0), row.Text(1), row.Text(2), row.Text(3), row.Text(4), row.Text(5), row.Int(6)});
  }
  return applications;
}

absl::StatusOr<Organisation> AccountStore::CreateOrganisation(const std::string& name,
                                                              const std::string& email,
                                                              TierKind tier, int64_t now) {
  RETURN_IF_ERROR(CheckText("name", name, 200));
  RETURN_IF_ERROR(CheckEmail(email));
  return InsertOrganisation(name, email, tier, now);
}

absl::StatusOr<std::vector<Organisation>> AccountStore::Organisations() {
  ASSIGN_OR_RETURN(const auto rows,
                   database_->Run("SELECT id, name, email, tier, overrides, created_at FROM "
                                  "organisations ORDER BY created_at, id"));
  std::vector<Organisation> organisations;
  for (const SqlRow& row : rows) {
    ASSIGN_OR_RETURN(Organisation organisation, ToOrganisation(row));
    organisations.push_back(std::move(organisation));
  }
  return organisations;
}

absl::StatusOr<Organisation> AccountStore::FindOrganisation(const std::string& organisation) {
  ASSIGN_OR_RETURN(const auto rows,
                   database_->Run("SELECT id, name, email, tier, overrides, created_at FROM "
                                  "organisations WHERE id = $1 OR id IN (SELECT organisation FROM "
                                  "api_keys WHERE id = $1)",
                                  {organisation}));
  if (rows.empty()) return NotFoundError("there is no organisation or key %s", organisation);
  return ToOrganisation(rows[0]);
}

absl::Status AccountStore::SetLimits(const std::string& organisation, TierKind tier,
                                     const std::string& overrides) {
  TierLimits checked;
  RETURN_IF_ERROR(checked.Apply(overrides));
  ASSIGN_OR_RETURN(const auto transaction, Transaction::Begin(*database_));
  ASSIGN_OR_RETURN(const Organisation found, FindOrganisation(organisation));
  RETURN_IF_ERROR(database_
                      ->Run("UPDATE organisations SET tier = $2, overrides = $3 WHERE id = $1",
                            {found.id, std::string(TierName(tier)), overrides})
                      .status());
  ASSIGN_OR_RETURN(const int64_t version, NextVersion());
  RETURN_IF_ERROR(
      database_
          ->Run("UPDATE api_keys SET version = $2 WHERE organisation = $1", {found.id, version})
          .status());
  return transaction->Commit();
}

absl::StatusOr<NewKey> AccountStore::InsertKey(const Organisation& organisation,
                                               const std::string& label, int64_t expires_at,
                                               int64_t now) {
  NewKey made;
  ASSIGN_OR_RETURN(made.key, NewApiKey());
  KeyRecord& record = made.record;
  ASSIGN_OR_RETURN(record.id, NewRandomId("key_"));
  ASSIGN_OR_RETURN(record.version, NextVersion());
  record.organisation = organisation.id;
  record.prefix = made.key.substr(0, kKeyPrefixBytes);
  record.label = label;
  record.digest = DigestToHex(hasher_.Digest(made.key));
  record.created_at = now;
  record.expires_at = expires_at;
  record.tier = organisation.tier;
  record.overrides = organisation.overrides;
  RETURN_IF_ERROR(
      database_
          ->Run("INSERT INTO api_keys (id, organisation, digest, prefix, label, created_at, "
                "expires_at, revoked_at, version) VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $8)",
                {record.id, record.organisation, record.digest, record.prefix, label, now,
                 expires_at, record.version})
          .status());
  return made;
}

absl::StatusOr<NewKey> AccountStore::CreateKey(const std::string& organisation,
                                               const std::string& label, int64_t expires_at,
                                               int64_t now) {
  RETURN_IF_ERROR(CheckText("label", label, 200));
  if (expires_at != 0 && expires_at <= now) {
    return InvalidArgumentError("the key would expire %d s ago", now - expires_at);
  }
  ASSIGN_OR_RETURN(const auto transaction, Transaction::Begin(*database_));
  ASSIGN_OR_RETURN(const Organisation found, FindOrganisation(organisation));
  ASSIGN_OR_RETURN(NewKey key, InsertKey(found, label, expires_at, now));
  RETURN_IF_ERROR(transaction->Commit());
  return key;
}

absl::StatusOr<KeyRecord> AccountStore::FindKey(const std::string& key) {
  ASSIGN_OR_RETURN(const auto rows, database_->Run(kSelectKey, {key}));
  if (rows.empty()) return NotFoundError("there is no key %s", key.substr(0, kKeyPrefixBytes));
  if (rows.size() > 1) {
    return InvalidArgumentError("%d keys begin with %s; give the key's id", rows.size(),
                                key.substr(0, kKeyPrefixBytes));
  }
  return ToKey(rows[0]);
}

absl::Status AccountStore::RevokeKey(const std::string& key, int64_t now) {
  ASSIGN_OR_RETURN(const auto transaction, Transaction::Begin(*database_));
  ASSIGN_OR_RETURN(const KeyRecord found, FindKey(key));
  ASSIGN_OR_RETURN(const int64_t version, NextVersion());
  RETURN_IF_ERROR(database_
                      ->Run("UPDATE api_keys SET revoked_at = $2, version = $3 WHERE id = $1",
                            {found.id, found.revoked_at != 0 ? found.revoked_at : now, version})
                      .status());
  return transaction->Commit();
}

absl::StatusOr<NewKey> AccountStore::RotateKey(const std::string& key, int64_t grace_s,
                                               int64_t now) {
  if (grace_s < 0) return InvalidArgumentError("grace is %d s; it must be at least 0", grace_s);
  ASSIGN_OR_RETURN(const auto transaction, Transaction::Begin(*database_));
  ASSIGN_OR_RETURN(const KeyRecord old, FindKey(key));
  if (old.revoked_at != 0 || (old.expires_at != 0 && old.expires_at <= now)) {
    return FailedPreconditionError("key %s is revoked or has expired; create a new one", old.id);
  }
  ASSIGN_OR_RETURN(const Organisation organisation, FindOrganisation(old.organisation));
  ASSIGN_OR_RETURN(NewKey made, InsertKey(organisation, old.label, old.expires_at, now));
  ASSIGN_OR_RETURN(const int64_t version, NextVersion());
  const int64_t end = now + grace_s;
  const int64_t expires_at = old.expires_at != 0 ? std::min(old.expires_at, end) : end;
  RETURN_IF_ERROR(database_
                      ->Run("UPDATE api_keys SET expires_at = $2, revoked_at = $3, version = $4 "
                            "WHERE id = $1",
                            {old.id, expires_at, grace_s == 0 ? now : 0, version})
                      .status());
  RETURN_IF_ERROR(transaction->Commit());
  return made;
}

absl::StatusOr<std::vector<KeyRecord>> AccountStore::KeysSince(int64_t since) {
  ASSIGN_OR_RETURN(const auto rows, database_->Run(kSelectKeys, {since}));
  std::vector<KeyRecord> keys;
  keys.reserve(rows.size());
  for (const SqlRow& row : rows) {
    ASSIGN_OR_RETURN(KeyRecord key, ToKey(row));
    keys.push_back(std::move(key));
  }
  return keys;
}

absl::Status AccountStore::AddUsage(const std::vector<UsageRow>& rows) {
  ASSIGN_OR_RETURN(const auto transaction, Transaction::Begin(*database_));
  for (const UsageRow& row : rows) {
    RETURN_IF_ERROR(
        database_
            ->Run("INSERT INTO usage_days (api_key, organisation, day, requests, prompt_tokens, "
                  "cached_tokens, output_tokens) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT "
                  "(api_key, day) DO UPDATE SET requests = usage_days.requests + "
                  "excluded.requests, prompt_tokens = usage_days.prompt_tokens + "
                  "excluded.prompt_tokens, cached_tokens = usage_days.cached_tokens + "
                  "excluded.cached_tokens, output_tokens = usage_days.output_tokens + "
                  "excluded.output_tokens",
                  {row.key, row.organisation, row.day, row.counts.requests,
                   row.counts.prompt_tokens, row.counts.cached_tokens, row.counts.output_tokens})
            .status());
  }
  return transaction->Commit();
}

absl::StatusOr<std::vector<UsageRow>> AccountStore::Usage(const std::string& organisation,
                                                          int64_t first_day) {
  ASSIGN_OR_RETURN(const auto rows,
                   database_->Run("SELECT api_key, organisation, day, requests, prompt_tokens, "
                                  "cached_tokens, output_tokens FROM usage_days WHERE day >= $2 "
                                  "AND (organisation = $1 OR $1 = '') ORDER BY day, api_key",
                                  {organisation, first_day}));
  std::vector<UsageRow> usage;
  for (const SqlRow& row : rows) {
    usage.push_back(
        {row.Text(0), row.Text(1), row.Int(2), {row.Int(3), row.Int(4), row.Int(5), row.Int(6)}});
  }
  return usage;
}

}  // namespace reticle::server::tenants
