// Steps a firmware for as long as its card runs: in a thread of the host's process or in a process
// of its own.
#ifndef RETICLE_BACKENDS_HARDWIRED_CARD_FIRMWARE_LOOP_H_
#define RETICLE_BACKENDS_HARDWIRED_CARD_FIRMWARE_LOOP_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

#include "backends/hardwired/card/card_config.h"
#include "backends/hardwired/card/card_memory.h"
#include "backends/hardwired/card/firmware.h"

namespace reticle::backends::hardwired {

// The system's monotonic clock, which all processes of a machine share.
int64_t MonotonicNanos();

// New memory for a card of these parts, and its firmware. `event_fd` is signalled for an armed
// host; -1: nobody. `computes_ahead` as in Firmware::Options.
struct BootedCard {
  std::shared_ptr<CardMemory> memory;
  std::unique_ptr<Firmware> firmware;
};
absl::StatusOr<BootedCard> BootCard(const CardParts& parts, const CardConfig& config,
                                    bool computes_ahead, int event_fd);

class FirmwareLoop {
 public:
  struct Options {
    int doorbell_fd = -1;  // an eventfd: the host rings it when the card sleeps
    int hangup_fd = -1;    // a socket: the loop ends when the other side is gone; -1: none
    bool virtual_clock = false;
  };

  // The references must outlive it.
  FirmwareLoop(Firmware& firmware, CardRegisters& registers, const Options& options,
               const std::atomic<bool>& stop)
      : firmware_(firmware), registers_(registers), options_(options), stop_(stop) {}

  // Returns when `stop` is set (and the doorbell rung), the host has hung up, or the firmware is
  // gone. Spins when something is due soon, else sleeps.
  void Run();

 private:
  bool StepOnce();
  void Sleep();
  bool HostHungUp() const;

  Firmware& firmware_;
  CardRegisters& registers_;
  const Options options_;
  const std::atomic<bool>& stop_;
  int64_t virtual_now_ns_ = 0;
  int64_t now_ns_ = 0;
};

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_CARD_FIRMWARE_LOOP_H_
