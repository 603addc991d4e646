// How engines and workers tell an I/O thread which of its connections have something to write:
// without a lock, once for each connection however often they tell, and without an event when the
// thread is awake anyway.
#ifndef RETICLE_SERVER_HTTP_WAKE_QUEUE_H_
#define RETICLE_SERVER_HTTP_WAKE_QUEUE_H_

#include <atomic>
#include <memory>

#include "base/mpsc_stack.h"

namespace reticle::server::http {

class Connection;
class WakeQueue;

// A connection as those see it who may outlive it.
struct WakeTarget {
  WakeTarget(WakeQueue& to, Connection* of) : queue(to), connection(of) {}

  WakeQueue& queue;
  Connection* connection;  // the thread's; null when it is closed
  std::atomic<bool> queued{false};
  WakeTarget* next = nullptr;        // the queue's
  std::shared_ptr<WakeTarget> self;  // while it is queued
};

class WakeQueue {
 public:
  virtual ~WakeQueue() { Discard(); }

  // Any thread, never blocks.
  void Push(const std::shared_ptr<WakeTarget>& target) {
    if (target->queued.exchange(true, std::memory_order_acq_rel)) return;
    target->self = target;
    stack_.Push(target.get());
    if (asleep_.load(std::memory_order_seq_cst) &&
        asleep_.exchange(false, std::memory_order_acq_rel)) {
      Rouse();
    }
  }

 protected:
  // ---- the thread
  // Calls `deliver` with each connection that was pushed and lives. Whether there was any.
  template <typename Deliver>
  bool Drain(Deliver deliver) {
    WakeTarget* target = stack_.TakeAll();
    if (target == nullptr) return false;
    while (target != nullptr) {
      WakeTarget* const next = target->next;
      const std::shared_ptr<WakeTarget> taken = std::move(target->self);
      taken->queued.store(false, std::memory_order_release);
      if (taken->connection != nullptr) deliver(*taken->connection);
      target = next;
    }
    return true;
  }
  // From now on a push rouses the thread. False when something was pushed already.
  bool FallAsleep() {
    asleep_.store(true, std::memory_order_seq_cst);
    if (stack_.Empty()) return true;
    asleep_.store(false, std::memory_order_relaxed);
    return false;
  }
  void Awake() { asleep_.store(false, std::memory_order_relaxed); }
  // Ends the thread's sleep. From any thread.
  virtual void Rouse() = 0;

 private:
  void Discard() {
    Drain([](Connection&) {});
  }

  MpscStack<WakeTarget, &WakeTarget::next> stack_;
  std::atomic<bool> asleep_{false};
};

}  // namespace reticle::server::http

#endif  // RETICLE_SERVER_HTTP_WAKE_QUEUE_H_
