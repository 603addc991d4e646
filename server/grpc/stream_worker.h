// One thread that owns the state of many gRPC calls: callbacks of gRPC and of the engines only set
// event bits and queue the call; everything else of a call runs here, so calls need no locks.
#ifndef RETICLE_SERVER_GRPC_STREAM_WORKER_H_
#define RETICLE_SERVER_GRPC_STREAM_WORKER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>

#include "base/mpsc_stack.h"
#include "base/mutex.h"
#include "base/thread_annotations.h"
#include "server/core/loop_task.h"

namespace reticle::server {

class StreamWorker;

// Something that the worker runs when one of its events was posted. It may delete itself in Run,
// but only when no further Post can come and queued() is false.
class WorkerTask {
 public:
  virtual ~WorkerTask() = default;

  // Adds event bits (below kQueued) and queues the task unless it is queued already. Any thread;
  // takes no lock unless the worker sleeps.
  void Post(uint32_t events);

 protected:
  explicit WorkerTask(StreamWorker& worker) : worker_(worker) {}

  // On the worker's thread, with all bits that were posted since the last call.
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
  WorkerTask* next_ = nullptr;  // the queue's
};

// Run by an event loop that it is attached to, beside the engines whose devices are cheap to poll,
// or by a thread of its own.
class StreamWorker : public LoopTask {
 public:
  StreamWorker();
  // Stops its thread, if any. No task may be queued any more.
  ~StreamWorker() override;
  StreamWorker(const StreamWorker&) = delete;
  StreamWorker& operator=(const StreamWorker&) = delete;

  // Nothing else may run it then.
  void StartThread();

  bool RunOnce() override;
  bool PrepareSleep() override;
  void SetWake(std::function<void()> wake) override;

 private:
  friend class WorkerTask;
  void Enqueue(WorkerTask* task);
  void Loop();
  void Sleep();

  MpscStack<WorkerTask, &WorkerTask::next_> queue_;
  std::atomic<bool> asleep_{false};
  Mutex wake_mutex_;
  std::function<void()> wake_ RETICLE_GUARDED_BY(wake_mutex_);

  // Of its own thread.
  Mutex mutex_;
  CondVar roused_changed_;
  bool roused_ RETICLE_GUARDED_BY(mutex_) = false;
  std::atomic<bool> stopping_{false};
  std::thread thread_;  // last: it uses the rest
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_GRPC_STREAM_WORKER_H_
