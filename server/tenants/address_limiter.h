// How often one network address may do something.
#ifndef RETICLE_SERVER_TENANTS_ADDRESS_LIMITER_H_
#define RETICLE_SERVER_TENANTS_ADDRESS_LIMITER_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "server/tenants/quota.h"

namespace reticle::server::tenants {

// Thread-safe. Remembers a bounded number of addresses, so that many cost no memory without end.
// While kMaxAddresses are in use, a new one has to wait for its first turn as if it had had all of
// its turns already; while twice as many are, new ones are refused.
class AddressLimiter {
 public:
  static constexpr size_t kMaxAddresses = 65'536;

  // `per_hour` of one address; 0: no limit. `clock` must outlive it.
  AddressLimiter(int64_t per_hour, Clock& clock) : per_hour_(per_hour), clock_(clock) {}

  // Takes one of `address`'s turns. RESOURCE_EXHAUSTED with a true time to retry, or without one to
  // an address that is not remembered. Addresses of one IPv6 network (/64) count as one.
  absl::Status Take(std::string_view address);

 private:
  // Forgets who has all turns again.
  void Purge(int64_t now_ns) RETICLE_REQUIRES(mutex_);

  const int64_t per_hour_;
  Clock& clock_;
  Mutex mutex_;
  int64_t next_purge_ns_ RETICLE_GUARDED_BY(mutex_) = 0;
  absl::flat_hash_map<std::string, Bucket> buckets_ RETICLE_GUARDED_BY(mutex_);
};

}  // namespace reticle::server::tenants

#endif  // RETICLE_SERVER_TENANTS_ADDRESS_LIMITER_H_
