#include "server/tenants/accounts.h"

#include <algorithm>
#include <cstring>

#include "base/log.h"
#include "base/retry_after.h"
#include "base/status.h"
#include "server/core/error.h"
#include "server/tenants/accounts_impl.h"
#include "server/tenants/redis_quota.h"

namespace reticle::server::tenants {
namespace {

constexpr std::string_view kBearer = "Bearer ";
constexpr int64_t kMostAppointments = 256;

ServerProbe& SilentProbe() {
  static ServerProbe* const probe = new ServerProbe;
  return *probe;
}

absl::Status QuotaError(const QuotaDecision& decision, const TierLimits& limits,
                        std::string_view tier, uint64_t tokens) {
  if (decision.retry_after_ns < 0) {
    const auto bounds = BucketLimits(limits);
    return WithHttpStatus(
        WithCode(
            InvalidArgumentError(
                "the request asks for %d tokens (prompt and max_tokens together), which is "
                "more than the limit %s = %d of this account; lower max_tokens or shorten the "
                "prompt",
                tokens, QuotaKindName(decision.kind), bounds[static_cast<size_t>(decision.kind)]),
            "request_too_large"),
        413);
  }
  if (decision.kind == QuotaKind::kConcurrent) {
    return WithRetryAfter(
        WithCode(ResourceExhaustedError("%d requests of this account run already, as many as its "
                                        "tier (%s) allows at once; try again in %s",
                                        limits.concurrent, tier,
                                        FormatDuration(decision.retry_after_ns)),
                 "concurrency_limit_exceeded"),
        decision.retry_after_ns);
  }
  return WithRetryAfter(
      ResourceExhaustedError("the limit %s = %d of this account (tier %s) is reached; try again "
                             "in %s",
                             QuotaKindName(decision.kind),
                             BucketLimits(limits)[static_cast<size_t>(decision.kind)], tier,
                             FormatDuration(decision.retry_after_ns)),
      decision.retry_after_ns);
}

}  // namespace

absl::Status AccountsOptions::Validate() const {
  if (store.empty()) return InvalidArgumentError("the tenants' store is empty; name a file");
  if (auto_approve_per_day < 0 || applications_per_hour < 0) {
    return InvalidArgumentError(
        "auto_approve_per_day is %d and applications_per_hour %d; both must be at least 0",
        auto_approve_per_day, applications_per_hour);
  }
  if (reload_ms < 1 || reload_ms > 1000 || flush_ms < 1 || flush_ms > 1000) {
    return InvalidArgumentError("reload_ms is %d and flush_ms %d; both must be from 1 to 1000",
                                reload_ms, flush_ms);
  }
  return absl::OkStatus();
}

std::string SecretFileOf(const std::string& store) {
  if (store.find("://") != std::string::npos) return "reticle-tenants.secret";
  return store + ".secret";
}

size_t Accounts::DigestHash::operator()(const KeyDigest& digest) const {
  // Digests are random to whoever does not know the secret.
  size_t hash;
  std::memcpy(&hash, digest.data(), sizeof(hash));
  return hash;
}

Accounts::Accounts(AccountsOptions options, Clock& clock, ServerProbe& probe)
    : options_(std::move(options)),
      clock_(clock),
      probe_(probe),
      applications_(options_.applications_per_hour, clock),
      claims_(options_.applications_per_hour * 10, clock),
      tiers_(options_.tiers) {}

absl::StatusOr<std::unique_ptr<Accounts>> Accounts::Open(AccountsOptions options, Clock& clock,
                                                         ServerProbe* probe) {
  RETURN_IF_ERROR(options.Validate());
  std::unique_ptr<Accounts> accounts(
      new Accounts(std::move(options), clock, probe != nullptr ? *probe : SilentProbe()));
  const AccountsOptions& made = accounts->options_;
  ASSIGN_OR_RETURN(
      accounts->hasher_,
      KeyHasher::Open(made.secret_file.empty() ? SecretFileOf(made.store) : made.secret_file));
  ASSIGN_OR_RETURN(std::unique_ptr<Database> database, OpenDatabase(made.store));
  ASSIGN_OR_RETURN(accounts->store_, AccountStore::Open(std::move(database), *accounts->hasher_));
  auto local = std::make_unique<LocalQuota>(clock);
  RETURN_IF_ERROR(accounts->Reload());
  RETURN_IF_ERROR(accounts->SeedQuotas(*local));
  if (made.redis.empty()) {
    accounts->ledger_ = std::move(local);
  } else {
    ASSIGN_OR_RETURN(accounts->ledger_,
                     RedisQuota::Open(made.redis, std::move(local), clock, accounts->probe_));
  }
  accounts->thread_ = std::thread([raw = accounts.get()] { raw->Loop(); });
  return accounts;
}

Accounts::~Accounts() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  jobs_changed_.NotifyAll();
  if (thread_.joinable()) thread_.join();
}

void Accounts::Loop() {
  int64_t reload_ns = clock_.NowNanos();
  int64_t flush_ns = reload_ns;
  for (;;) {
    std::deque<Job> jobs;
    bool stopping = false;
    {
      MutexLock lock(mutex_);
      if (jobs_.empty() && !stopping_) {
        jobs_changed_.WaitFor(mutex_, std::min(options_.reload_ms, options_.flush_ms) * 1'000'000);
      }
      jobs.swap(jobs_);
      stopping = stopping_;
    }
    std::vector<absl::Status> results;
    for (const Job& job : jobs) results.push_back(job.work(*store_));
    const int64_t now_ns = clock_.NowNanos();
    if (!jobs.empty() || now_ns - reload_ns >= options_.reload_ms * 1'000'000) {
      reload_ns = now_ns;
      TellStore(Reload(), read_failed_);
    }
    for (size_t i = 0; i < jobs.size(); ++i) jobs[i].done(std::move(results[i]));
    if (stopping || now_ns - flush_ns >= options_.flush_ms * 1'000'000) {
      flush_ns = now_ns;
      TellStore(Flush(), write_failed_);
      probe_.OnQuotaDegraded(ledger_->degraded());
    }
    if (stopping) return;
  }
}

void Accounts::TellStore(const absl::Status& status, bool& part_failed) {
  part_failed = !status.ok();
  const bool failed = read_failed_ || write_failed_;
  if (failed == store_failed_.exchange(failed)) return;
  probe_.OnAccountsStoreFailed(failed);
  if (failed) {
    LogWarning("accounts: %s; keys that are known stay good, usage waits", status.message());
  } else {
    LogInfo("accounts: the store answers again");
  }
}

TierTable Accounts::tiers() const {
  MutexLock lock(keys_mutex_);
  return tiers_;
}

absl::Status Accounts::SetTiers(const TierTable& tiers) {
  return OnStore([&](AccountStore&) {
    MutexLock lock(keys_mutex_);
    tiers_ = tiers;
    seen_version_ = 0;
    return absl::OkStatus();
  });
}

absl::Status Accounts::Reload() {
  const TierTable tiers = this->tiers();
  ASSIGN_OR_RETURN(const std::vector<KeyRecord> records, store_->KeysSince(seen_version_));
  for (const KeyRecord& record : records) {
    seen_version_ = std::max(seen_version_, record.version);
    const absl::StatusOr<KeyDigest> digest = DigestFromHex(record.digest);
    absl::StatusOr<TierLimits> limits = EffectiveLimits(tiers, record.tier, record.overrides);
    if (!digest.ok() || !limits.ok()) {
      LogWarning("accounts: key %s is stored badly and not accepted", record.id);
      continue;
    }
    if (record.revoked_at != 0) {
      MutexLock lock(keys_mutex_);
      keys_.erase(*digest);
      continue;
    }
    auto account = std::make_shared<Account>();
    account->key_id = record.id;
    account->organisation = record.organisation;
    account->tier = std::string(TierName(record.tier));
    account->tenant = absl::Hash<std::string>()(record.organisation) | 1;
    account->kind = record.tier;
    account->limits = *std::move(limits);
    const int64_t at_once = account->limits.concurrent;
    account->appointments = static_cast<uint32_t>(
        at_once == 0 ? kMostAppointments : std::min(at_once, kMostAppointments));
    account->expires_at = record.expires_at;
    MutexLock lock(keys_mutex_);
    keys_[*digest] = std::move(account);
  }
  return absl::OkStatus();
}

absl::Status Accounts::OnStore(std::function<absl::Status(AccountStore&)> work) {
  struct Wait {
    Mutex mutex;
    CondVar changed;
    bool done RETICLE_GUARDED_BY(mutex) = false;
    absl::Status status RETICLE_GUARDED_BY(mutex);
  } wait;
  {
    MutexLock lock(mutex_);
    jobs_.push_back({std::move(work), [&wait](absl::Status status) {
                       MutexLock done_lock(wait.mutex);
                       wait.status = std::move(status);
                       wait.done = true;
                       wait.changed.NotifyAll();
                     }});
  }
  jobs_changed_.NotifyAll();
  MutexLock lock(wait.mutex);
  while (!wait.done) wait.changed.Wait(wait.mutex);
  return wait.status;
}

size_t Accounts::known_keys() const {
  MutexLock lock(keys_mutex_);
  return keys_.size();
}

absl::StatusOr<std::shared_ptr<const Caller>> Accounts::Authenticate(
    std::string_view authorization) {
  if (authorization.size() < kBearer.size() ||
      strncasecmp(authorization.data(), kBearer.data(), kBearer.size()) != 0) {
    probe_.OnKeyRefused();
    return WithCode(UnauthenticatedError("this server needs a key: send Authorization: Bearer KEY"),
                    "missing_api_key");
  }
  std::string_view key = authorization.substr(kBearer.size());
  while (!key.empty() && key.front() == ' ') key.remove_prefix(1);
  while (!key.empty() && key.back() == ' ') key.remove_suffix(1);
  std::shared_ptr<const Account> account;
  if (LooksLikeApiKey(key)) {
    const KeyDigest digest = hasher_->Digest(key);
    MutexLock lock(keys_mutex_);
    if (const auto found = keys_.find(digest); found != keys_.end()) account = found->second;
  }
  if (account == nullptr ||
      (account->expires_at != 0 && account->expires_at <= options_.unix_seconds())) {
    probe_.OnKeyRefused();
    return UnauthenticatedError("the key is not known, has expired or was revoked");
  }
  return account;
}

absl::Status Accounts::Fit(const Caller& caller, const ModelEntry& model, GenerateParams& params) {
  const auto& account = static_cast<const Account&>(caller);
  const std::vector<std::string>& models = account.limits.models;
  if (!models.empty()) {
    const auto allowed = [&](const std::string& name) {
      return std::find(models.begin(), models.end(), name) != models.end();
    };
    if (!allowed(model.id) && std::none_of(model.aliases.begin(), model.aliases.end(), allowed)) {
      return WithParam(
          WithCode(PermissionDeniedError("model \"%s\" is not offered to this account", model.id),
                   "model_not_allowed"),
          "model");
    }
  }
  const absl::StatusOr<ServiceClass> service =
      ChooseServiceClass(account.kind, params.service_tier);
  if (!service.ok()) return WithParam(service.status(), "service_tier");
  params.service_tier = std::string(service->name);
  if (account.kind != TierKind::kOperator || !params.priority.has_value()) {
    const int64_t within = params.priority.value_or(0);
    if (within < 0 || within > 9) {
      return WithParam(InvalidArgumentError("priority is %d; it must be between 0 and 9", within),
                       "priority");
    }
    params.priority = service->priority + within;
  }
  params.tenant = account.tenant;
  params.appointments = account.appointments;
  params.context_bound = account.limits.max_context;
  params.output_bound = account.limits.max_output;
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Reservation>> Accounts::Reserve(
    const std::shared_ptr<const Caller>& caller, uint64_t tokens) {
  auto account = std::static_pointer_cast<const Account>(caller);
  QuotaRequest request;
  request.organisation = account->organisation;
  request.limits = account->limits;
  request.tokens = static_cast<int64_t>(tokens);
  ASSIGN_OR_RETURN(std::string lease, NewRandomId(""));
  const QuotaDecision decision =
      ledger_->Reserve(request, lease, [&] { return ExpectedPlaceNs(request.organisation); });
  if (!decision.granted) {
    probe_.OnQuotaRefused(account->tier, QuotaKindName(decision.kind));
    return QuotaError(decision, account->limits, account->tier, tokens);
  }
  auto share =
      std::make_unique<Share>(*this, std::move(account), std::move(request), std::move(lease));
  MutexLock lock(usage_mutex_);
  running_.insert(share.get());
  return share;
}

void Accounts::AppendHeaders(const Caller& caller, std::string& out) {
  const auto& account = static_cast<const Account&>(caller);
  AppendRateLimitHeaders(out, ledger_->Peek(account.organisation, account.limits));
}

std::vector<std::string_view> Accounts::Degraded() const {
  std::vector<std::string_view> parts;
  if (ledger_->degraded()) parts.emplace_back("shared_quotas");
  if (store_failed_) parts.emplace_back("accounts_store");
  return parts;
}

absl::StatusOr<std::string> Accounts::Apply(const ApplicationForm& form, std::string_view address) {
  RETURN_IF_ERROR(applications_.Take(address));
  if (!form.terms) {
    return WithParam(InvalidArgumentError("terms must be accepted"), "terms");
  }
  AccountStore::NewApplication application{form.email, form.name, form.use_case, now(),
                                           options_.auto_approve_per_day};
  std::string claim;
  RETURN_IF_ERROR(OnStore([&](AccountStore& store) -> absl::Status {
    ASSIGN_OR_RETURN(const AccountStore::Applied applied, store.Apply(application));
    claim = applied.claim;
    return absl::OkStatus();
  }));
  return claim;
}

absl::StatusOr<std::string> Accounts::Claim(const std::string& claim, std::string_view address) {
  RETURN_IF_ERROR(claims_.Take(address));
  std::string key;
  RETURN_IF_ERROR(OnStore([&](AccountStore& store) -> absl::Status {
    ASSIGN_OR_RETURN(const NewKey made, store.Claim(claim, now()));
    key = made.key;
    return absl::OkStatus();
  }));
  return key;
}

}  // namespace reticle::server::tenants
