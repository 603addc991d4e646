// Organisations, keys, applications and usage, in whatever database: what is stored and how it
// changes. No HTTP, no quotas, no cache.
//
// Tables (version 1): organisations, api_keys, applications, usage_days, counters, schema_versions.
// Every change that a running server must learn of gives the keys concerned a new `version` from
// one counter, so that "what changed since" is one indexed query. Times are Unix seconds; 0: never.
#ifndef RETICLE_SERVER_TENANTS_ACCOUNT_STORE_H_
#define RETICLE_SERVER_TENANTS_ACCOUNT_STORE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/tenants/api_key.h"
#include "server/tenants/database.h"
#include "server/tenants/tier.h"

namespace reticle::server::tenants {

struct Organisation {
  std::string id;
  std::string name;
  std::string email;
  TierKind tier = TierKind::kFree;
  std::string overrides;  // of the tier's limits, as TierLimits::Apply reads them
  int64_t created_at = 0;
};

struct KeyRecord {
  std::string id;
  std::string organisation;
  std::string prefix;  // what may be shown of it
  std::string label;
  std::string digest;  // hexadecimal
  int64_t created_at = 0;
  int64_t expires_at = 0;
  int64_t revoked_at = 0;
  int64_t version = 0;
  // Of the organisation.
  TierKind tier = TierKind::kFree;
  std::string overrides;
};

struct Application {
  std::string id;
  std::string email;
  std::string name;
  std::string use_case;
  std::string state;         // "pending", "approved" or "refused"
  std::string organisation;  // once approved
  int64_t created_at = 0;
};

struct UsageCounts {
  int64_t requests = 0;
  int64_t prompt_tokens = 0;  // that were computed
  int64_t cached_tokens = 0;  // of prompts, that came from the cache
  int64_t output_tokens = 0;
};

struct UsageRow {
  std::string key;
  std::string organisation;
  int64_t day = 0;  // since 1970-01-01, UTC
  UsageCounts counts;
};

// A key in clear: given once, never stored.
struct NewKey {
  std::string key;
  KeyRecord record;
};

// Used by one thread at a time; other processes may use the same database. Errors as in Database,
// NOT_FOUND for an id that is not there, INVALID_ARGUMENT for a value out of its limits.
class AccountStore {
 public:
  // Brings the schema to the newest version. FAILED_PRECONDITION when the database is newer than
  // this program. `hasher` must outlive it.
  static absl::StatusOr<std::unique_ptr<AccountStore>> Open(std::unique_ptr<Database> database,
                                                            const KeyHasher& hasher);

  // ---- applications
  struct NewApplication {
    std::string email, name, use_case;
    int64_t now = 0;
    // Approves at once when fewer than this many were approved by themselves since midnight (UTC).
    int64_t auto_approve_per_day = 0;
  };
  struct Applied {
    std::string claim;  // a secret with which the applicant fetches the key
    bool approved = false;
  };
  // Every application is an account of its own: nothing here, nor in the reply, depends on whether
  // an address has applied before.
  absl::StatusOr<Applied> Apply(const NewApplication& application);
  absl::StatusOr<Organisation> Approve(const std::string& application, TierKind tier, int64_t now);
  absl::Status Refuse(const std::string& application);
  // The key of an approved application, created by the first claim and shown by it alone.
  // FAILED_PRECONDITION while it waits; NOT_FOUND for an unknown, refused or used claim.
  absl::StatusOr<NewKey> Claim(const std::string& claim, int64_t now);
  // Newest first; `state` empty: all.
  absl::StatusOr<std::vector<Application>> Applications(const std::string& state);

  // ---- organisations and keys
  absl::StatusOr<Organisation> CreateOrganisation(const std::string& name, const std::string& email,
                                                  TierKind tier, int64_t now);
  absl::StatusOr<std::vector<Organisation>> Organisations();
  // `organisation` may also be the id of one of its keys.
  absl::StatusOr<Organisation> FindOrganisation(const std::string& organisation);
  absl::Status SetLimits(const std::string& organisation, TierKind tier,
                         const std::string& overrides);
  absl::StatusOr<NewKey> CreateKey(const std::string& organisation, const std::string& label,
                                   int64_t expires_at, int64_t now);
  // `key`: its id, or the displayed prefix when that names one key.
  absl::Status RevokeKey(const std::string& key, int64_t now);
  // A new key with the label and expiry of the old one, which ends `grace_s` from now.
  absl::StatusOr<NewKey> RotateKey(const std::string& key, int64_t grace_s, int64_t now);
  // With a version above `since`, in its order.
  absl::StatusOr<std::vector<KeyRecord>> KeysSince(int64_t since);

  // ---- usage
  // Adds to what is there, all rows or none.
  absl::Status AddUsage(const std::vector<UsageRow>& rows);
  // Of one organisation, or of all when it is empty; from `first_day` on, by day and key.
  absl::StatusOr<std::vector<UsageRow>> Usage(const std::string& organisation, int64_t first_day);

  const Database& database() const { return *database_; }

 private:
  AccountStore(std::unique_ptr<Database> database, const KeyHasher& hasher)
      : database_(std::move(database)), hasher_(hasher) {}
  absl::Status Migrate();
  absl::StatusOr<int64_t> NextVersion();
  absl::StatusOr<NewKey> InsertKey(const Organisation& organisation, const std::string& label,
                                   int64_t expires_at, int64_t now);
  absl::StatusOr<Organisation> InsertOrganisation(const std::string& name, const std::string& email,
                                                  TierKind tier, int64_t now);
  absl::StatusOr<Organisation> ApproveOpen(const std::string& application, TierKind tier,
                                           int64_t now);
  absl::StatusOr<KeyRecord> FindKey(const std::string& key);

  const std::unique_ptr<Database> database_;
  const KeyHasher& hasher_;
};

// The limits of `record`'s organisation: its tier's with its own overrides.
absl::StatusOr<TierLimits> EffectiveLimits(const TierTable& tiers, TierKind tier,
                                           std::string_view overrides);

// OK for something that may be an e-mail address, a short line, a text: printable, within limits.
absl::Status CheckEmail(std::string_view email);
absl::Status CheckText(std::string_view field, std::string_view text, size_t max_bytes);

}  // namespace reticle::server::tenants

#endif  // RETICLE_SERVER_TENANTS_ACCOUNT_STORE_H_
