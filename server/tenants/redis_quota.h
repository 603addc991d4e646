// Quotas that all replicas share, kept in Redis.
#ifndef RETICLE_SERVER_TENANTS_REDIS_QUOTA_H_
#define RETICLE_SERVER_TENANTS_REDIS_QUOTA_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/core/server_probe.h"
#include "server/tenants/quota.h"

namespace reticle::server::tenants {

// One atomic script a reservation, on Redis' own clock, so that the clocks of replicas do not
// matter. While Redis is away, every replica counts by itself with the same limits (`degraded`). A
// thread asks for Redis once a second, so that both its going and its coming back are seen without
// traffic, and no request waits for a Redis that is known to be away. Thread-safe.
class RedisQuota : public QuotaLedger {
 public:
  // `address`: "redis://HOST:PORT" or "redis://:PASSWORD@HOST:PORT". `local` counts while Redis is
  // away. Succeeds also while it is away. INVALID_ARGUMENT for a malformed address. `clock` and
  // `probe` must outlive it.
  static absl::StatusOr<std::unique_ptr<RedisQuota>> Open(const std::string& address,
                                                          std::unique_ptr<LocalQuota> local,
                                                          Clock& clock, ServerProbe& probe);
  ~RedisQuota() override;

  QuotaDecision Reserve(const QuotaRequest& request, std::string_view lease,
                        PlaceForecast forecast) override;
  // Does not wait: a thread of its own tells Redis.
  void Settle(const QuotaRequest& request, std::string_view lease, int64_t requests_back,
              int64_t tokens_back) override;
  QuotaState Peek(const std::string& organisation, const TierLimits& limits) override;
  bool blocks() const override { return true; }
  bool degraded() const override;

 private:
  RedisQuota();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace reticle::server::tenants

#endif  // RETICLE_SERVER_TENANTS_REDIS_QUOTA_H_
