#include "server/core/worker_pool.h"

#include <pthread.h>

#include <optional>
#include <utility>

#include "base/retry_after.h"
#include "base/status.h"

namespace reticle::server {

WorkerPool::WorkerPool(size_t threads, size_t max_queued, Clock& clock)
    : max_queued_(max_queued), clock_(clock) {
  for (size_t i = 0; i < threads; ++i) {
    threads_.emplace_back([this] {
      pthread_setname_np(pthread_self(), "worker");
      Run();
    });
  }
}

WorkerPool::~WorkerPool() { Join(); }

void WorkerPool::Join() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

absl::Status WorkerPool::Post(const scheduler::Asker& asker, std::function<void()> job) {
  const int64_t now_ns = clock_.NowNanos();
  {
    MutexLock lock(mutex_);
    if (stopping_) return UnavailableError("the server is shutting down");
    if (jobs_.size() < max_queued_) {
      appointments_.OnRoom();
    } else if (!appointments_.Redeem(asker, now_ns)) {
      const auto excess = static_cast<uint32_t>(jobs_.size() + 1 - max_queued_);
      const std::optional<int64_t> wait_ns = appointments_.Book(asker, excess, pace_, now_ns);
      absl::Status refusal = ResourceExhaustedError(
          "%d requests wait to be prepared already; the limit is %d", jobs_.size(), max_queued_);
      return wait_ns.has_value() ? WithRetryAfter(std::move(refusal), *wait_ns) : refusal;
    }
    jobs_.push_back({std::move(job), now_ns});
  }
  changed_.NotifyOne();
  return absl::OkStatus();
}

void WorkerPool::Run() {
  for (;;) {
    Job job;
    {
      MutexLock lock(mutex_);
      while (jobs_.empty() && !stopping_) changed_.Wait(mutex_);
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
      if (!jobs_.empty()) pace_.OnAdmitted(job.arrival_ns, clock_.NowNanos());
    }
    job.run();
  }
}

}  // namespace reticle::server
