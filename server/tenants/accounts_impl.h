// The inside of Accounts, shared by accounts.cc (keys, admission, the store's thread) and
// accounts_usage.cc (what running and past requests used). Not for others.
#ifndef RETICLE_SERVER_TENANTS_ACCOUNTS_IMPL_H_
#define RETICLE_SERVER_TENANTS_ACCOUNTS_IMPL_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "server/tenants/accounts.h"

namespace reticle::server::tenants {

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
        lease_(std::move(lease)),
        begin_ns_(accounts.clock_.NowNanos()) {}

  ~Share() override;

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
  UsageCounts TakeProgress();
  // Until all that was asked for is generated at the pace shown so far, ns. Slow starts (a queue, a
  // prompt) count as if they went on, so it is rather too long.
  int64_t ExpectedNs(int64_t now_ns) const;

 private:
  UsageCounts TakeRest();
  UsageCounts Take(const UsageCounts& total);

  Accounts& accounts_;
  const std::shared_ptr<const Account> account_;
  const QuotaRequest request_;
  const std::string lease_;
  const int64_t begin_ns_;
  std::atomic<int64_t> prompt_tokens_{0};
  std::atomic<int64_t> output_tokens_{0};
  UsageCounts recorded_;
  ReservationUse use_;
  bool settled_ = false;
};

}  // namespace reticle::server::tenants

#endif  // RETICLE_SERVER_TENANTS_ACCOUNTS_IMPL_H_
