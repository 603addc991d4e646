// std::mutex and std::condition_variable with clang's thread-safety annotations. Unlike absl::Mutex
// in the distribution's uninstrumented build, they are understood by ThreadSanitizer.
//
//   Mutex mutex_;
//   int count_ RETICLE_GUARDED_BY(mutex_);
//   MutexLock lock(mutex_);
//   while (count_ == 0) ready_.Wait(mutex_);
#ifndef RETICLE_BASE_MUTEX_H_
#define RETICLE_BASE_MUTEX_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "base/thread_annotations.h"

namespace reticle {

class RETICLE_CAPABILITY("mutex") Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() RETICLE_ACQUIRE() { mutex_.lock(); }
  void Unlock() RETICLE_RELEASE() { mutex_.unlock(); }

 private:
  friend class CondVar;
  std::mutex mutex_;
};

class RETICLE_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) RETICLE_ACQUIRE(mutex) : mutex_(mutex) { mutex_.Lock(); }
  ~MutexLock() RETICLE_RELEASE() { mutex_.Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

class CondVar {
 public:
  // Releases `mutex`, waits for a notification (or a spurious wake-up) and takes it again.
  void Wait(Mutex& mutex) RETICLE_REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    condition_.wait(lock);
    lock.release();
  }
  // As Wait, for at most `timeout_ns` nanoseconds. Returns false on time-out.
  bool WaitFor(Mutex& mutex, int64_t timeout_ns) RETICLE_REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    const bool notified = condition_.wait_for(lock, std::chrono::nanoseconds(timeout_ns)) ==
                          std::cv_status::no_timeout;
    lock.release();
    return notified;
  }
  void NotifyOne() { condition_.notify_one(); }
  void NotifyAll() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace reticle

#endif  // RETICLE_BASE_MUTEX_H_
