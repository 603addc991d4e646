#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "base/status.h"
#include "server/tenants/accounts_impl.h"

namespace reticle::server::tenants {
namespace {

constexpr int64_t kSecondsPerDay = 86'400;
// Days that GET /v1/usage reports.
constexpr int64_t kReportedDays = 30;
// What a request that has generated nothing yet may still take, at least.
constexpr int64_t kUnknownNs = 1'000'000'000;
// Nobody is told to wait longer than this for a place.
constexpr int64_t kMostExpectedNs = 600'000'000'000;

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

}  // namespace

Accounts::Share::~Share() {
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

UsageCounts Accounts::Share::TakeProgress() {
  const int64_t prompt = prompt_tokens_.load(std::memory_order_relaxed);
  const int64_t output = output_tokens_.load(std::memory_order_relaxed);
  return Take({.requests = prompt > 0 ? 1 : 0, .prompt_tokens = prompt, .output_tokens = output});
}

int64_t Accounts::Share::ExpectedNs(int64_t now_ns) const {
  const int64_t prompt = prompt_tokens_.load(std::memory_order_relaxed);
  const int64_t output = output_tokens_.load(std::memory_order_relaxed);
  const int64_t passed_ns = std::max<int64_t>(now_ns - begin_ns_, 1);
  if (output <= 0) return std::clamp(passed_ns, kUnknownNs, kMostExpectedNs);
  const int64_t left = std::max<int64_t>(request_.tokens - prompt - output, 0);
  return static_cast<int64_t>(
      std::min<__int128>(__int128{passed_ns} * left / output, kMostExpectedNs));
}

UsageCounts Accounts::Share::TakeRest() {
  if (!settled_) return Take({});
  const auto cached = static_cast<int64_t>(use_.cached_tokens);
  return Take({.requests = request_.requests,
               .prompt_tokens = static_cast<int64_t>(use_.prompt_tokens) - cached,
               .cached_tokens = cached,
               .output_tokens = static_cast<int64_t>(use_.output_tokens)});
}

UsageCounts Accounts::Share::Take(const UsageCounts& total) {
  const UsageCounts more{
      total.requests - recorded_.requests, total.prompt_tokens - recorded_.prompt_tokens,
      total.cached_tokens - recorded_.cached_tokens, total.output_tokens - recorded_.output_tokens};
  recorded_ = total;
  return more;
}

int64_t Accounts::ExpectedPlaceNs(const std::string& organisation) {
  const int64_t now_ns = clock_.NowNanos();
  int64_t soonest_ns = INT64_MAX;
  MutexLock lock(usage_mutex_);
  for (const Share* const share : running_) {
    if (share->account().organisation != organisation) continue;
    soonest_ns = std::min(soonest_ns, share->ExpectedNs(now_ns));
  }
  return soonest_ns == INT64_MAX ? 0 : soonest_ns;
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

}  // namespace reticle::server::tenants
