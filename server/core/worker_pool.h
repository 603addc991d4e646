// A few threads for work that would stall an I/O thread: tokenising and rendering long prompts.
#ifndef RETICLE_SERVER_CORE_WORKER_POOL_H_
#define RETICLE_SERVER_CORE_WORKER_POOL_H_

#include <cstddef>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "base/thread_annotations.h"

namespace reticle::server {

// Thread-safe. The destructor joins.
class WorkerPool {
 public:
  // At most `max_queued` jobs wait.
  WorkerPool(size_t threads, size_t max_queued);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // False, without running it, when the queue is full.
  bool Post(std::function<void()> job);
  // Runs what is queued and ends the threads; Post returns false from now on. At most once.
  void Join();

 private:
  void Run();

  const size_t max_queued_;
  Mutex mutex_;
  CondVar changed_;
  std::deque<std::function<void()>> jobs_ RETICLE_GUARDED_BY(mutex_);
  bool stopping_ RETICLE_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_CORE_WORKER_POOL_H_
