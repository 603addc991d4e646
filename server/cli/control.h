// What the process is asked to do from outside: by signals, and by the admin listener.
#ifndef RETICLE_SERVER_CLI_CONTROL_H_
#define RETICLE_SERVER_CLI_CONTROL_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>

#include "base/mutex.h"
#include "base/thread_annotations.h"

namespace reticle::server::cli {

// One thread waits; Drain and Run are thread-safe.
class Control {
 public:
  enum class Event : uint8_t {
    kNothing,    // the time passed, or an order was carried out
    kTerminate,  // SIGTERM
    kInterrupt,  // SIGINT
    kReload,     // SIGHUP
    kDrain,      // Drain was called
  };
  struct DrainOrder {
    std::optional<int64_t> delay_ms;  // instead of what the options say
  };

  // Blocks the signals for this thread and those that it starts from now on.
  Control();
  ~Control();
  Control(const Control&) = delete;
  Control& operator=(const Control&) = delete;

  // The next event, within `timeout_ms`. Carries out what Run was given meanwhile.
  Event Wait(int64_t timeout_ms);
  // Of the last kDrain.
  DrainOrder drain_order() const { return drain_order_; }

  void Drain(const DrainOrder& order);
  // Has `work` carried out by the thread that waits, and waits for that. False when nobody will:
  // Close was called.
  bool Run(const std::function<void()>& work);
  // From now on Run refuses; what it was given and not begun is let go.
  void Close();

 private:
  struct Job {
    std::function<void()> work;
    bool done = false;
  };

  void Rouse();
  void RunJobs();

  int signals_ = -1;
  int rouse_ = -1;
  DrainOrder drain_order_;

  Mutex mutex_;
  CondVar changed_;
  std::deque<Job*> jobs_ RETICLE_GUARDED_BY(mutex_);
  std::optional<DrainOrder> asked_ RETICLE_GUARDED_BY(mutex_);
  bool closed_ RETICLE_GUARDED_BY(mutex_) = false;
};

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_CONTROL_H_
