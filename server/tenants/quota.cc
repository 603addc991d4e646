#include "server/tenants/quota.h"

#include <algorithm>

#include "absl/strings/str_format.h"

namespace reticle::server::tenants {

std::string_view QuotaKindName(QuotaKind kind) {
  constexpr std::string_view kNames[] = {"requests_per_minute", "requests_per_day",
                                         "tokens_per_minute", "tokens_per_day", "concurrent"};
  return kNames[static_cast<int>(kind)];
}

std::array<int64_t, kBuckets> BucketLimits(const TierLimits& limits) {
  return {limits.requests_per_minute, limits.requests_per_day, limits.tokens_per_minute,
          limits.tokens_per_day};
}

std::array<int64_t, kBuckets> BucketAmounts(int64_t requests, int64_t tokens) {
  return {requests, requests, tokens, tokens};
}

void Bucket::Refill(int64_t limit, int64_t period_ns, int64_t now_ns) {
  // What is used stays used when the limit changes.
  if (limit_ != 0) used_ -= std::min<__int128>(used_, __int128{limit_} * (now_ns - at_ns_));
  limit_ = limit;
  period_ns_ = period_ns;
  at_ns_ = now_ns;
}

int64_t Bucket::WaitFor(int64_t amount) const {
  if (limit_ == 0 || amount == 0) return 0;
  if (amount > limit_) return -1;
  const __int128 over = used_ + __int128{amount} * period_ns_ - __int128{limit_} * period_ns_;
  if (over <= 0) return 0;
  return static_cast<int64_t>((over + limit_ - 1) / limit_);
}

void Bucket::Take(int64_t amount) {
  if (limit_ != 0) used_ += __int128{amount} * period_ns_;
}

void Bucket::GiveBack(int64_t amount) {
  used_ -= std::min<__int128>(used_, __int128{amount} * period_ns_);
}

BucketState Bucket::State() const {
  BucketState state;
  state.limit = limit_;
  if (limit_ == 0) return state;
  const __int128 used = (used_ + period_ns_ - 1) / period_ns_;
  state.remaining = static_cast<int64_t>(std::max<__int128>(limit_ - used, 0));
  state.reset_ns = static_cast<int64_t>((used_ + limit_ - 1) / limit_);
  return state;
}

LocalQuota::Account& LocalQuota::Find(const std::string& organisation, const TierLimits& limits) {
  std::unique_ptr<Account>& account = accounts_[organisation];
  if (account == nullptr) account = std::make_unique<Account>();
  const int64_t now_ns = clock_.NowNanos();
  const auto bounds = BucketLimits(limits);
  for (size_t i = 0; i < kBuckets; ++i) {
    account->buckets[i].Refill(bounds[i], kBucketPeriodsNs[i], now_ns);
  }
  return *account;
}

QuotaState LocalQuota::StateOf(const Account& account) {
  QuotaState state;
  for (size_t i = 0; i < kBuckets; ++i) state[i] = account.buckets[i].State();
  return state;
}

QuotaDecision LocalQuota::Reserve(const QuotaRequest& request, std::string_view,
                                  PlaceForecast forecast) {
  const auto amounts = BucketAmounts(request.requests, request.tokens);
  QuotaDecision decision;
  MutexLock lock(mutex_);
  Account& account = Find(request.organisation, request.limits);
  decision.granted = true;
  for (size_t i = 0; i < kBuckets; ++i) {
    const int64_t wait_ns = account.buckets[i].WaitFor(amounts[i]);
    if (wait_ns == 0 || decision.retry_after_ns < 0) continue;
    decision.granted = false;
    if (wait_ns > 0 && wait_ns <= decision.retry_after_ns) continue;
    decision.kind = static_cast<QuotaKind>(i);
    decision.retry_after_ns = wait_ns;
  }
  const int64_t places = request.limits.concurrent;
  const int64_t now_ns = clock_.NowNanos();
  const bool full = places != 0 && account.running >= places;
  const bool promised = account.promised_ns != 0 && now_ns >= account.promised_ns;
  if (full && !promised && decision.retry_after_ns >= 0) {
    if (account.promised_ns == 0) {
      account.promised_ns = now_ns + std::max({decision.retry_after_ns, forecast(),
                                               LeastPromiseNs(account.running - places)});
    }
    if (decision.granted || account.promised_ns - now_ns > decision.retry_after_ns) {
      decision.kind = QuotaKind::kConcurrent;
      decision.retry_after_ns = account.promised_ns - now_ns;
    }
    decision.granted = false;
  }
  if (decision.granted) {
    if (promised) account.promised_ns = 0;
    for (size_t i = 0; i < kBuckets; ++i) account.buckets[i].Take(amounts[i]);
    ++account.running;
  }
  decision.state = StateOf(account);
  return decision;
}

void LocalQuota::Settle(const QuotaRequest& request, std::string_view, int64_t requests_back,
                        int64_t tokens_back) {
  const auto amounts = BucketAmounts(requests_back, tokens_back);
  MutexLock lock(mutex_);
  Account& account = Find(request.organisation, request.limits);
  for (size_t i = 0; i < kBuckets; ++i) account.buckets[i].GiveBack(amounts[i]);
  --account.running;
}

QuotaState LocalQuota::Peek(const std::string& organisation, const TierLimits& limits) {
  MutexLock lock(mutex_);
  return StateOf(Find(organisation, limits));
}

void LocalQuota::Seed(const std::string& organisation, const TierLimits& limits, int64_t requests,
                      int64_t tokens) {
  MutexLock lock(mutex_);
  Account& account = Find(organisation, limits);
  account.buckets[static_cast<size_t>(QuotaKind::kRequestsPerDay)].Take(
      std::min(requests, limits.requests_per_day));
  account.buckets[static_cast<size_t>(QuotaKind::kTokensPerDay)].Take(
      std::min(tokens, limits.tokens_per_day));
}

std::string FormatDuration(int64_t duration_ns) {
  // To the next hundredth of a second, or millisecond below one second, so that it is never short.
  if (duration_ns < 1'000'000'000) {
    return absl::StrFormat("%dms", (duration_ns + 999'999) / 1'000'000);
  }
  const int64_t hundredths = (duration_ns + 9'999'999) / 10'000'000;
  const int64_t hours = hundredths / 360'000;
  const int64_t minutes = hundredths / 6'000 % 60;
  std::string text;
  if (hours > 0) text += absl::StrFormat("%dh", hours);
  if (hours > 0 || minutes > 0) text += absl::StrFormat("%dm", minutes);
  const int64_t rest = hundredths % 6'000;
  text += absl::StrFormat("%d", rest / 100);
  if (rest % 100 != 0) text += absl::StrFormat(".%02d", rest % 100);
  return text + "s";
}

void AppendRateLimitHeaders(std::string& out, const QuotaState& state) {
  const auto append = [&](QuotaKind kind, std::string_view groq, std::string_view cerebras) {
    const BucketState& bucket = state[static_cast<size_t>(kind)];
    if (bucket.limit == 0) return;
    const std::string seconds = absl::StrFormat("%.3f", static_cast<double>(bucket.reset_ns) / 1e9);
    for (const std::string_view suffix : {groq, cerebras}) {
      const auto line = [&](std::string_view what, std::string_view value) {
        out.append("x-ratelimit-").append(what).append(suffix).append(": ");
        out.append(value).append("\r\n");
      };
      line("limit-", std::to_string(bucket.limit));
      line("remaining-", std::to_string(bucket.remaining));
      line("reset-", suffix == groq ? FormatDuration(bucket.reset_ns) : seconds);
    }
  };
  append(QuotaKind::kRequestsPerDay, "requests", "requests-day");
  append(QuotaKind::kTokensPerMinute, "tokens", "tokens-minute");
}

}  // namespace reticle::server::tenants
