#include "server/core/listen_socket.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "base/status.h"

namespace reticle::server {
namespace {

// Of the TCP header: the byte with the flags (RFC 9293, section 3.1).
constexpr uint32_t kFlagsOffset = 13;
constexpr uint32_t kSyn = 0x02;
constexpr uint32_t kSynAck = 0x12;

struct FreeAddresses {
  void operator()(addrinfo* list) const { freeaddrinfo(list); }
};

std::string ErrorText() { return std::strerror(errno); }

}  // namespace

ListenSocket::ListenSocket(ListenSocket&& other) noexcept { *this = std::move(other); }

ListenSocket& ListenSocket::operator=(ListenSocket&& other) noexcept {
  if (this == &other) return *this;
  Close();
  fd_ = std::exchange(other.fd_, -1);
  port_ = other.port_;
  ipv6_ = other.ipv6_;
  inherited_ = other.inherited_;
  return *this;
}

ListenSocket::~ListenSocket() { Close(); }

void ListenSocket::Close() {
  if (fd_ >= 0) close(std::exchange(fd_, -1));
}

int ListenSocket::Release() { return std::exchange(fd_, -1); }

absl::StatusOr<ListenSocket> ListenSocket::Open(const ListenOptions& options) {
  ListenSocket made;
  if (options.inherited_fd >= 0) {
    int listens = 0;
    socklen_t size = sizeof(listens);
    if (getsockopt(options.inherited_fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 ||
        listens == 0) {
      return InvalidArgumentError("descriptor %d is no socket that listens", options.inherited_fd);
    }
    made.fd_ = fcntl(options.inherited_fd, F_DUPFD_CLOEXEC, 0);
    made.inherited_ = true;
  } else {
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_PASSIVE;
    addrinfo* list = nullptr;
    const int found =
        getaddrinfo(options.host.c_str(), std::to_string(options.port).c_str(), &hints, &list);
    if (found != 0) {
      return UnavailableError("cannot resolve the address %s: %s", options.host,
                              gai_strerror(found));
    }
    const std::unique_ptr<addrinfo, FreeAddresses> addresses(list);
    const int one = 1;
    made.fd_ = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (made.fd_ < 0 || setsockopt(made.fd_, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
        (options.reuse_port &&
         setsockopt(made.fd_, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) != 0) ||
        bind(made.fd_, list->ai_addr, list->ai_addrlen) != 0) {
      return UnavailableError("cannot listen on %s:%d: %s", options.host, options.port,
                              ErrorText());
    }
  }
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (made.fd_ < 0 || getsockname(made.fd_, reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
      (address.ss_family != AF_INET && address.ss_family != AF_INET6)) {
    return InvalidArgumentError("descriptor %d is no TCP socket", options.inherited_fd);
  }
  made.ipv6_ = address.ss_family == AF_INET6;
  made.port_ = ntohs(made.ipv6_ ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
                                : reinterpret_cast<const sockaddr_in&>(address).sin_port);
  fcntl(made.fd_, F_SETFL, fcntl(made.fd_, F_GETFL) | O_NONBLOCK);
  return made;
}

absl::Status ListenSocket::Listen() {
  if (inherited_ || listen(fd_, SOMAXCONN) == 0) return absl::OkStatus();
  return UnavailableError("cannot listen on port %d: %s", port_, ErrorText());
}

void ListenSocket::StopArrivals() {
  if (!inherited_) server::StopArrivals(fd_);
}

void StopArrivals(int fd) {
  // Drops a first SYN, lets everything else pass: handshakes that run, and, as accepted sockets
  // inherit the filter, all that they carry.
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, kFlagsOffset),
      BPF_STMT(BPF_ALU | BPF_AND | BPF_K, kSynAck),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kSyn, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, 0),
      BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
  };
  const sock_fprog program{sizeof(code) / sizeof(code[0]), code};
  // Where the system does not know filters, the window in which one may be reset stays open.
  setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
}

}  // namespace reticle::server
