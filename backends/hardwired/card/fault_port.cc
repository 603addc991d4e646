#include "backends/hardwired/card/fault_port.h"

#include <sys/timerfd.h>
#include <unistd.h>

#include <bit>
#include <utility>

namespace reticle::backends::hardwired {

void FaultPort::Attach(std::shared_ptr<CardMemory> memory, int doorbell_fd, int timer_fd) {
  MutexLock lock(mutex_);
  memory_ = std::move(memory);
  doorbell_fd_ = doorbell_fd;
  timer_fd_ = timer_fd;
}

void FaultPort::Detach() {
  MutexLock lock(mutex_);
  memory_.reset();
  doorbell_fd_ = timer_fd_ = -1;
}

bool FaultPort::Inject(const FaultSpec& fault) {
  MutexLock lock(mutex_);
  if (memory_ == nullptr) return false;
  CardRegisters& registers = memory_->registers();
  const uint64_t rung = registers.fault_doorbell.load(std::memory_order_relaxed);
  FaultSlot& slot = registers.faults[rung % kFaultSlots];
  slot.kind.store(static_cast<uint32_t>(fault.kind), std::memory_order_relaxed);
  slot.value_bits.store(std::bit_cast<uint64_t>(fault.value), std::memory_order_relaxed);
  slot.duration_ns.store(fault.duration_ns, std::memory_order_relaxed);
  registers.fault_doorbell.store(rung + 1, std::memory_order_release);
  WakeCardLocked();
  if (timer_fd_ >= 0) {
    itimerspec now{};
    now.it_value.tv_nsec = 1;
    timerfd_settime(timer_fd_, 0, &now, nullptr);
  }
  return true;
}

void FaultPort::WakeCard() {
  MutexLock lock(mutex_);
  WakeCardLocked();
}

void FaultPort::WakeCardLocked() {
  if (doorbell_fd_ < 0) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(doorbell_fd_, &one, sizeof(one));
}

}  // namespace reticle::backends::hardwired
