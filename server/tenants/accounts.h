// The accounts of a running server: keys in memory, quotas, usage on its way to the store.
//
// One thread owns the store. Every `reload_ms` it takes over what changed there, so a key that
// another process (the command line, another replica) made or revoked is known within that time;
// what this process changes is known at once. Every `flush_ms` it adds to the store what was used
// since, running requests included: a crash loses no more than that. When the store cannot be
// reached, keys that are known stay known, usage waits in memory, and a warning is logged once.
#ifndef RETICLE_SERVER_TENANTS_ACCOUNTS_H_
#define RETICLE_SERVER_TENANTS_ACCOUNTS_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "server/core/gate.h"
#include "server/core/server_probe.h"
#include "server/tenants/account_store.h"
#include "server/tenants/address_limiter.h"
#include "server/tenants/quota.h"

namespace reticle::server::tenants {

struct AccountsOptions {
  std::string store = "reticle-tenants.db";  // a file for SQLite, or postgresql://...
  std::string secret_file;                   // of the keys' digests; empty: SecretFileOf(store)
  TierTable tiers;
  int64_t auto_approve_per_day = 0;   // applications that are approved by themselves; 0: none
  int64_t applications_per_hour = 5;  // of one address; claims likewise, ten times as many
  std::string redis;                  // "redis://HOST:PORT" shares quotas over replicas; empty: not
  int64_t reload_ms = 200;
  int64_t flush_ms = 400;
  // For expiry and usage days.
  std::function<int64_t()> unix_seconds = &UnixSeconds;

  absl::Status Validate() const;
};

// "STORE.secret", or "reticle-tenants.secret" beside no file.
std::string SecretFileOf(const std::string& store);

// Thread-safe.
class Accounts : public Gate {
 public:
  // Opens the store, reads all keys and starts the thread. `clock` and `probe` (may be null) must
  // outlive it.
  static absl::StatusOr<std::unique_ptr<Accounts>> Open(AccountsOptions options, Clock& clock,
                                                        ServerProbe* probe);
  // Flushes. Every Reservation must be gone.
  ~Accounts() override;

  absl::StatusOr<std::shared_ptr<const Caller>> Authenticate(
      std::string_view authorization) override;
  absl::Status Fit(const Caller& caller, const ModelEntry& model, GenerateParams& params) override;
  absl::StatusOr<std::unique_ptr<Reservation>> Reserve(const std::shared_ptr<const Caller>& caller,
                                                       uint64_t tokens) override;
  bool reserve_blocks() const override { return ledger_->blocks(); }
  void AppendHeaders(const Caller& caller, std::string& out) override;
  std::vector<std::string_view> Degraded() const override;
  absl::StatusOr<std::string> UsageJson(const Caller& caller) override;
  absl::StatusOr<std::string> Apply(const ApplicationForm& form, std::string_view address) override;
  absl::StatusOr<std::string> Claim(const std::string& claim, std::string_view address) override;

  // Runs `work` on the store's thread, takes over what it changed, and waits for both: for the
  // operator's commands. Not from an I/O thread.
  absl::Status OnStore(std::function<absl::Status(AccountStore&)> work);
  int64_t now() const { return options_.unix_seconds(); }
  TierTable tiers() const;
  // Other limits for the tiers, in force for requests to come when it returns; also reads the keys
  // again. Not from an I/O thread.
  absl::Status SetTiers(const TierTable& tiers);
  // Keys that are good now.
  size_t known_keys() const;

 private:
  struct Account;
  class Share;
  struct DigestHash {
    size_t operator()(const KeyDigest& digest) const;
  };
  struct Job {
    std::function<absl::Status(AccountStore&)> work;
    std::function<void(absl::Status)> done;
  };

  Accounts(AccountsOptions options, Clock& clock, ServerProbe& probe);
  void Loop();
  absl::Status Reload();
  absl::Status Flush();
  absl::Status SeedQuotas(LocalQuota& ledger);
  // `part_failed` is read_failed_ or write_failed_.
  void TellStore(const absl::Status& status, bool& part_failed);
  void AddUsage(const Caller& caller, const UsageCounts& counts);
  // Until one of the organisation's requests ends, at the pace that they have shown; 0: none runs
  // here.
  int64_t ExpectedPlaceNs(const std::string& organisation);
  // What running requests used since it was last asked.
  void CollectRunning();

  const AccountsOptions options_;
  Clock& clock_;
  ServerProbe& probe_;
  std::unique_ptr<KeyHasher> hasher_;
  std::unique_ptr<QuotaLedger> ledger_;
  AddressLimiter applications_;
  AddressLimiter claims_;

  mutable Mutex keys_mutex_;
  TierTable tiers_ RETICLE_GUARDED_BY(keys_mutex_);
  absl::flat_hash_map<KeyDigest, std::shared_ptr<const Account>, DigestHash, KeyDigestEqual> keys_
      RETICLE_GUARDED_BY(keys_mutex_);

  Mutex usage_mutex_;
  absl::flat_hash_map<std::pair<std::string, int64_t>, UsageRow> usage_
      RETICLE_GUARDED_BY(usage_mutex_);
  absl::flat_hash_set<Share*> running_ RETICLE_GUARDED_BY(usage_mutex_);

  Mutex mutex_;
  CondVar jobs_changed_;
  std::deque<Job> jobs_ RETICLE_GUARDED_BY(mutex_);
  bool stopping_ RETICLE_GUARDED_BY(mutex_) = false;

  // ---- the store's thread
  std::unique_ptr<AccountStore> store_;
  int64_t seen_version_ = 0;
  bool read_failed_ = false, write_failed_ = false;  // of this thread
  std::atomic<bool> store_failed_{false};            // written by this thread alone
  std::thread thread_;                               // last: it uses the rest
};

}  // namespace reticle::server::tenants

#endif  // RETICLE_SERVER_TENANTS_ACCOUNTS_H_
