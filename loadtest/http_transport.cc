#include "loadtest/http_transport.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <utility>

#include "base/clock.h"
#include "base/status.h"
#include "loadtest/text.h"

namespace reticle::loadtest {
namespace {

constexpr size_t kBufferBytes = size_t{256} << 10;
constexpr int kSlowReceiveBuffer = 4096;
constexpr int64_t kSweepNs = 10'000'000;
constexpr int64_t kSlowTickNs = 50'000'000;
constexpr int kMaxEvents = 256;

int64_t Now() { return Clock::Monotonic().NowNanos(); }

std::string RequestHead(const HttpTransportOptions& options) {
  std::string head = "POST " + options.path + " HTTP/1.1\r\nHost: " + options.endpoint.Authority() +
                     "\r\nUser-Agent: reticle-load\r\nAccept: */*\r\n"
                     "Content-Type: application/json\r\n";
  if (!options.api_key.empty()) head += "Authorization: Bearer " + options.api_key + "\r\n";
  return head + "Content-Length: ";
}

}  // namespace

struct HttpTransport::Connection {
  enum class State : uint8_t { kConnecting, kHandshaking, kIdle, kActive, kClosed };

  int fd = -1;
  size_t slot = 0;  // in connections_
  State state = State::kConnecting;
  bool served = false;  // a request before this one
  uint32_t watched = 0;
  int64_t opened_ns = 0;
  int64_t resume_ns = 0;  // a slow reader's pause; 0: none
  Request* request = nullptr;
  std::unique_ptr<TlsSession> tls;
  std::string out;
  size_t out_at = 0;
  ReplyReader reader;
};

absl::StatusOr<std::unique_ptr<HttpTransport>> HttpTransport::Create(HttpTransportOptions options,
                                                                     Recorder& recorder,
                                                                     OnDone on_done) {
  const int fd = epoll_create1(EPOLL_CLOEXEC);
  if (fd < 0) return InternalError("epoll_create1: %s", std::strerror(errno));
  return std::unique_ptr<HttpTransport>(
      new HttpTransport(std::move(options), recorder, std::move(on_done), fd));
}

HttpTransport::HttpTransport(HttpTransportOptions options, Recorder& recorder, OnDone on_done,
                             int epoll_fd)
    : options_(std::move(options)),
      head_(RequestHead(options_)),
      recorder_(recorder),
      on_done_(std::move(on_done)),
      epoll_fd_(epoll_fd),
      buffer_(kBufferBytes) {}

HttpTransport::~HttpTransport() {
  for (const auto& connection : connections_) {
    connection->tls.reset();
    close(connection->fd);
  }
  close(epoll_fd_);
}

void HttpTransport::Start(Request& request) {
  ++in_flight_;
  if (request.read_bytes_per_s == 0 && !idle_.empty()) {
    Connection& connection = *idle_.back();
    idle_.pop_back();
    Assign(connection, request);
    return;
  }
  if (options_.max_connections > 0 &&
      static_cast<int64_t>(connections_.size()) >= options_.max_connections) {
    if (idle_.empty()) {
      waiting_.push_back(&request);
      return;
    }
    Close(*idle_.back());
  }
  if (Connection* const connection = Open(request); connection != nullptr) {
    Assign(*connection, request);
  }
}

HttpTransport::Connection* HttpTransport::Open(Request& request) {
  auto owned = std::make_unique<Connection>();
  Connection& connection = *owned;
  const auto fail = [&](const char* what) {
    const int error = errno;
    if (connection.fd >= 0) close(connection.fd);
    request.outcome.error = ErrorKind::kConnect;
    request.outcome.message = absl::StrFormat("%s: %s", what, std::strerror(error));
    request.outcome.end_ns = Now();
    --in_flight_;
    on_done_(request);
    return nullptr;
  };
  const sockaddr* const address = reinterpret_cast<const sockaddr*>(&options_.address.storage);
  connection.fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (connection.fd < 0) return fail("socket");
  const int on = 1;
  setsockopt(connection.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  if (request.read_bytes_per_s > 0) {
    setsockopt(connection.fd, SOL_SOCKET, SO_RCVBUF, &kSlowReceiveBuffer,
               sizeof(kSlowReceiveBuffer));
  }
  const bool connected = connect(connection.fd, address, options_.address.length) == 0;
  if (!connected && errno != EINPROGRESS) return fail("connect");
  epoll_event event{};
  event.events = connection.watched = EPOLLOUT;
  event.data.ptr = &connection;
  if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, connection.fd, &event) != 0) return fail("epoll_ctl");
  connection.opened_ns = Now();
  connection.slot = connections_.size();
  connections_.push_back(std::move(owned));
  ++recorder_.connections;
  return &connection;
}

void HttpTransport::Assign(Connection& connection, Request& request) {
  connection.request = &request;
  connection.resume_ns = 0;
  connection.out = head_;
  AppendInteger(connection.out, static_cast<int64_t>(request.body.size()));
  connection.out.append("\r\n\r\n").append(request.body);
  connection.out_at = 0;
  connection.reader.Begin(request);
  if (connection.state != Connection::State::kIdle) return;
  connection.state = Connection::State::kActive;
  Write(connection);
}

void HttpTransport::Watch(Connection& connection, uint32_t events) {
  if (connection.watched == events) return;
  connection.watched = events;
  epoll_event event{};
  event.events = events;
  event.data.ptr = &connection;
  epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, connection.fd, &event);
}

void HttpTransport::Close(Connection& connection) {
  if (connection.state == Connection::State::kClosed) return;
  if (connection.state == Connection::State::kIdle) std::erase(idle_, &connection);
  connection.state = Connection::State::kClosed;
  connection.tls.reset();
  close(connection.fd);
  const size_t slot = connection.slot;
  closed_.push_back(std::move(connections_[slot]));
  if (slot + 1 != connections_.size()) {
    connections_[slot] = std::move(connections_.back());
    connections_[slot]->slot = slot;
  }
  connections_.pop_back();
}

void HttpTransport::Finish(Connection& connection, bool reusable) {
  Request& request = *std::exchange(connection.request, nullptr);
  connection.served = true;
  if (reusable && request.read_bytes_per_s == 0) {
    connection.state = Connection::State::kIdle;
    Watch(connection, EPOLLIN | EPOLLRDHUP);
    idle_.push_back(&connection);
  } else {
    Close(connection);
  }
  --in_flight_;
  on_done_(request);
  StartWaiting();
}

void HttpTransport::StartWaiting() {
  while (!waiting_.empty() &&
         (!idle_.empty() || static_cast<int64_t>(connections_.size()) < options_.max_connections)) {
    Request& request = *waiting_.front();
    waiting_.pop_front();
    --in_flight_;
    Start(request);
  }
}

void HttpTransport::Broken(Connection& connection, ErrorKind kind, std::string message) {
  Request* const request = connection.request;
  if (request == nullptr) {
    Close(connection);
    return;
  }
  if (connection.served && !connection.reader.begun() && kind == ErrorKind::kClosed) {
    ++recorder_.reconnects;
    connection.request = nullptr;
    Close(connection);
    if (Connection* const fresh = Open(*request); fresh != nullptr) Assign(*fresh, *request);
    return;
  }
  if (kind == ErrorKind::kClosed) {
    connection.reader.FeedEnd(Now(), recorder_);
  } else {
    request->outcome.error = kind;
    request->outcome.message = std::move(message);
    request->outcome.end_ns = Now();
  }
  Finish(connection, false);
}

void HttpTransport::HandleHandshake(Connection& connection) {
  switch (connection.tls->Handshake()) {
    case IoResult::kDone:
      connection.state = Connection::State::kActive;
      Write(connection);
      return;
    case IoResult::kWantRead:
      Watch(connection, EPOLLIN);
      return;
    case IoResult::kWantWrite:
      Watch(connection, EPOLLOUT);
      return;
    case IoResult::kClosed:
      Broken(connection, ErrorKind::kTls, "the server closed during the handshake");
      return;
    case IoResult::kFailed:
      Broken(connection, ErrorKind::kTls, connection.tls->error());
      return;
  }
}

void HttpTransport::Handle(Connection& connection, uint32_t events) {
  switch (connection.state) {
    case Connection::State::kClosed:
      return;
    case Connection::State::kIdle:
      Close(connection);
      return;
    case Connection::State::kHandshaking:
      HandleHandshake(connection);
      return;
    case Connection::State::kConnecting: {
      int error = 0;
      socklen_t length = sizeof(error);
      getsockopt(connection.fd, SOL_SOCKET, SO_ERROR, &error, &length);
      if (error != 0) {
        Broken(connection, ErrorKind::kConnect, std::strerror(error));
        return;
      }
      if (options_.tls != nullptr) {
        connection.tls = TlsSession::Create(*options_.tls, connection.fd, options_.endpoint.host);
        connection.state = Connection::State::kHandshaking;
        if (connection.tls == nullptr) {
          Broken(connection, ErrorKind::kTls, "no memory for a session");
        } else {
          HandleHandshake(connection);
        }
        return;
      }
      connection.state = Connection::State::kActive;
      Write(connection);
      return;
    }
    case Connection::State::kActive:
      if ((events & EPOLLOUT) != 0) Write(connection);
      if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP)) != 0 &&
          connection.state == Connection::State::kActive) {
        Read(connection);
      }
      return;
  }
}

void HttpTransport::Write(Connection& connection) {
  Outcome& outcome = connection.request->outcome;
  if (outcome.sent_ns == 0) outcome.sent_ns = Now();
  while (connection.out_at < connection.out.size()) {
    const char* const data = connection.out.data() + connection.out_at;
    const size_t size = connection.out.size() - connection.out_at;
    size_t done = 0;
    IoResult result = IoResult::kDone;
    if (connection.tls != nullptr) {
      result = connection.tls->Write(data, size, done);
    } else {
      const ssize_t n = send(connection.fd, data, size, MSG_NOSIGNAL);
      if (n >= 0) {
        done = static_cast<size_t>(n);
      } else {
        result = errno == EAGAIN || errno == EINTR ? IoResult::kWantWrite : IoResult::kClosed;
      }
    }
    if (result == IoResult::kWantWrite) {
      Watch(connection, EPOLLIN | EPOLLOUT);
      return;
    }
    if (result == IoResult::kWantRead) break;
    if (result != IoResult::kDone) {
      // The server may have answered before it closed.
      Watch(connection, EPOLLIN);
      Read(connection);
      return;
    }
    connection.out_at += done;
  }
  Watch(connection, EPOLLIN);
}

IoResult HttpTransport::ReadSome(Connection& connection, size_t size, size_t& done) {
  if (connection.tls != nullptr) return connection.tls->Read(buffer_.data(), size, done);
  const ssize_t n = recv(connection.fd, buffer_.data(), size, 0);
  if (n > 0) {
    done = static_cast<size_t>(n);
    return IoResult::kDone;
  }
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return IoResult::kWantRead;
  return IoResult::kClosed;
}

void HttpTransport::Read(Connection& connection) {
  size_t size = buffer_.size();
  const int64_t rate = connection.request->read_bytes_per_s;
  if (rate > 0) {
    size = std::clamp<size_t>(static_cast<size_t>(rate * kSlowTickNs / 1'000'000'000), 1, size);
  }
  do {
    size_t done = 0;
    switch (ReadSome(connection, size, done)) {
      case IoResult::kDone:
        break;
      case IoResult::kWantRead:
        return;
      case IoResult::kWantWrite:
        Watch(connection, EPOLLIN | EPOLLOUT);
        return;
      case IoResult::kClosed:
      case IoResult::kFailed:
        Broken(connection, ErrorKind::kClosed, "");
        return;
    }
    const int64_t now_ns = Now();
    const ReplyReader::Result result =
        connection.reader.Feed({buffer_.data(), done}, now_ns, recorder_);
    if (result != ReplyReader::Result::kMore) {
      Finish(connection, result == ReplyReader::Result::kDone);
      return;
    }
    if (rate > 0) {
      connection.resume_ns = now_ns + static_cast<int64_t>(done) * 1'000'000'000 / rate;
      Watch(connection, 0);
      return;
    }
  } while (connection.tls != nullptr && connection.tls->HasPending());
}

void HttpTransport::Sweep(int64_t now_ns) {
  if (now_ns < next_sweep_ns_) return;
  next_sweep_ns_ = now_ns + kSweepNs;
  for (size_t i = connections_.size(); i-- > 0;) {
    if (i >= connections_.size()) continue;
    Connection& connection = *connections_[i];
    if (connection.request == nullptr) continue;
    if (now_ns - connection.request->outcome.started_ns >= options_.timeout_ns) {
      Broken(connection, ErrorKind::kTimeout, "");
      continue;
    }
    const bool opening = connection.state == Connection::State::kConnecting ||
                         connection.state == Connection::State::kHandshaking;
    if (opening && now_ns - connection.opened_ns >= options_.connect_timeout_ns) {
      Broken(connection, ErrorKind::kConnect, "no connection within the time allowed");
      continue;
    }
    if (connection.resume_ns != 0 && now_ns >= connection.resume_ns) {
      connection.resume_ns = 0;
      Read(connection);
      if (connection.state == Connection::State::kActive && connection.resume_ns == 0) {
        Watch(connection, EPOLLIN);
      }
    }
  }
}

int HttpTransport::Wait(int64_t until_ns, bool spin) {
  static thread_local epoll_event events[kMaxEvents];
  int count = 0;
  if (spin) {
    do {
      count = epoll_wait(epoll_fd_, events, kMaxEvents, 0);
    } while (count == 0 && Now() < until_ns);
  } else {
    const int64_t wait_ns = std::max<int64_t>(until_ns - Now(), 0);
    const timespec timeout{.tv_sec = wait_ns / 1'000'000'000, .tv_nsec = wait_ns % 1'000'000'000};
    count = epoll_pwait2(epoll_fd_, events, kMaxEvents, &timeout, nullptr);
  }
  if (count <= 0) return 0;
  const int64_t begun_ns = Now();
  for (int i = 0; i < count; ++i) {
    Handle(*static_cast<Connection*>(events[i].data.ptr), events[i].events);
  }
  last_begun_ns_ = begun_ns;
  return count;
}

int64_t HttpTransport::Poll(int64_t until_ns, bool spin) {
  const int64_t sweep_ns = in_flight_ > 0 ? next_sweep_ns_ : until_ns;
  const int count = Wait(std::min(until_ns, std::max(sweep_ns, int64_t{1})), spin);
  closed_.clear();
  Sweep(Now());
  closed_.clear();
  return count > 0 ? last_begun_ns_ : 0;
}

void HttpTransport::AbandonAll() {
  const auto abandon = [this](Request& request) {
    request.outcome.error = ErrorKind::kUnfinished;
    request.outcome.end_ns = Now();
    --in_flight_;
    on_done_(request);
  };
  while (!waiting_.empty()) {
    Request& request = *waiting_.front();
    waiting_.pop_front();
    abandon(request);
  }
  for (size_t i = connections_.size(); i-- > 0;) {
    if (i >= connections_.size() || connections_[i]->request == nullptr) continue;
    Request& request = *std::exchange(connections_[i]->request, nullptr);
    Close(*connections_[i]);
    abandon(request);
  }
  closed_.clear();
}

}  // namespace reticle::loadtest
