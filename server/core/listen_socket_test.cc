#include "server/core/listen_socket.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

namespace reticle::server {
namespace {

// Begins to connect; the descriptor, which does not block.
int Connect(uint16_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  return fd;
}

// Whether it is connected within `ms`.
bool Connected(int fd, int ms) {
  pollfd ready{fd, POLLOUT, 0};
  if (poll(&ready, 1, ms) != 1) return false;
  int error = 0;
  socklen_t size = sizeof(error);
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
  return error == 0;
}

TEST(ListenSocketTest, AnAddressInUseIsNamed) {
  auto first = ListenSocket::Open({});
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_TRUE(first->Listen().ok());
  EXPECT_GT(first->port(), 0);
  const auto second = ListenSocket::Open({.port = first->port()});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()),
              testing::HasSubstr("127.0.0.1:" + std::to_string(first->port())));
}

TEST(ListenSocketTest, WhatHasArrivedStaysWhatComesLaterGoesToTheNext) {
  auto old = ListenSocket::Open({.reuse_port = true});
  ASSERT_TRUE(old.ok()) << old.status();
  ASSERT_TRUE(old->Listen().ok());
  const int early = Connect(old->port());
  ASSERT_TRUE(Connected(early, 10'000));
  old->StopArrivals();
  const int late = Connect(old->port());
  EXPECT_FALSE(Connected(late, 50));

  // The one in the backlog is complete, and data still passes the filter.
  const int accepted = accept(old->fd(), nullptr, nullptr);
  ASSERT_GE(accepted, 0);
  ASSERT_EQ(send(early, "x", 1, 0), 1);
  char byte = 0;
  pollfd ready{accepted, POLLIN, 0};
  ASSERT_EQ(poll(&ready, 1, 10'000), 1);
  ASSERT_EQ(recv(accepted, &byte, 1, 0), 1);
  EXPECT_LT(accept(old->fd(), nullptr, nullptr), 0);
  EXPECT_EQ(errno, EAGAIN);

  auto next = ListenSocket::Open({.port = old->port(), .reuse_port = true});
  ASSERT_TRUE(next.ok()) << next.status();
  ASSERT_TRUE(next->Listen().ok());
  { const ListenSocket gone = *std::move(old); }
  // Its SYN is sent again.
  EXPECT_TRUE(Connected(late, 30'000));
  for (const int fd : {early, late, accepted}) close(fd);
}

TEST(ListenSocketTest, TakesAnInheritedSocketAndLeavesItsQueueAlone) {
  auto owner = ListenSocket::Open({});
  ASSERT_TRUE(owner.ok());
  ASSERT_TRUE(owner->Listen().ok());
  const int waiting = Connect(owner->port());
  ASSERT_TRUE(Connected(waiting, 10'000));
  {
    auto inherited = ListenSocket::Open({.inherited_fd = owner->fd()});
    ASSERT_TRUE(inherited.ok()) << inherited.status();
    EXPECT_EQ(inherited->port(), owner->port());
    EXPECT_TRUE(inherited->inherited());
    EXPECT_TRUE(inherited->Listen().ok());
    inherited->StopArrivals();
    const int more = Connect(owner->port());
    EXPECT_TRUE(Connected(more, 10'000));
    close(more);
  }
  const int accepted = accept(owner->fd(), nullptr, nullptr);
  EXPECT_GE(accepted, 0);
  close(accepted);
  close(waiting);
  EXPECT_EQ(ListenSocket::Open({.inherited_fd = STDIN_FILENO}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace reticle::server
