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

// Thread-safe. Remembers at most kMaxAddresses, so that many addresses cost no memory without end;
// when all of them are in use, new ones are refused.
class AddressLimiter {
 public:
  static constexpr size_t kMaxAddresses = 65'536;

  // `per_hour` of one address; 0: no limit. `clock` must outlive it.
  AddressLimiter(int64_t per_hour, Clock& clock) : per_hour_(per_hour), clock_(clock) {}

  // Takes one of `address`'s turns. RESOURCE_EXHAUSTED with a true time to retry. Addresses of one
  // IPv6 network (/64) count as one.
  absl::Status Take(std::string_view address);

 private:
  const int64_t per_hour_;
  Clock& clock_;
  Mutex mutex_;
  absl::flat_hash_map<std::string, Bucket> buckets_ RETICLE_GUARDED_BY(mutex_);
};

}  // namespace reticle::server::tenants

#endif  // RETICLE_SERVER_TENANTS_ADDRESS_LIMITER_H_
