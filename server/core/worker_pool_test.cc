#include "server/core/worker_pool.h"

#include <algorithm>
#include <atomic>
#include <optional>

#include "base/retry_after.h"
#include "gtest/gtest.h"

namespace reticle::server {
namespace {

// A pool whose one thread is held until Release, with two jobs behind it: the queue is full.
class FullPoolTest : public ::testing::Test {
 protected:
  FullPoolTest() {
    EXPECT_TRUE(pool_
                    .Post({.tenant = 1},
                          [this] {
                            begun_ = true;
                            begun_.notify_all();
                            held_.wait(true);
                          })
                    .ok());
    begun_.wait(false);
    EXPECT_TRUE(Post(1).ok());
    EXPECT_TRUE(Post(2).ok());
  }
  ~FullPoolTest() override { Release(); }

  absl::Status Post(uint64_t tenant) {
    return pool_.Post({.tenant = tenant}, [this] { ++done_; });
  }
  // Requires that it is refused; the time told.
  int64_t Refused(uint64_t tenant) {
    const absl::Status status = Post(tenant);
    EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
    const std::optional<int64_t> wait_ns = RetryAfterNs(status);
    EXPECT_TRUE(wait_ns.has_value());
    return wait_ns.value_or(0);
  }
  void Release() {
    held_ = false;
    held_.notify_all();
  }

  ManualClock clock_;
  std::atomic<bool> begun_{false};
  std::atomic<bool> held_{true};
  std::atomic<int> done_{0};
  WorkerPool pool_{1, 2, clock_};
};

TEST_F(FullPoolTest, KeepsTheTimeThatItTellsAlthoughTheQueueStaysFull) {
  const int64_t wait_ns = Refused(3);
  const int64_t other_ns = Refused(0);
  clock_.AdvanceNanos(std::min(wait_ns, other_ns) - 1);
  Refused(4);
  Refused(4);
  clock_.AdvanceNanos(std::max(wait_ns, other_ns) - std::min(wait_ns, other_ns) + 1);
  EXPECT_TRUE(Post(3).ok());
  EXPECT_TRUE(Post(0).ok());
  Refused(5);
  Release();
  pool_.Join();
  EXPECT_EQ(done_, 4);
}

TEST_F(FullPoolTest, PromisesNothingWhenItEnds) {
  Release();
  pool_.Join();
  const absl::Status status = Post(3);
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_FALSE(RetryAfterNs(status).has_value());
}

}  // namespace
}  // namespace reticle::server
