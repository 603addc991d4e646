// An engine that an event loop steps, run to completion, instead of a thread of its own.
#ifndef RETICLE_SERVER_CORE_ENGINE_TASK_H_
#define RETICLE_SERVER_CORE_ENGINE_TASK_H_

#include <cstdint>
#include <functional>
#include <utility>

#include "scheduler/engine.h"
#include "server/core/loop_task.h"

namespace reticle::server {

class EngineTask : public LoopTask {
 public:
  // `engine` must outlive this, and nothing else may step it.
  explicit EngineTask(scheduler::Engine& engine) : engine_(engine) {}

  // Whether stepping it never takes long: only then may a loop with sockets do it.
  static bool Suits(const scheduler::Engine& engine) {
    return (engine.capabilities().features & RETICLE_FEATURE_CHEAP_POLL) != 0;
  }

  bool RunOnce() override { return engine_.Step(); }
  bool PrepareSleep() override { return engine_.PrepareSleep(); }
  int event_fd() const override { return engine_.event_fd(); }
  int64_t next_timer_ns() const override { return engine_.next_timer_ns(); }
  void SetWake(std::function<void()> wake) override { engine_.SetWake(std::move(wake)); }

 private:
  scheduler::Engine& engine_;
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_CORE_ENGINE_TASK_H_
