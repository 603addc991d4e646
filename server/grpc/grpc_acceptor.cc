#include "server/grpc/grpc_acceptor.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "base/status.h"

namespace reticle::server {
namespace {

// Out of descriptors: they come back when connections close. Until then nobody spins.
constexpr std::chrono::milliseconds kAcceptPause{50};
constexpr std::chrono::milliseconds kHandshakes{50};

}  // namespace

GrpcAcceptor::GrpcAcceptor(ListenSocket socket, Connections connections)
    : socket_(std::move(socket)),
      connections_(std::move(connections)),
      rouse_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}

GrpcAcceptor::~GrpcAcceptor() {
  Stop();
  close(rouse_);
}

absl::Status GrpcAcceptor::Start() {
  if (thread_.joinable()) return absl::OkStatus();
  RETURN_IF_ERROR(socket_.Listen());
  thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "grpc-accept");
    Loop();
  });
  return absl::OkStatus();
}

void GrpcAcceptor::Stop() {
  if (!thread_.joinable()) return;
  socket_.StopArrivals();
  if (!socket_.inherited()) std::this_thread::sleep_for(kHandshakes);
  stopping_.store(true);
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(rouse_, &one, sizeof(one));
  thread_.join();
  // What waits in a socket that the service manager holds too is for the next process.
  while (!socket_.inherited() && AcceptOne()) {
  }
  close(socket_.Release());
}

bool GrpcAcceptor::AcceptOne() {
  const int fd = accept4(socket_.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) {
    if (errno == EAGAIN || errno == EWOULDBLOCK) return false;
    if (errno == EINTR || errno == ECONNABORTED) return true;
    LogWarning("cannot accept a gRPC connection: %s", std::strerror(errno));
    std::this_thread::sleep_for(kAcceptPause);
    return false;
  }
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters connection;
  connection.listener_fd = socket_.fd();
  connection.fd = fd;
  connections_->HandleNewConnection(&connection);
  return true;
}

void GrpcAcceptor::Loop() {
  while (!stopping_.load()) {
    pollfd ready[] = {{socket_.fd(), POLLIN, 0}, {rouse_, POLLIN, 0}};
    if (poll(ready, 2, -1) <= 0 || (ready[0].revents & POLLIN) == 0) continue;
    while (AcceptOne()) {
    }
  }
}

}  // namespace reticle::server
