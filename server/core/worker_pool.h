// A few threads for work that would stall an I/O thread: tokenising and rendering long prompts.
//
// So many jobs may wait; who comes beyond is told a time to come back, which is kept
// (scheduler/appointments.h), although the queue may be full then.
#ifndef RETICLE_SERVER_CORE_WORKER_POOL_H_
#define RETICLE_SERVER_CORE_WORKER_POOL_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "scheduler/appointments.h"

namespace reticle::server {

// Thread-safe. The destructor joins.
class WorkerPool {
 public:
  // At most `max_queued` jobs wait, beside those that keep an appointment. `clock` must outlive it.
  WorkerPool(size_t threads, size_t max_queued, Clock& clock);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // Queues a job of `asker`. RESOURCE_EXHAUSTED, with a time to come back, when the queue is full;
  // UNAVAILABLE after Join. Then it is not run.
  absl::Status Post(const scheduler::Asker& asker, std::function<void()> job);
  // Runs what is queued and ends the threads. At most once.
  void Join();

 private:
  struct Job {
    std::function<void()> run;
    int64_t arrival_ns;
  };
  void Run();

  const size_t max_queued_;
  Clock& clock_;
  Mutex mutex_;
  CondVar changed_;
  std::deque<Job> jobs_ RETICLE_GUARDED_BY(mutex_);
  scheduler::AdmissionPace pace_ RETICLE_GUARDED_BY(mutex_);
  scheduler::AppointmentBook appointments_ RETICLE_GUARDED_BY(mutex_);
  bool stopping_ RETICLE_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_CORE_WORKER_POOL_H_
