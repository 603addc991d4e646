// Counting requests and tokens of organisations against their limits.
//
// Each limit is a bucket that refills evenly: a limit of 30 requests a minute gives one back every
// two seconds and never holds more than 30. So the time after which a refused request would pass is
// known exactly, and is what a refusal says: who waits that long, and does nothing else meanwhile,
// passes.
//
// When a place of those that run at once will be free is not known, only expected. The time told is
// kept all the same: whoever comes then is let in, if need be beyond the limit. Each time that this
// happens while the limit is passed already doubles the least time told next, from a second on: so
// the limit is passed by no more than the logarithm of how much longer the requests ran than
// expected.
#ifndef RETICLE_SERVER_TENANTS_QUOTA_H_
#define RETICLE_SERVER_TENANTS_QUOTA_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "server/tenants/tier.h"

namespace reticle::server::tenants {

enum class QuotaKind : uint8_t {
  kRequestsPerMinute,
  kRequestsPerDay,
  kTokensPerMinute,
  kTokensPerDay,
  kConcurrent,
};
inline constexpr size_t kBuckets = 4;
// "requests_per_minute" ...
std::string_view QuotaKindName(QuotaKind kind);

struct QuotaRequest {
  std::string organisation;
  TierLimits limits;
  int64_t requests = 1;  // 0 or 1
  int64_t tokens = 0;
};

// Of one bucket: what is left, and when it is full again.
struct BucketState {
  int64_t limit = 0;  // 0: none
  int64_t remaining = 0;
  int64_t reset_ns = 0;
};
using QuotaState = std::array<BucketState, kBuckets>;

struct QuotaDecision {
  bool granted = false;
  // When not granted: what stands in the way longest, and for how long; -1: for ever, since the
  // request asks for more than the limit.
  QuotaKind kind = QuotaKind::kRequestsPerMinute;
  int64_t retry_after_ns = 0;
  QuotaState state;
};

// Asked only when all places are taken: nanoseconds until one is expected to be free.
using PlaceForecast = absl::FunctionRef<int64_t()>;

// One bucket, in exact integers. Not thread-safe.
class Bucket {
 public:
  // `used` amounts of `limit` per `period_ns` are gone at `now_ns`.
  void Refill(int64_t limit, int64_t period_ns, int64_t now_ns);
  // Nanoseconds until `amount` more fits; 0: now; -1: never. After Refill.
  int64_t WaitFor(int64_t amount) const;
  void Take(int64_t amount);
  void GiveBack(int64_t amount);
  BucketState State() const;

 private:
  int64_t limit_ = 0;
  int64_t period_ns_ = 1;
  int64_t at_ns_ = 0;
  __int128 used_ = 0;  // amount times period
};

// Where the counts are kept. Thread-safe.
class QuotaLedger {
 public:
  virtual ~QuotaLedger() = default;
  // Takes all that is asked for or nothing. A request that was granted holds one of the places at
  // once, under `lease`, until Settle.
  virtual QuotaDecision Reserve(const QuotaRequest& request, std::string_view lease,
                                PlaceForecast forecast) = 0;
  // Gives back the place and what of the reservation was not used.
  virtual void Settle(const QuotaRequest& request, std::string_view lease, int64_t requests_back,
                      int64_t tokens_back) = 0;
  // As last seen, without asking anybody.
  virtual QuotaState Peek(const std::string& organisation, const TierLimits& limits) = 0;
  // Whether Reserve may wait for the network.
  virtual bool blocks() const { return false; }
  // Counts are this process's own although they should be shared.
  virtual bool degraded() const { return false; }
};

// In memory. `clock` must outlive it.
class LocalQuota : public QuotaLedger {
 public:
  explicit LocalQuota(Clock& clock) : clock_(clock) {}

  QuotaDecision Reserve(const QuotaRequest& request, std::string_view lease,
                        PlaceForecast forecast) override;
  void Settle(const QuotaRequest& request, std::string_view lease, int64_t requests_back,
              int64_t tokens_back) override;
  QuotaState Peek(const std::string& organisation, const TierLimits& limits) override;

  // What an organisation used today before this process began; counts against the limits of the
  // day.
  void Seed(const std::string& organisation, const TierLimits& limits, int64_t requests,
            int64_t tokens);

 private:
  struct Account {
    std::array<Bucket, kBuckets> buckets;
    int64_t running = 0;
    int64_t promised_ns = 0;  // from when on one more is let in; 0: never
  };
  Account& Find(const std::string& organisation, const TierLimits& limits) RETICLE_REQUIRES(mutex_);
  static QuotaState StateOf(const Account& account);

  Clock& clock_;
  Mutex mutex_;
  absl::flat_hash_map<std::string, std::unique_ptr<Account>> accounts_ RETICLE_GUARDED_BY(mutex_);
};

// The four limits in the order of QuotaKind, and their periods.
std::array<int64_t, kBuckets> BucketLimits(const TierLimits& limits);
inline constexpr std::array<int64_t, kBuckets> kBucketPeriodsNs = {
    60'000'000'000, 86'400'000'000'000, 60'000'000'000, 86'400'000'000'000};
// What a request takes from each.
std::array<int64_t, kBuckets> BucketAmounts(int64_t requests, int64_t tokens);
// The least time after which a place is promised, when `over` requests beyond the limit run.
inline constexpr int64_t LeastPromiseNs(int64_t over) {
  constexpr int64_t kSecondNs = 1'000'000'000;
  return kSecondNs << (over < 0 ? 0 : over > 12 ? 12 : over);
}

// Rate-limit headers of both conventions that clients know: Groq's (requests of a day, tokens of a
// minute, times as "2m59.56s") and Cerebras' (the same under -day and -minute, times in seconds),
// whole lines with CRLF. Limits that are not set give no line.
void AppendRateLimitHeaders(std::string& out, const QuotaState& state);
// "7.66s", "2m59.56s", "1h0m3s", "88ms".
std::string FormatDuration(int64_t duration_ns);

}  // namespace reticle::server::tenants

#endif  // RETICLE_SERVER_TENANTS_QUOTA_H_
