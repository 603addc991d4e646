#include "server/grpc/stream_worker.h"

#include <pthread.h>

#include <utility>

#include "base/clock.h"
#include "scheduler/adaptive_spin.h"

namespace reticle::server {
namespace {

// About the time that waking a sleeping thread takes: spinning longer costs more than it saves.
constexpr int64_t kSpinNs = 60'000;

}  // namespace

void WorkerTask::Post(uint32_t events) {
  StreamWorker& worker = worker_;
  const uint32_t before = state_.fetch_or(events | kQueued, std::memory_order_acq_rel);
  if ((before & kQueued) == 0) worker.Enqueue(this);
}

StreamWorker::StreamWorker() = default;

StreamWorker::~StreamWorker() {
  if (!thread_.joinable()) return;
  stopping_.store(true, std::memory_order_release);
  {
    MutexLock lock(mutex_);
    roused_ = true;
  }
  roused_changed_.NotifyOne();
  thread_.join();
}

void StreamWorker::SetWake(std::function<void()> wake) {
  MutexLock lock(wake_mutex_);
  wake_ = std::move(wake);
}

void StreamWorker::Enqueue(WorkerTask* task) {
  queue_.Push(task);
  if (!asleep_.load(std::memory_order_seq_cst)) return;
  if (!asleep_.exchange(false, std::memory_order_acq_rel)) return;
  MutexLock lock(wake_mutex_);
  if (wake_) wake_();
}

bool StreamWorker::RunOnce() {
  if (asleep_.load(std::memory_order_relaxed)) asleep_.store(false, std::memory_order_relaxed);
  WorkerTask* task = queue_.TakeAll();
  if (task == nullptr) return false;
  while (task != nullptr) {
    // Once its bits are taken it may be queued again, and when it has run it may be gone.
    WorkerTask* const next = task->next_;
    task->Run(task->state_.exchange(0, std::memory_order_acq_rel) & ~WorkerTask::kQueued);
    task = next;
  }
  return true;
}

bool StreamWorker::PrepareSleep() {
  asleep_.store(true, std::memory_order_seq_cst);
  if (queue_.Empty()) return true;
  asleep_.store(false, std::memory_order_relaxed);
  return false;
}

void StreamWorker::StartThread() {
  SetWake([this] {
    {
      MutexLock lock(mutex_);
      roused_ = true;
    }
    roused_changed_.NotifyOne();
  });
  thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "grpc");
    Loop();
  });
}

void StreamWorker::Loop() {
  const Clock& clock = Clock::Monotonic();
  scheduler::AdaptiveSpin spin(scheduler::AdaptiveSpin::OnThisMachine(kSpinNs), clock.NowNanos());
  while (!stopping_.load(std::memory_order_acquire)) {
    if (RunOnce()) {
      spin.OnWork(clock.NowNanos());
    } else if (spin.Spins(clock.NowNanos())) {
      scheduler::SpinPause();
    } else {
      spin.OnSleep();
      if (PrepareSleep()) Sleep();
    }
  }
}

void StreamWorker::Sleep() {
  MutexLock lock(mutex_);
  while (!roused_) roused_changed_.Wait(mutex_);
  roused_ = false;
}

}  // namespace reticle::server
