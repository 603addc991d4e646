#include "backends/hardwired/card/firmware_loop.h"

#include <poll.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "base/status.h"

namespace reticle::backends::hardwired {
namespace {

constexpr uint32_t kCompletionCells = 1024;
constexpr int64_t kSpinNs = 100'000;   // after the last work, and before the next
constexpr int64_t kWakeUpNs = 80'000;  // how late a sleeping thread wakes
constexpr int64_t kLongestSleepNs = 250'000'000;
constexpr int64_t kHangupEveryNs = 5'000'000;
constexpr int64_t kNanosPerSecond = 1'000'000'000;

void Pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

int64_t MonotonicNanos() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kNanosPerSecond + now.tv_nsec;
}

absl::StatusOr<BootedCard> BootCard(const CardParts& parts, const CardConfig& config,
                                    bool computes_ahead, int event_fd) {
  BootedCard card;
  ASSIGN_OR_RETURN(card.memory,
                   CardMemory::Create(2 * LongestOrderBytes(parts.capabilities), kCompletionCells));
  card.memory->registers().flags =
      (config.replay ? kCardReplays : 0) | (config.virtual_clock ? kCardHasVirtualClock : 0);
  Firmware::Options options;
  options.capabilities = parts.capabilities;
  options.device_top_k = parts.device_top_k;
  options.computes_ahead = computes_ahead && parts.content->computes();
  options.stretches = !config.virtual_clock && parts.content->computes() &&
                      parts.timing.batching() != Batching::kUnlimited;
  options.scrub_ns = int64_t{config.scrub_ms} * 1'000'000;
  if (parts.content->computes()) options.now_ns = MonotonicNanos;
  if (event_fd >= 0) {
    options.notify_host = [event_fd] {
      const uint64_t one = 1;
      // A full counter means that the host is signalled already.
      [[maybe_unused]] const ssize_t written = write(event_fd, &one, sizeof(one));
    };
  }
  card.firmware = std::make_unique<Firmware>(std::move(options), parts.profile, parts.timing,
                                             *parts.content, card.memory);
  return card;
}

bool FirmwareLoop::StepOnce() {
  if (!options_.virtual_clock) {
    now_ns_ = MonotonicNanos();
    return firmware_.Step(now_ns_);
  }
  now_ns_ = MonotonicNanos();
  if (firmware_.Step(virtual_now_ns_)) return true;
  const uint64_t request = registers_.advance_request.load(std::memory_order_acquire);
  if (request == registers_.advanced.load(std::memory_order_relaxed)) return false;
  // The host has nothing more to submit: on to the next event.
  const int64_t next = firmware_.next_event_ns();
  if (next != INT64_MAX) {
    virtual_now_ns_ = std::max(virtual_now_ns_, next);
    firmware_.Step(virtual_now_ns_);
  }
  registers_.advanced.store(request, std::memory_order_release);
  return true;
}

void FirmwareLoop::Run() {
  int64_t last_work_ns = MonotonicNanos();
  int64_t next_hangup_ns = 0;
  while (!stop_.load(std::memory_order_acquire) && !firmware_.gone()) {
    if (StepOnce()) last_work_ns = now_ns_;
    if (options_.hangup_fd >= 0 && now_ns_ >= next_hangup_ns) {
      if (HostHungUp()) return;
      next_hangup_ns = now_ns_ + kHangupEveryNs;
    }
    const int64_t next = firmware_.next_event_ns();
    const bool due_soon = !options_.virtual_clock && next < now_ns_ + kSpinNs;
    if (due_soon || now_ns_ - last_work_ns < kSpinNs) {
      if (next != INT64_MIN) Pause();
      continue;
    }
    Sleep();
  }
}

void FirmwareLoop::Sleep() {
  registers_.card_sleeps.store(1, std::memory_order_seq_cst);
  const bool called = registers_.submission_tail.load(std::memory_order_seq_cst) !=
                          registers_.submission_head.load(std::memory_order_relaxed) ||
                      registers_.advance_request.load(std::memory_order_seq_cst) !=
                          registers_.advanced.load(std::memory_order_relaxed) ||
                      registers_.resend_request.load(std::memory_order_seq_cst) !=
                          registers_.resent.load(std::memory_order_relaxed);
  // A hung card does not look at what it is called for.
  const bool deaf = registers_.state.load(std::memory_order_relaxed) !=
                        static_cast<uint32_t>(CardState::kRunning) ||
                    firmware_.hung();
  if (!called || deaf) {
    int64_t left_ns = kLongestSleepNs;
    const int64_t next = firmware_.next_event_ns();
    if (!options_.virtual_clock && next != INT64_MAX) {
      left_ns =
          std::clamp<int64_t>(std::max(next, now_ns_) - now_ns_ - kWakeUpNs, 0, kLongestSleepNs);
    }
    const timespec timeout{left_ns / kNanosPerSecond, left_ns % kNanosPerSecond};
    pollfd fds[2] = {{options_.doorbell_fd, POLLIN, 0}, {options_.hangup_fd, POLLIN, 0}};
    if (ppoll(fds, options_.hangup_fd >= 0 ? 2 : 1, &timeout, nullptr) > 0 &&
        (fds[0].revents & POLLIN) != 0) {
      uint64_t count = 0;
      [[maybe_unused]] const ssize_t taken = read(options_.doorbell_fd, &count, sizeof(count));
    }
  }
  registers_.card_sleeps.store(0, std::memory_order_relaxed);
}

bool FirmwareLoop::HostHungUp() const {
  pollfd fd{options_.hangup_fd, POLLIN, 0};
  // The host says nothing after the greeting, so whatever can be read is the end.
  return poll(&fd, 1, 0) > 0;
}

}  // namespace reticle::backends::hardwired
