#include "server/bench/http_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <ctime>
#include <utility>

#include "base/status.h"

namespace reticle::server::bench {
namespace {

constexpr size_t kReadBytes = size_t{256} << 10;
constexpr int64_t kGiveUpNs = 60'000'000'000;
constexpr std::string_view kDone = "data: [DONE]\n\n";

class Epoll {
 public:
  Epoll() : fd_(epoll_create1(EPOLL_CLOEXEC)), events_(256) {}
  ~Epoll() { close(fd_); }
  Epoll(const Epoll&) = delete;
  Epoll& operator=(const Epoll&) = delete;

  void Add(int fd, size_t index) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = index;
    epoll_ctl(fd_, EPOLL_CTL_ADD, fd, &event);
  }
  void Remove(int fd) { epoll_ctl(fd_, EPOLL_CTL_DEL, fd, nullptr); }
  // Calls `ready` with the index of each that can be read. False after a minute of nothing.
  template <typename Ready>
  bool Wait(Ready ready, Waiting waiting = Waiting::kSleep) {
    const int64_t until = NowNanos() + kGiveUpNs;
    const int timeout_ms = waiting == Waiting::kSpin ? 0 : 1000;
    for (;;) {
      const int count =
          epoll_wait(fd_, events_.data(), static_cast<int>(events_.size()), timeout_ms);
      if (count > 0) {
        for (int i = 0; i < count; ++i) ready(static_cast<size_t>(events_[i].data.u64));
        return true;
      }
      if (NowNanos() > until) return false;
    }
  }

 private:
  const int fd_;
  std::vector<epoll_event> events_;
};

// Ends of events: two line ends in a row, of which `previous` may be the first.
uint64_t CountEvents(std::string_view bytes, char previous) {
  uint64_t count = previous == '\n' && bytes.front() == '\n' ? 1 : 0;
  const char* const data = bytes.data();
  for (size_t i = 1; i < bytes.size(); ++i) {
    count += static_cast<uint64_t>((data[i - 1] == '\n') & (data[i] == '\n'));
  }
  return count;
}

// Length of the first whole reply in `bytes`, which has a Content-Length or none at all; 0: there
// is more to come.
size_t ReplyLength(std::string_view bytes) {
  const size_t head = bytes.find("\r\n\r\n");
  if (head == std::string_view::npos) return 0;
  constexpr std::string_view kLength = "Content-Length: ";
  const size_t field = bytes.substr(0, head).find(kLength);
  size_t length = 0;
  if (field != std::string_view::npos) {
    const char* const digits = bytes.data() + field + kLength.size();
    std::from_chars(digits, bytes.data() + head, length);
  }
  const size_t whole = head + 4 + length;
  return whole <= bytes.size() ? whole : 0;
}

absl::Status Broken() { return UnavailableError("the server closed a connection"); }

}  // namespace

int64_t NowNanos() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

absl::StatusOr<Socket> Socket::Connect(uint16_t port) {
  Socket made(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (made.fd_ < 0 ||
      connect(made.fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return UnavailableError("cannot connect to port %d: %s", port, std::strerror(errno));
  }
  const int one = 1;
  setsockopt(made.fd_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  return made;
}

Socket::Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

Socket& Socket::operator=(Socket&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

Socket::~Socket() {
  if (fd_ >= 0) close(fd_);
}

absl::Status Socket::Send(std::string_view bytes) const {
  while (!bytes.empty()) {
    const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return UnavailableError("cannot send: %s", std::strerror(errno));
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return absl::OkStatus();
}

std::string HttpRequestText(std::string_view method, std::string_view path, std::string_view body) {
  std::string text(method);
  text.append(" ").append(path).append(" HTTP/1.1\r\nHost: localhost\r\n");
  if (!body.empty()) {
    text.append("Content-Type: application/json\r\nContent-Length: ");
    text.append(std::to_string(body.size())).append("\r\n");
  }
  return text.append("\r\n").append(body);
}

absl::StatusOr<std::string> Fetch(uint16_t port, std::string_view method, std::string_view path,
                                  std::string_view body) {
  ASSIGN_OR_RETURN(const Socket socket, Socket::Connect(port));
  RETURN_IF_ERROR(socket.Send(HttpRequestText(method, path, body)));
  std::string reply;
  std::vector<char> buffer(kReadBytes);
  size_t length = 0;
  while ((length = ReplyLength(reply)) == 0) {
    const ssize_t got = recv(socket.fd(), buffer.data(), buffer.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return Broken();
    reply.append(buffer.data(), static_cast<size_t>(got));
  }
  if (!reply.starts_with("HTTP/1.1 200 ")) {
    return UnavailableError("%s %s: %s", method, path, reply.substr(0, 500));
  }
  return reply.substr(reply.find("\r\n\r\n") + 4);
}

absl::StatusOr<std::vector<StreamSeen>> ReadStreams(uint16_t port, size_t count,
                                                    std::string_view path, std::string_view body,
                                                    Waiting waiting) {
  const std::string request = HttpRequestText("POST", path, body);
  std::vector<Socket> sockets;
  std::vector<StreamSeen> seen(count);
  std::vector<std::string> ends(count);  // the last bytes, which may be those of [DONE]
  Epoll epoll;
  for (size_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(Socket socket, Socket::Connect(port));
    sockets.push_back(std::move(socket));
    epoll.Add(sockets.back().fd(), i);
  }
  for (size_t i = 0; i < count; ++i) {
    seen[i].sent_ns = NowNanos();
    RETURN_IF_ERROR(sockets[i].Send(request));
  }
  std::vector<char> buffer(kReadBytes);
  size_t open = count;
  absl::Status failure;
  const auto read_one = [&](size_t i) {
    StreamSeen& stream = seen[i];
    const ssize_t got = recv(sockets[i].fd(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
      failure = Broken();
      return;
    }
    const std::string_view bytes(buffer.data(), static_cast<size_t>(got));
    if (stream.reads == 0 && !bytes.starts_with("HTTP/1.1 200 ")) {
      failure = UnavailableError("a stream was refused: %s", bytes.substr(0, 500));
      return;
    }
    std::string& end = ends[i];
    const uint64_t events = CountEvents(bytes, end.empty() ? ' ' : end.back());
    stream.last_ns = NowNanos();
    if (stream.events == 0 && events > 0) stream.first_ns = stream.last_ns;
    stream.events += events;
    stream.bytes += bytes.size();
    ++stream.reads;
    constexpr size_t kKept = kDone.size() + 16;
    if (bytes.size() >= kKept) {
      end.assign(bytes.substr(bytes.size() - kKept));
    } else {
      end.append(bytes);
      if (end.size() > kKept) end.erase(0, end.size() - kKept);
    }
    if (end.ends_with("0\r\n\r\n") && end.find(kDone) != std::string::npos) {
      --stream.events;
      --open;
      epoll.Remove(sockets[i].fd());
    }
  };
  while (open > 0 && failure.ok()) {
    if (!epoll.Wait(read_one, waiting))
      return UnavailableError("%d streams say nothing any more", open);
  }
  RETURN_IF_ERROR(failure);
  return seen;
}

absl::StatusOr<ExchangeRate> Exchange(uint16_t port, size_t connections, std::string_view request,
                                      int64_t warm_ns, int64_t run_ns, void (*begin)(void*),
                                      void* argument) {
  std::vector<Socket> sockets;
  std::vector<std::string> pending(connections);
  Epoll epoll;
  for (size_t i = 0; i < connections; ++i) {
    ASSIGN_OR_RETURN(Socket socket, Socket::Connect(port));
    sockets.push_back(std::move(socket));
    epoll.Add(sockets.back().fd(), i);
    RETURN_IF_ERROR(sockets.back().Send(request));
  }
  std::vector<char> buffer(kReadBytes);
  ExchangeRate rate;
  absl::Status failure;
  const auto read_one = [&](size_t i) {
    const ssize_t got = recv(sockets[i].fd(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
      failure = Broken();
      return;
    }
    std::string_view bytes(buffer.data(), static_cast<size_t>(got));
    if (!pending[i].empty()) {
      pending[i].append(bytes);
      bytes = pending[i];
    }
    if (ReplyLength(bytes) == 0) {
      if (pending[i].empty()) pending[i] = std::string(bytes);
      return;
    }
    ++rate.replies;
    if (!bytes.starts_with("HTTP/1.1 200 ")) ++rate.failures;
    pending[i].clear();
    failure.Update(sockets[i].Send(request));
  };
  int64_t from = NowNanos();
  const int64_t warm_until = from + warm_ns;
  bool warm = false;
  for (;;) {
    const int64_t now = NowNanos();
    if (!warm && now >= warm_until) {
      warm = true;
      begin(argument);
      rate = {};
      from = NowNanos();
    }
    if (warm && now - from >= run_ns) break;
    if (!epoll.Wait(read_one)) return UnavailableError("the server answers no more");
    RETURN_IF_ERROR(failure);
  }
  rate.spent_ns = NowNanos() - from;
  return rate;
}

absl::StatusOr<std::vector<int64_t>> FirstByteTimes(uint16_t port, std::string_view request,
                                                    int rounds, int64_t pause_ns) {
  ASSIGN_OR_RETURN(const Socket socket, Socket::Connect(port));
  std::vector<int64_t> times;
  std::vector<char> buffer(kReadBytes);
  for (int round = 0; round < rounds; ++round) {
    const timespec pause{.tv_sec = 0, .tv_nsec = static_cast<long>(pause_ns)};
    nanosleep(&pause, nullptr);
    const int64_t sent = NowNanos();
    RETURN_IF_ERROR(socket.Send(request));
    std::string reply;
    bool first = true;
    while (!reply.ends_with("0\r\n\r\n")) {
      // The first byte is waited for without sleep: a client that sleeps would measure its own
      // awakening.
      const ssize_t got = recv(socket.fd(), buffer.data(), buffer.size(), first ? MSG_DONTWAIT : 0);
      if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
      if (got <= 0) return Broken();
      if (first) times.push_back(NowNanos() - sent);
      first = false;
      reply.append(buffer.data(), static_cast<size_t>(got));
    }
  }
  return times;
}

}  // namespace reticle::server::bench
