// How the driver has its card: within its own calls, in a thread, or in a process. All speak
// through the shared memory alone; a connection only starts the card, wakes it, and notices when it
// is gone.
#ifndef RETICLE_BACKENDS_HARDWIRED_DRIVER_CONNECTION_H_
#define RETICLE_BACKENDS_HARDWIRED_DRIVER_CONNECTION_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backends/hardwired/card/card_memory.h"
#include "backends/hardwired/card/fault_port.h"
#include "backends/hardwired/driver/driver_options.h"

namespace reticle::backends::hardwired {

// Driven by the thread that drives the device, but for hangup_fd.
class Connection {
 public:
  virtual ~Connection() = default;

  // Starts the card, or starts it again after a fault. On OK memory() is new.
  virtual absl::Status Start() = 0;
  const std::shared_ptr<CardMemory>& memory() const { return memory_; }
  FaultPort& fault_port() { return fault_port_; }

  // Something was written for the card.
  virtual void Ring() = 0;
  // Lets an inline card do what is due. Of the others nothing.
  virtual void Pump() {}
  // Virtual clock: the host has nothing more to submit. True when that may have brought something.
  virtual bool Advance() { return false; }
  // True for a card that runs within Pump.
  virtual bool is_inline() const { return false; }
  // The time that the card goes by, as next_event_ns of its registers.
  virtual int64_t NowNanos() const = 0;
  // Readable when the card process is gone; -1: none. Constant between two calls of Start.
  virtual int hangup_fd() const { return -1; }

 protected:
  std::shared_ptr<CardMemory> memory_;
  FaultPort fault_port_;
};

// `event_fd` is the host's: a timerfd for an inline card, an eventfd for the others, which signal
// it when the host has armed it. Must outlive the connection.
absl::StatusOr<std::unique_ptr<Connection>> MakeConnection(const DriverOptions& options,
                                                           int event_fd);

// The parts, for MakeConnection.
absl::StatusOr<std::unique_ptr<Connection>> MakeInlineConnection(const DriverOptions& options,
                                                                 int event_fd);
absl::StatusOr<std::unique_ptr<Connection>> MakeThreadConnection(const DriverOptions& options,
                                                                 int event_fd);
std::unique_ptr<Connection> MakeProcessConnection(const DriverOptions& options, int event_fd);

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_DRIVER_CONNECTION_H_
