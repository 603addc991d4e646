// A listening TCP socket whose connections can go over to another process without one being lost.
//
// Linux keeps connections that are complete in the listener's backlog and resets them when it is
// closed. Close() of a server therefore comes in three steps: StopArrivals, accept what is there,
// close. A client that comes between is not answered, tries again within a second, and then finds
// whoever listens on the address by then.
#ifndef RETICLE_SERVER_CORE_LISTEN_SOCKET_H_
#define RETICLE_SERVER_CORE_LISTEN_SOCKET_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace reticle::server {

struct ListenOptions {
  std::string host = "127.0.0.1";  // an address, or a name that resolves to one
  uint16_t port = 0;               // 0: any free one
  // Other processes of this user may listen there too (SO_REUSEPORT); the system shares connections
  // between them.
  bool reuse_port = false;
  // A socket that listens already, from the service manager; -1: none. The rest is ignored then.
  int inherited_fd = -1;
};

// Not thread-safe. Closes its socket.
class ListenSocket {
 public:
  // Binds the address. UNAVAILABLE naming it when that is not possible; INVALID_ARGUMENT for an
  // inherited descriptor that is no listening TCP socket.
  static absl::StatusOr<ListenSocket> Open(const ListenOptions& options);
  ListenSocket(ListenSocket&& other) noexcept;
  ListenSocket& operator=(ListenSocket&& other) noexcept;
  ~ListenSocket();

  // Connections may come from now on.
  absl::Status Listen();
  // No new connection is begun; those that have begun can still be accepted. No effect on a socket
  // that other processes accept from.
  void StopArrivals();
  // Gives the descriptor away.
  int Release();

  int fd() const { return fd_; }
  uint16_t port() const { return port_; }
  bool ipv6() const { return ipv6_; }
  // The service manager holds it too: what waits in it is not lost when this process lets go.
  bool inherited() const { return inherited_; }

 private:
  ListenSocket() = default;
  void Close();

  int fd_ = -1;
  uint16_t port_ = 0;
  bool ipv6_ = false;
  bool inherited_ = false;
};

// As the member, for a descriptor that was given away.
void StopArrivals(int fd);

}  // namespace reticle::server

#endif  // RETICLE_SERVER_CORE_LISTEN_SOCKET_H_
