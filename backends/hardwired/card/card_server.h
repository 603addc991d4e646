// A card as a process of its own: what `reticle card` runs, and what the driver starts.
#ifndef RETICLE_BACKENDS_HARDWIRED_CARD_CARD_SERVER_H_
#define RETICLE_BACKENDS_HARDWIRED_CARD_CARD_SERVER_H_

#include <string>

#include "absl/status/status.h"
#include "backends/hardwired/card/card_config.h"

namespace reticle::backends::hardwired {

struct CardServerOptions {
  CardConfig config;
  // Listens here for hosts, one at a time; each finds a card as after a reset.
  std::string socket_path;
  // Or serves the one host at the other end of this socket, which brings the whole configuration,
  // and ends with it; -1: none.
  int socket_fd = -1;
};

// Returns when a host's socket_fd is closed, at SIGTERM or SIGINT, or with the reason why it cannot
// begin. The signal SIGRTMIN + n injects the fault FaultKind n with its default value. Blocks those
// signals: call it before any other thread exists.
absl::Status RunCardServer(const CardServerOptions& options);

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_CARD_CARD_SERVER_H_
