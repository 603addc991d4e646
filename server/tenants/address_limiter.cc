#include "server/tenants/address_limiter.h"

#include <arpa/inet.h>

#include <cstring>

#include "base/retry_after.h"
#include "base/status.h"

namespace reticle::server::tenants {
namespace {

constexpr int64_t kHourNs = 3'600'000'000'000;
// It looks at every address.
constexpr int64_t kPurgeEveryNs = 1'000'000'000;

std::string NetworkOf(std::string_view address) {
  const std::string text(address.substr(0, address.find('%')));
  in6_addr v6;
  if (inet_pton(AF_INET6, text.c_str(), &v6) != 1) return text;
  // An IPv4 address in IPv6 clothes stays itself.
  if (IN6_IS_ADDR_V4MAPPED(&v6)) return std::string(reinterpret_cast<char*>(&v6), sizeof(v6));
  return std::string(reinterpret_cast<char*>(&v6), 8);
}

}  // namespace

absl::Status AddressLimiter::Take(std::string_view address) {
  if (per_hour_ == 0) return absl::OkStatus();
  const int64_t now_ns = clock_.NowNanos();
  const std::string network = NetworkOf(address);
  MutexLock lock(mutex_);
  if (buckets_.size() >= kMaxAddresses && !buckets_.contains(network)) {
    Purge(now_ns);
    if (buckets_.size() >= kMaxAddresses) {
      if (buckets_.size() >= 2 * kMaxAddresses) {
        return ResourceExhaustedError("%d addresses ask at the moment; the limit is %d",
                                      buckets_.size(), 2 * kMaxAddresses);
      }
      Bucket& used_up = buckets_[network];
      used_up.Refill(per_hour_, kHourNs, now_ns);
      used_up.Take(per_hour_);
    }
  }
  Bucket& bucket = buckets_[network];
  bucket.Refill(per_hour_, kHourNs, now_ns);
  if (const int64_t wait_ns = bucket.WaitFor(1); wait_ns != 0) {
    return WithRetryAfter(
        ResourceExhaustedError("too many requests of this kind from your address; try again in %s",
                               FormatDuration(wait_ns)),
        wait_ns);
  }
  bucket.Take(1);
  return absl::OkStatus();
}

void AddressLimiter::Purge(int64_t now_ns) {
  if (now_ns < next_purge_ns_) return;
  next_purge_ns_ = now_ns + kPurgeEveryNs;
  absl::erase_if(buckets_, [&](auto& entry) {
    entry.second.Refill(per_hour_, kHourNs, now_ns);
    return entry.second.State().reset_ns == 0;
  });
}

}  // namespace reticle::server::tenants
