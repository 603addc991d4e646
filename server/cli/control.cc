#include "server/cli/control.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "base/check.h"

namespace reticle::server::cli {

Control::Control() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, signal);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  signals_ = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  rouse_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  RETICLE_CHECK(signals_ >= 0 && rouse_ >= 0);
}

Control::~Control() {
  close(signals_);
  close(rouse_);
}

void Control::Rouse() {
  const uint64_t one = 1;
  // Full means that it is roused already.
  [[maybe_unused]] const ssize_t written = write(rouse_, &one, sizeof(one));
}

void Control::Drain(const DrainOrder& order) {
  MutexLock lock(mutex_);
  asked_ = order;
  Rouse();
}

bool Control::Run(const std::function<void()>& work) {
  Job job{work};
  MutexLock lock(mutex_);
  if (closed_) return false;
  jobs_.push_back(&job);
  Rouse();
  while (!job.done && !closed_) changed_.Wait(mutex_);
  return job.done;
}

void Control::Close() {
  MutexLock lock(mutex_);
  closed_ = true;
  jobs_.clear();
  changed_.NotifyAll();
}

void Control::RunJobs() {
  MutexLock lock(mutex_);
  while (!jobs_.empty()) {
    Job* const job = jobs_.front();
    jobs_.pop_front();
    // Its caller waits, so it stays where it is; nothing that it does asks for the lock.
    job->work();
    job->done = true;
    changed_.NotifyAll();
  }
}

Control::Event Control::Wait(int64_t timeout_ms) {
  pollfd ready[] = {{signals_, POLLIN, 0}, {rouse_, POLLIN, 0}};
  poll(ready, 2, static_cast<int>(timeout_ms));
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t cleared = read(rouse_, &count, sizeof(count));
  RunJobs();
  signalfd_siginfo info{};
  if (read(signals_, &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) {
    if (info.ssi_signo == SIGHUP) return Event::kReload;
    return info.ssi_signo == SIGINT ? Event::kInterrupt : Event::kTerminate;
  }
  MutexLock lock(mutex_);
  if (!asked_.has_value()) return Event::kNothing;
  drain_order_ = *asked_;
  asked_.reset();
  return Event::kDrain;
}

}  // namespace reticle::server::cli
