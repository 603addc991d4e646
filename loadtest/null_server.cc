#include "loadtest/null_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <ctime>
#include <map>
#include <queue>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "base/clock.h"
#include "base/status.h"
#include "loadtest/null_reply.h"

namespace reticle::loadtest {
namespace {

constexpr int64_t kBurst = 64;  // events of an unpaced stream before another one has its turn
constexpr size_t kMaxRequest = size_t{64} << 20;
constexpr size_t kReadBytes = size_t{64} << 10;
constexpr int64_t kIdleWaitNs = 1'000'000'000;

int64_t Now() { return Clock::Monotonic().NowNanos(); }

absl::StatusOr<int> Listen(const NullServerOptions& options, uint16_t port) {
  sockaddr_storage storage{};
  socklen_t length = 0;
  if (auto* v4 = reinterpret_cast<sockaddr_in*>(&storage);
      inet_pton(AF_INET, options.host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    length = sizeof(*v4);
  } else if (auto* v6 = reinterpret_cast<sockaddr_in6*>(&storage);
             inet_pton(AF_INET6, options.host.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    length = sizeof(*v6);
  } else {
    return InvalidArgumentError("\"%s\" is no IP address to listen on", options.host);
  }
  const int fd = socket(storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return UnavailableError("socket: %s", std::strerror(errno));
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
  if (bind(fd, reinterpret_cast<sockaddr*>(&storage), length) != 0 || listen(fd, 4096) != 0) {
    const int error = errno;
    close(fd);
    return UnavailableError("cannot listen on %s:%d: %s", options.host, port, std::strerror(error));
  }
  return fd;
}

uint16_t BoundPort(int fd) {
  sockaddr_storage storage{};
  socklen_t length = sizeof(storage);
  getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &length);
  return ntohs(storage.ss_family == AF_INET ? reinterpret_cast<sockaddr_in*>(&storage)->sin_port
                                            : reinterpret_cast<sockaddr_in6*>(&storage)->sin6_port);
}

}  // namespace

absl::Status NullServerOptions::Validate() const {
  if (threads < 1 || threads > 64) {
    return InvalidArgumentError("--threads is %d; it must be between 1 and 64", threads);
  }
  if (!(token_rate >= 0 && token_rate <= 1e7)) {
    return InvalidArgumentError("--rate is %g; it must be between 0 and 10000000", token_rate);
  }
  if (tokens_per_event < 1 || tokens_per_event > 4096) {
    return InvalidArgumentError("--tokens-per-event is %d; it must be between 1 and 4096",
                                tokens_per_event);
  }
  return absl::OkStatus();
}

// One thread with its listener and its connections.
class NullServer::Loop {
 public:
  Loop(const NullServerOptions& options, int listener) : options_(options), listener_(listener) {
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    wake_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    Watch(EPOLL_CTL_ADD, listener_, EPOLLIN, &listener_);
    Watch(EPOLL_CTL_ADD, wake_, EPOLLIN, &wake_);
    thread_ = std::thread([this] { Run(); });
  }

  ~Loop() {
    stop_.store(true, std::memory_order_relaxed);
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(wake_, &one, sizeof(one));
    thread_.join();
    for (const auto& [fd, connection] : connections_) close(fd);
    close(listener_);
    close(wake_);
    close(epoll_);
  }

 private:
  struct Connection {
    int fd = -1;
    uint64_t serial = 0;
    std::string in;
    std::string out;
    size_t out_at = 0;
    bool blocked = false;  // the socket takes nothing more for now
    bool queued = false;   // in runnable_
    // The stream that runs, if any.
    const NullReplies* replies = nullptr;
    NullRequest request;
    int64_t events = 0;  // in all
    int64_t sent = 0;
    int64_t begin_ns = 0;  // when the first event is due
  };
  struct Due {
    int64_t at_ns;
    int fd;
    uint64_t serial;
    bool operator>(const Due& other) const { return at_ns > other.at_ns; }
  };

  void Watch(int operation, int fd, uint32_t events, void* tag) const {
    epoll_event event{};
    event.events = events;
    event.data.ptr = tag;
    epoll_ctl(epoll_, operation, fd, &event);
  }

  double PeriodNs() const {
    return 1e9 * static_cast<double>(options_.tokens_per_event) / options_.token_rate;
  }

  const NullReplies& Replies(bool chat, bool usage) {
    auto& slot = replies_[{chat, usage}];
    if (slot == nullptr) {
      slot = std::make_unique<NullReplies>(options_.model, options_.tokens_per_event, chat, usage);
    }
    return *slot;
  }

  void Run() {
    prctl(PR_SET_TIMERSLACK, 1UL);
    epoll_event events[256];
    while (!stop_.load(std::memory_order_relaxed)) {
      int64_t wait_ns = kIdleWaitNs;
      if (!due_.empty()) wait_ns = std::clamp<int64_t>(due_.top().at_ns - Now(), 0, kIdleWaitNs);
      if (!runnable_.empty() || options_.spin) wait_ns = 0;
      const timespec timeout{.tv_sec = wait_ns / 1'000'000'000, .tv_nsec = wait_ns % 1'000'000'000};
      const int count = epoll_pwait2(epoll_, events, 256, &timeout, nullptr);
      for (int i = 0; i < count; ++i) {
        void* const tag = events[i].data.ptr;
        if (tag == &listener_) {
          Accept();
        } else if (tag != &wake_) {
          Handle(*static_cast<Connection*>(tag), events[i].events);
        }
      }
      RunDue();
      for (Connection* const connection : std::exchange(runnable_, {})) {
        connection->queued = false;
        Continue(*connection);
      }
      closed_.clear();
    }
  }

  void Accept() {
    while (true) {
      const int fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) return;
      const int on = 1;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
      auto connection = std::make_unique<Connection>();
      connection->fd = fd;
      connection->serial = ++serial_;
      Watch(EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLRDHUP, connection.get());
      connections_[fd] = std::move(connection);
    }
  }

  void Close(Connection& connection) {
    if (connection.fd < 0) return;
    const auto found = connections_.find(connection.fd);
    close(std::exchange(connection.fd, -1));
    closed_.push_back(std::move(found->second));
    connections_.erase(found);
  }

  void Handle(Connection& connection, uint32_t events) {
    if (connection.fd < 0) return;
    if ((events & EPOLLOUT) != 0) {
      connection.blocked = false;
      Watch(EPOLL_CTL_MOD, connection.fd, EPOLLIN | EPOLLRDHUP, &connection);
      if (!Flush(connection)) return;
      Continue(connection);
    }
    if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) == 0 || connection.fd < 0) return;
    const size_t before = connection.in.size();
    connection.in.resize(before + kReadBytes);
    const ssize_t n = recv(connection.fd, connection.in.data() + before, kReadBytes, 0);
    connection.in.resize(before + static_cast<size_t>(std::max<ssize_t>(n, 0)));
    if (n == 0 || (n < 0 && errno != EAGAIN) || connection.in.size() > kMaxRequest) {
      Close(connection);
      return;
    }
    TakeRequests(connection);
  }

  // Goes on with the connection's stream and, when that is over, with its next request.
  void Continue(Connection& connection) {
    if (connection.fd < 0) return;
    Advance(connection);
    TakeRequests(connection);
  }

  // Answers the requests that lie whole in the input.
  void TakeRequests(Connection& connection) {
    while (connection.fd >= 0 && connection.replies == nullptr) {
      const size_t end = connection.in.find("\r\n\r\n");
      if (end == std::string::npos) return;
      const std::string_view head(connection.in.data(), end + 2);
      size_t length = 0;
      for (size_t at = head.find("\r\n"); at + 2 < head.size(); at = head.find("\r\n", at + 2)) {
        constexpr std::string_view kLength = "content-length:";
        const std::string_view line = head.substr(at + 2);
        if (line.size() < kLength.size() ||
            !absl::EqualsIgnoreCase({line.data(), kLength.size()}, "content-length:")) {
          continue;
        }
        const size_t digits = line.find_first_not_of(' ', kLength.size());
        std::from_chars(line.data() + digits, line.data() + line.size(), length);
      }
      if (connection.in.size() < end + 4 + length) return;
      Answer(connection, head, std::string_view(connection.in).substr(end + 4, length));
      connection.in.erase(0, end + 4 + length);
    }
  }

  void Answer(Connection& connection, std::string_view head, std::string_view body) {
    const bool chat = head.starts_with("POST /v1/chat/completions ");
    if (!chat && !head.starts_with("POST /v1/completions ")) {
      if (head.starts_with("GET /v1/models ")) {
        AppendPlainResponse(connection.out, "200 OK",
                            R"({"object":"list","data":[{"id":")" + options_.model +
                                R"(","object":"model","owned_by":"reticle"}]})");
      } else {
        AppendPlainResponse(connection.out, "404 Not Found",
                            R"({"error":{"message":"the null server has no such path"}})");
      }
      Flush(connection);
      return;
    }
    NullRequest request{.chat = chat};
    if (!ParseNullRequest(body, request)) {
      AppendPlainResponse(connection.out, "400 Bad Request",
                          R"({"error":{"message":"the body is no JSON object"}})");
      Flush(connection);
      return;
    }
    const NullReplies& replies = Replies(chat, request.include_usage);
    if (!request.stream && options_.first_token_ns == 0 && options_.token_rate == 0) {
      replies.AppendWhole(connection.out, request);
      Flush(connection);
      return;
    }
    connection.replies = &replies;
    connection.request = request;
    connection.sent = 0;
    connection.events =
        (request.max_tokens + options_.tokens_per_event - 1) / options_.tokens_per_event;
    connection.begin_ns = Now() + options_.first_token_ns;
    if (options_.first_token_ns == 0) {
      if (request.stream) replies.AppendStreamHead(connection.out);
      Advance(connection);
    } else {
      due_.push({connection.begin_ns, connection.fd, connection.serial});
    }
  }

  // Events that should have been written by now.
  int64_t EventsDue(const Connection& connection, int64_t now_ns) const {
    if (now_ns < connection.begin_ns) return 0;
    if (options_.token_rate == 0) return connection.events;
    const double passed = static_cast<double>(now_ns - connection.begin_ns) / PeriodNs();
    return std::min(connection.events, static_cast<int64_t>(passed) + 1);
  }

  // Writes what is due of the stream, and sees to it that the rest follows.
  void Advance(Connection& connection) {
    if (connection.replies == nullptr || connection.blocked) return;
    const int64_t due = EventsDue(connection, Now());
    if (!connection.request.stream) {
      if (due == connection.events) {
        connection.replies->AppendWhole(connection.out, connection.request);
        EndStream(connection);
        return;
      }
      Schedule(connection);
      return;
    }
    const int64_t until = std::min(due, connection.sent + kBurst);
    if (connection.sent == 0 && until > 0 && options_.first_token_ns > 0) {
      connection.replies->AppendStreamHead(connection.out);
    }
    while (connection.sent < until) {
      const int64_t events = options_.write_each_event ? 1 : until - connection.sent;
      connection.replies->AppendEvents(connection.out, events, connection.sent == 0);
      connection.sent += events;
      if (connection.sent == connection.events) {
        connection.replies->AppendStreamEnd(connection.out, connection.request);
        EndStream(connection);
        return;
      }
      if (!Flush(connection)) return;
    }
    Schedule(connection);
  }

  void Schedule(Connection& connection) {
    if (EventsDue(connection, Now()) > connection.sent && connection.request.stream) {
      if (!std::exchange(connection.queued, true)) runnable_.push_back(&connection);
      return;
    }
    const int64_t next = connection.request.stream ? connection.sent : connection.events - 1;
    const int64_t offset_ns = static_cast<int64_t>(static_cast<double>(next) * PeriodNs()) + 1;
    due_.push(
        {connection.begin_ns + offset_ns + options_.gather_ns, connection.fd, connection.serial});
  }

  void RunDue() {
    while (!due_.empty() && due_.top().at_ns <= Now()) {
      const Due due = due_.top();
      due_.pop();
      const auto found = connections_.find(due.fd);
      if (found != connections_.end() && found->second->serial == due.serial) {
        Continue(*found->second);
      }
    }
  }

  void EndStream(Connection& connection) {
    connection.replies = nullptr;
    Flush(connection);
  }

  // False when the connection is blocked or gone.
  bool Flush(Connection& connection) {
    while (connection.out_at < connection.out.size()) {
      const ssize_t n = send(connection.fd, connection.out.data() + connection.out_at,
                             connection.out.size() - connection.out_at, MSG_NOSIGNAL);
      if (n >= 0) {
        connection.out_at += static_cast<size_t>(n);
        continue;
      }
      if (errno == EINTR) continue;
      if (errno != EAGAIN) {
        Close(connection);
        return false;
      }
      connection.blocked = true;
      Watch(EPOLL_CTL_MOD, connection.fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP, &connection);
      return false;
    }
    connection.out.clear();
    connection.out_at = 0;
    return true;
  }

  const NullServerOptions options_;
  int listener_;
  int epoll_ = -1;
  int wake_ = -1;
  uint64_t serial_ = 0;
  std::atomic<bool> stop_{false};
  std::map<std::pair<bool, bool>, std::unique_ptr<NullReplies>> replies_;
  std::map<int, std::unique_ptr<Connection>> connections_;
  std::vector<std::unique_ptr<Connection>> closed_;  // freed behind the events of a turn
  std::vector<Connection*> runnable_;
  std::priority_queue<Due, std::vector<Due>, std::greater<>> due_;
  std::thread thread_;
};

NullServer::NullServer() = default;
NullServer::~NullServer() = default;

absl::StatusOr<std::unique_ptr<NullServer>> NullServer::Start(const NullServerOptions& options) {
  RETURN_IF_ERROR(options.Validate());
  std::unique_ptr<NullServer> server(new NullServer);
  server->port_ = options.port;
  std::vector<int> listeners;
  for (int64_t t = 0; t < options.threads; ++t) {
    const absl::StatusOr<int> listener = Listen(options, server->port_);
    if (!listener.ok()) {
      for (const int fd : listeners) close(fd);
      return listener.status();
    }
    server->port_ = BoundPort(*listener);
    listeners.push_back(*listener);
  }
  for (const int listener : listeners) {
    server->loops_.push_back(std::make_unique<Loop>(options, listener));
  }
  return server;
}

}  // namespace reticle::loadtest
