#include "server/grpc/stream_worker.h"

#include <chrono>
#include <utility>

namespace reticle::server {
namespace {

// About the time that waking a sleeping thread takes: spinning longer costs more than it saves.
constexpr std::chrono::microseconds kSpin{60};

}  // namespace

void WorkerTask::Post(uint32_t events) {
  StreamWorker& worker = worker_;
  const uint32_t before = state_.fetch_or(events | kQueued, std::memory_order_acq_rel);
  if ((before & kQueued) == 0) worker.Enqueue(this);
}

StreamWorker::StreamWorker() : thread_([this] { Loop(); }) {}

StreamWorker::~StreamWorker() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  available_.NotifyOne();
  thread_.join();
}

void StreamWorker::Enqueue(WorkerTask* task) {
  bool wake = false;
  {
    MutexLock lock(mutex_);
    queue_.push_back(task);
    queued_count_.store(static_cast<uint32_t>(queue_.size()), std::memory_order_release);
    wake = std::exchange(sleeping_, false);
  }
  if (wake) available_.NotifyOne();
}

bool StreamWorker::WaitForTasks(std::vector<WorkerTask*>& tasks) {
  const auto until = std::chrono::steady_clock::now() + kSpin;
  while (queued_count_.load(std::memory_order_acquire) == 0 &&
         std::chrono::steady_clock::now() < until) {
  }
  MutexLock lock(mutex_);
  while (queue_.empty() && !stopping_) {
    sleeping_ = true;
    available_.Wait(mutex_);
  }
  sleeping_ = false;
  tasks.swap(queue_);
  queued_count_.store(0, std::memory_order_release);
  return !tasks.empty();
}

void StreamWorker::Loop() {
  std::vector<WorkerTask*> tasks;
  while (WaitForTasks(tasks)) {
    for (WorkerTask* task : tasks) {
      task->Run(task->state_.exchange(0, std::memory_order_acq_rel) & ~WorkerTask::kQueued);
    }
    tasks.clear();
  }
}

}  // namespace reticle::server
