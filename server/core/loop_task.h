// What a front's event loop runs beside its sockets, on the same thread and to completion: an
// engine whose device is cheap to poll, or the calls of another front. So nothing sleeps, and
// nothing is handed over, between a token and its socket.
#ifndef RETICLE_SERVER_CORE_LOOP_TASK_H_
#define RETICLE_SERVER_CORE_LOOP_TASK_H_

#include <cstdint>
#include <functional>

namespace reticle::server {

// All but the waker is called on the loop's thread.
class LoopTask {
 public:
  virtual ~LoopTask() = default;
  // Does what there is to do, without blocking. Whether there was anything.
  virtual bool RunOnce() = 0;
  // Before the loop sleeps. False when there is something to do already; else new work calls the
  // waker.
  virtual bool PrepareSleep() = 0;
  // A descriptor that becomes readable with new work and is cleared by reading it, or -1.
  virtual int event_fd() const { return -1; }
  // When RunOnce has something to do by itself, on the server's clock; INT64_MAX: never.
  virtual int64_t next_timer_ns() const { return INT64_MAX; }
  // `wake` may be called by any thread until this is called with null, which waits for a call that
  // is under way. It does not block.
  virtual void SetWake(std::function<void()> wake) = 0;
};

// A front with event loops. Thread-safe.
class LoopHost {
 public:
  virtual ~LoopHost() = default;
  // From now on one of the loops runs `task`: until Detach, or until the host stops.
  virtual void Attach(LoopTask& task) = 0;
  // When it returns the task is not running and will not be run. Not from a loop's thread.
  virtual void Detach(LoopTask& task) = 0;
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_CORE_LOOP_TASK_H_
