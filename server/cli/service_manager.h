// What systemd, or whoever speaks its two small protocols, tells a service and wants to hear from
// it: sockets that are handed over (LISTEN_FDS, sd_listen_fds(3)) and states (NOTIFY_SOCKET,
// sd_notify(3)). Without one every call is a no-op.
#ifndef RETICLE_SERVER_CLI_SERVICE_MANAGER_H_
#define RETICLE_SERVER_CLI_SERVICE_MANAGER_H_

#include <map>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace reticle::server::cli {

// Listening sockets by their name ("http", "grpc", "admin"): those of FileDescriptorName= in the
// socket units, or, where none is named so, http first and grpc second. Empty when none were handed
// over. INVALID_ARGUMENT when there are more than names for them. Clears the variables, so that
// child processes do not take them for theirs. Once, before other threads exist.
absl::StatusOr<std::map<std::string, int>> TakeInheritedSockets();

// Sends a state such as "READY=1" or "STOPPING=1\nSTATUS=draining". Thread-safe.
void NotifyServiceManager(std::string_view state);

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_SERVICE_MANAGER_H_
