// One thread that owns the state of many gRPC calls: callbacks of gRPC and of the engines only set
// event bits and queue the call; everything else of a call runs here, so calls need no locks.
#ifndef RETICLE_SERVER_GRPC_STREAM_WORKER_H_
#define RETICLE_SERVER_GRPC_STREAM_WORKER_H_

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "base/thread_annotations.h"

namespace reticle::server {

class StreamWorker;

// Something that the worker runs when one of its events was posted. It may delete itself in Run,
// but only when no further Post can come and queued() is false.
class WorkerTask {
 public:
  virtual ~WorkerTask() = default;

  // Adds event bits (below kQueued) and queues the task unless it is queued already. Any thread;
  // does not block for long.
  void Post(uint32_t events);

 protected:
  explicit WorkerTask(StreamWorker& worker) : worker_(worker) {}

  // On the worker thread, with all bits that were posted since the last call.
  virtual void Run(uint32_t events) = 0;
  // A further Run is coming.
  bool queued() const { return (state_.load(std::memory_order_acquire) & kQueued) != 0; }

 private:
  friend class StreamWorker;

  StreamWorker& worker_;
  // Event bits and whether the task is queued, in one word: a task may delete itself as soon as its
  // last event is seen, so the poster must not touch it after that became possible.
  static constexpr uint32_t kQueued = 1u << 31;
  std::atomic<uint32_t> state_{0};
};

// Spins briefly for the next event before it sleeps: waking a sleeping thread costs 35 to 65 us.
class StreamWorker {
 public:
  StreamWorker();
  // Stops the thread. No task may be queued any more.
  ~StreamWorker();
  StreamWorker(const StreamWorker&) = delete;
  StreamWorker& operator=(const StreamWorker&) = delete;

 private:
  friend class WorkerTask;
  void Enqueue(WorkerTask* task);
  void Loop();
  bool WaitForTasks(std::vector<WorkerTask*>& tasks);

  Mutex mutex_;
  CondVar available_;
  std::vector<WorkerTask*> queue_ RETICLE_GUARDED_BY(mutex_);
  bool sleeping_ RETICLE_GUARDED_BY(mutex_) = false;
  bool stopping_ RETICLE_GUARDED_BY(mutex_) = false;
  std::atomic<uint32_t> queued_count_{0};
  std::thread thread_;  // last: it uses the rest
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_GRPC_STREAM_WORKER_H_
