// Somebody's hand on the fault port of a running card.
#ifndef RETICLE_BACKENDS_HARDWIRED_CARD_FAULT_PORT_H_
#define RETICLE_BACKENDS_HARDWIRED_CARD_FAULT_PORT_H_

#include <memory>

#include "backends/hardwired/card/card_memory.h"
#include "backends/hardwired/card/fault.h"
#include "base/mutex.h"

namespace reticle::backends::hardwired {

// Thread-safe.
class FaultPort {
 public:
  // Injections go to this card from now on. `doorbell_fd` wakes the card and `timer_fd` (a timerfd)
  // the host; -1: none. They must stay open until Detach.
  void Attach(std::shared_ptr<CardMemory> memory, int doorbell_fd, int timer_fd);
  void Detach();
  // False when no card is attached.
  bool Inject(const FaultSpec& fault);
  void WakeCard();

 private:
  void WakeCardLocked() RETICLE_REQUIRES(mutex_);

  Mutex mutex_;
  std::shared_ptr<CardMemory> memory_ RETICLE_GUARDED_BY(mutex_);
  int doorbell_fd_ RETICLE_GUARDED_BY(mutex_) = -1;
  int timer_fd_ RETICLE_GUARDED_BY(mutex_) = -1;
};

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_CARD_FAULT_PORT_H_
