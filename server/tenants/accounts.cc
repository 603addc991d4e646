#include "server/tenants/accounts.h"

#include <algorithm>
#include <cstring>

#include "base/log.h"
#include "base/retry_after.h"
#include "base/status.h"
#include "server/core/error.h"
#include "server/tenants/redis_quota.h"

namespace reticle::server::tenants {
namespace {

constexpr int64_t kSecondsPerDay = 86'400;
constexpr std::string_view kBearer = "Bearer ";
// Days that GET /v1/usage reports.
constexpr int64_t kReportedDays = 30;

ServerProbe& SilentProbe() {
  static ServerProbe* const probe = new ServerProbe;
  return *probe;
}

std::string DayText(int64_t day) {
  // Civil date from days since 1970-01-01 (proleptic Gregorian calendar).
  const int64_t shifted = day + 719'468;
  const int64_t era = shifted / 146'097;
  const int64_t of_era = shifted - era * 146'097;
  const int64_t year = (of_era - of_era / 1460 + of_era / 36'524 - of_era / 146'096) / 365;
  const int64_t of_year = of_era - (365 * year + year / 4 - year / 100);
  const int64_t month = (5 * of_year + 2) / 153;
  return absl::StrFormat("%04d-%02d-%02d", year + era * 400 + (month >= 10 ? 1 : 0),
                         month < 10 ? month + 3 : month - 9, of_year - (153 * month + 2) / 5 + 1);
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
                                        "tier (%s) allows at once",
                                        limits.concurrent, tier),
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

struct Accounts::Account : public Caller {
  TierKind kind = TierKind::kFree;
  TierLimits limits;
  int64_t expires_at = 0;
};

// A running request's share of its quota.
class Accounts::Share : public Reservation {
 public:
  Share(Accounts& accounts, std::shared_ptr<const Account> account, QuotaRequest request,
        std::string lease)
      : accounts_(accounts),
        account_(std::move(account)),
        request_(std::move(request)),
        lease_(std::move(lease)) {}

  ~Share() override {
    {
      MutexLock lock(accounts_.usage_mutex_);
      accounts_.running_.erase(this);
    }
    const auto used =
        static_cast<int64_t>(use_.prompt_tokens + use_.output_tokens - use_.cached_tokens);
    const int64_t tokens_back = std::max<int64_t>(request_.tokens - used, 0);
    accounts_.ledger_->Settle(request_, lease_, settled_ ? 0 : request_.requests,
                              settled_ ? tokens_back : request_.tokens);
    accounts_.AddUsage(*account_, TakeRest());
  }

  void Progress(uint64_t prompt_tokens, uint64_t output_tokens) override {
    prompt_tokens_.store(static_cast<int64_t>(prompt_tokens), std::memory_order_relaxed);
    output_tokens_.store(static_cast<int64_t>(output_tokens), std::memory_order_relaxed);
  }

  void Settle(const ReservationUse& use) override {
    settled_ = true;
    use_ = use;
  }

  const Account& account() const { return *account_; }

  // Under the lock of the running ones: what was used since the last call.
  UsageCounts TakeProgress() {
    const int64_t prompt = prompt_tokens_.load(std::memory_order_relaxed);
    const int64_t output = output_tokens_.load(std::memory_order_relaxed);
    return Take({.requests = prompt > 0 ? 1 : 0, .prompt_tokens = prompt, .output_tokens = output});
  }

 private:
  UsageCounts TakeRest() {
    if (!settled_) return Take({});
    const auto cached = static_cast<int64_t>(use_.cached_tokens);
    return Take({.requests = request_.requests,
                 .prompt_tokens = static_cast<int64_t>(use_.prompt_tokens) - cached,
                 .cached_tokens = cached,
                 .output_tokens = static_cast<int64_t>(use_.output_tokens)});
  }
  UsageCounts Take(const UsageCounts& total) {
    const UsageCounts more{total.requests - recorded_.requests,
                           total.prompt_tokens - recorded_.prompt_tokens,
                           total.cached_tokens - recorded_.cached_tokens,
                           total.output_tokens - recorded_.output_tokens};
    recorded_ = total;
    return more;
  }

  Accounts& accounts_;
  const std::shared_ptr<const Account> account_;
  const QuotaRequest request_;
  const std::string lease_;
  std::atomic<int64_t> prompt_tokens_{0};
  std::atomic<int64_t> output_tokens_{0};
  UsageCounts recorded_;
  ReservationUse use_;
  bool settled_ = false;
};

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
      TellStore(Reload());
    }
    for (size_t i = 0; i < jobs.size(); ++i) jobs[i].done(std::move(results[i]));
    if (stopping || now_ns - flush_ns >= options_.flush_ms * 1'000'000) {
      flush_ns = now_ns;
      TellStore(Flush());
      probe_.OnQuotaDegraded(ledger_->degraded());
    }
    if (stopping) return;
  }
}

void Accounts::TellStore(const absl::Status& status) {
  if (status.ok() == !store_failed_) return;
  store_failed_ = !status.ok();
  if (store_failed_) {
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
    account->expires_at = record.expires_at;
    MutexLock lock(keys_mutex_);
    keys_[*digest] = std::move(account);
  }
  return absl::OkStatus();
}

absl::Status Accounts::SeedQuotas(LocalQuota& ledger) {
  ASSIGN_OR_RETURN(const std::vector<UsageRow> rows,
                   store_->Usage("", options_.unix_seconds() / kSecondsPerDay));
  absl::flat_hash_map<std::string, UsageCounts> used;
  for (const UsageRow& row : rows) {
    UsageCounts& counts = used[row.organisation];
    counts.requests += row.counts.requests;
    counts.prompt_tokens += row.counts.prompt_tokens;
    counts.output_tokens += row.counts.output_tokens;
  }
  MutexLock lock(keys_mutex_);
  for (const auto& [digest, account] : keys_) {
    const auto found = used.find(account->organisation);
    if (found == used.end()) continue;
    ledger.Seed(account->organisation, account->limits, found->second.requests,
                found->second.prompt_tokens + found->second.output_tokens);
    used.erase(found);
  }
  return absl::OkStatus();
}

void Accounts::AddUsage(const Caller& caller, const UsageCounts& counts) {
  if (counts.requests == 0 && counts.prompt_tokens == 0 && counts.cached_tokens == 0 &&
      counts.output_tokens == 0) {
    return;
  }
  const int64_t day = options_.unix_seconds() / kSecondsPerDay;
  MutexLock lock(usage_mutex_);
  UsageRow& row = usage_[{caller.key_id, day}];
  row.key = caller.key_id;
  row.organisation = caller.organisation;
  row.day = day;
  row.counts.requests += counts.requests;
  row.counts.prompt_tokens += counts.prompt_tokens;
  row.counts.cached_tokens += counts.cached_tokens;
  row.counts.output_tokens += counts.output_tokens;
}

void Accounts::CollectRunning() {
  MutexLock lock(usage_mutex_);
  const int64_t day = options_.unix_seconds() / kSecondsPerDay;
  for (Share* const share : running_) {
    const UsageCounts more = share->TakeProgress();
    if (more.requests == 0 && more.output_tokens == 0) continue;
    UsageRow& row = usage_[{share->account().key_id, day}];
    row.key = share->account().key_id;
    row.organisation = share->account().organisation;
    row.day = day;
    row.counts.requests += more.requests;
    row.counts.prompt_tokens += more.prompt_tokens;
    row.counts.output_tokens += more.output_tokens;
  }
}

absl::Status Accounts::Flush() {
  CollectRunning();
  std::vector<UsageRow> rows;
  {
    MutexLock lock(usage_mutex_);
    rows.reserve(usage_.size());
    for (const auto& [key, row] : usage_) rows.push_back(row);
    usage_.clear();
  }
  if (rows.empty()) return absl::OkStatus();
  absl::Status status = store_->AddUsage(rows);
  if (status.ok()) return status;
  MutexLock lock(usage_mutex_);
  for (const UsageRow& row : rows) {
    UsageRow& kept = usage_[{row.key, row.day}];
    const UsageCounts newer = kept.counts;
    kept = row;
    kept.counts.requests += newer.requests;
    kept.counts.prompt_tokens += newer.prompt_tokens;
    kept.counts.cached_tokens += newer.cached_tokens;
    kept.counts.output_tokens += newer.output_tokens;
  }
  return status;
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
  const QuotaDecision decision = ledger_->Reserve(request, lease);
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

absl::StatusOr<std::string> Accounts::UsageJson(const Caller& caller) {
  const auto& account = static_cast<const Account&>(caller);
  const int64_t today = now() / kSecondsPerDay;
  std::vector<UsageRow> rows;
  RETURN_IF_ERROR(OnStore([&](AccountStore& store) -> absl::Status {
    Flush().IgnoreError();
    ASSIGN_OR_RETURN(rows, store.Usage(account.organisation, today - kReportedDays + 1));
    return absl::OkStatus();
  }));
  std::string json =
      absl::StrFormat(R"({"object":"usage","organisation":"%s","tier":"%s","limits":{)",
                      account.organisation, account.tier);
  const auto bounds = BucketLimits(account.limits);
  const QuotaState state = ledger_->Peek(account.organisation, account.limits);
  for (size_t i = 0; i < kBuckets; ++i) {
    const std::string_view name = QuotaKindName(static_cast<QuotaKind>(i));
    if (bounds[i] == 0) {
      json += absl::StrFormat(R"("%s":null,)", name);
    } else {
      json += absl::StrFormat(R"("%s":{"limit":%d,"remaining":%d},)", name, bounds[i],
                              state[i].remaining);
    }
  }
  json += absl::StrFormat(
      R"("concurrent":%s},"days":[)",
      account.limits.concurrent == 0 ? "null" : std::to_string(account.limits.concurrent));
  for (size_t i = 0; i < rows.size(); ++i) {
    const UsageRow& row = rows[i];
    json += absl::StrFormat(
        R"(%s{"day":"%s","key":"%s","requests":%d,"prompt_tokens":%d,"cached_tokens":%d,)"
        R"("completion_tokens":%d})",
        i > 0 ? "," : "", DayText(row.day), row.key, row.counts.requests, row.counts.prompt_tokens,
        row.counts.cached_tokens, row.counts.output_tokens);
  }
  return json + "]}";
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
