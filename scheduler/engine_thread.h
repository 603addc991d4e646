// The thread that steps one engine: spins for a moment after work, then sleeps on the device's
// event descriptor, the engine's wake-up and its timers.
//
//   ASSIGN_OR_RETURN(auto thread, EngineThread::Start(*engine, {}));
//   ... any thread: engine->Submit(...)
//   thread->Stop();   // or its destructor; the engine is not drained by it
#ifndef RETICLE_SCHEDULER_ENGINE_THREAD_H_
#define RETICLE_SCHEDULER_ENGINE_THREAD_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "scheduler/engine.h"

namespace reticle::scheduler {

class EngineThread {
 public:
  struct Options {
    // How long to look again and again after the last work before going to sleep, ns; less while
    // that is in vain (scheduler/adaptive_spin.h). A sleeping thread is 35-65 us late, a spinning
    // one takes a core. Negative: 200 us for a device that is
    // cheap to poll, so that nothing sleeps between two of its tokens, else 10 us, so that the
    // core is the device's.
    int64_t spin_ns = -1;
    // As shown by the system, at most 15 characters.
    std::string name = "engine";
  };

  // `engine` must outlive it, and its clock must be `clock`. Takes the engine's wake-up for itself.
  static absl::StatusOr<std::unique_ptr<EngineThread>> Start(Engine& engine, const Options& options,
                                                             Clock& clock = Clock::Monotonic());
  ~EngineThread();
  EngineThread(const EngineThread&) = delete;
  EngineThread& operator=(const EngineThread&) = delete;

  // Any thread; returns when the thread has ended. The engine may be stepped by another one then.
  void Stop();
  // How often it has gone to sleep, for tests and reports.
  uint64_t sleeps() const { return sleeps_.load(std::memory_order_relaxed); }

 private:
  EngineThread(Engine& engine, int64_t spin_ns, Clock& clock, int wake_fd);
  void Run(const std::string& name);
  void Sleep();
  void Wake();

  Engine& engine_;
  Clock& clock_;
  const int64_t spin_ns_;
  const int wake_fd_;  // its own
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> sleeps_{0};
  std::thread thread_;
};

}  // namespace reticle::scheduler

#endif  // RETICLE_SCHEDULER_ENGINE_THREAD_H_
