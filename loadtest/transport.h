// How a client thread talks to a server: requests go in, their outcomes come back.
#ifndef RETICLE_LOADTEST_TRANSPORT_H_
#define RETICLE_LOADTEST_TRANSPORT_H_

#include <cstdint>
#include <functional>

#include "loadtest/recorder.h"
#include "loadtest/request.h"

namespace reticle::loadtest {

// Belongs to one thread, which calls every method. Start() may be called from `on_done`.
class Transport {
 public:
  // Called once for each started request when it is over, with its outcome filled.
  using OnDone = std::function<void(Request&)>;

  virtual ~Transport() = default;
  // Sends `request` as soon as a connection is free; it must live until on_done.
  virtual void Start(Request& request) = 0;
  // Handles what has come. When nothing has, waits for something until `until_ns`; with `spin` by
  // polling. Returns the time at which it began to handle events, for the loop's lag; 0 when there
  // were none.
  virtual int64_t Poll(int64_t until_ns, bool spin) = 0;
  // Ends every request that still runs with ErrorKind::kUnfinished, through on_done.
  virtual void AbandonAll() = 0;
  virtual int64_t in_flight() const = 0;
};

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_TRANSPORT_H_
