#include "scheduler/engine_thread.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "base/status.h"
#include "scheduler/adaptive_spin.h"

namespace reticle::scheduler {
namespace {

constexpr int64_t kSpinCheapNs = 200'000;
constexpr int64_t kSpinNs = 10'000;
constexpr int64_t kNanosPerSecond = 1'000'000'000;

// Empties an eventfd; when there is nothing to read, nothing happens.
void Clear(int fd) {
  uint64_t count;
  while (read(fd, &count, sizeof(count)) < 0 && errno == EINTR) {
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<EngineThread>> EngineThread::Start(Engine& engine,
                                                                  const Options& options,
                                                                  Clock& clock) {
  const int wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (wake_fd < 0) return InternalError("eventfd: %s", std::strerror(errno));
  const bool cheap = (engine.capabilities().features & RETICLE_FEATURE_CHEAP_POLL) != 0;
  const int64_t spin_ns = options.spin_ns >= 0 ? options.spin_ns : (cheap ? kSpinCheapNs : kSpinNs);
  std::unique_ptr<EngineThread> made(new EngineThread(engine, spin_ns, clock, wake_fd));
  engine.SetWake([thread = made.get()] { thread->Wake(); });
  try {
    made->thread_ = std::thread([thread = made.get(), name = options.name] { thread->Run(name); });
  } catch (const std::system_error& error) {
    return InternalError("cannot start the engine thread: %s", error.what());
  }
  return made;
}

EngineThread::EngineThread(Engine& engine, int64_t spin_ns, Clock& clock, int wake_fd)
    : engine_(engine), clock_(clock), spin_ns_(spin_ns), wake_fd_(wake_fd) {}

EngineThread::~EngineThread() {
  Stop();
  engine_.SetWake(nullptr);
  close(wake_fd_);
}

void EngineThread::Stop() {
  stop_.store(true, std::memory_order_release);
  Wake();
  if (thread_.joinable()) thread_.join();
}

void EngineThread::Wake() {
  const uint64_t one = 1;
  while (write(wake_fd_, &one, sizeof(one)) < 0 && errno == EINTR) {
  }
}

void EngineThread::Run(const std::string& name) {
  pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
  AdaptiveSpin spin(AdaptiveSpin::OnThisMachine(spin_ns_), clock_.NowNanos());
  while (!stop_.load(std::memory_order_acquire)) {
    if (engine_.Step()) {
      spin.OnWork(clock_.NowNanos());
    } else if (spin.Spins(clock_.NowNanos())) {
      SpinPause();
    } else {
      spin.OnSleep();
      if (engine_.PrepareSleep()) Sleep();
    }
  }
}

void EngineThread::Sleep() {
  timespec timeout{};
  const timespec* limit = nullptr;
  if (const int64_t timer_ns = engine_.next_timer_ns(); timer_ns != INT64_MAX) {
    const int64_t left_ns = std::max<int64_t>(timer_ns - clock_.NowNanos(), 0);
    timeout.tv_sec = static_cast<time_t>(left_ns / kNanosPerSecond);
    timeout.tv_nsec = static_cast<long>(left_ns % kNanosPerSecond);
    limit = &timeout;
  }
  pollfd fds[2] = {{wake_fd_, POLLIN, 0}, {engine_.event_fd(), POLLIN, 0}};
  sleeps_.fetch_add(1, std::memory_order_relaxed);
  if (ppoll(fds, 2, limit, nullptr) <= 0) return;
  for (const pollfd& fd : fds) {
    if ((fd.revents & POLLIN) != 0) Clear(fd.fd);
  }
}

}  // namespace reticle::scheduler
