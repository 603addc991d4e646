#include "backends/hardwired/card/card_link.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "backends/hardwired/card/card_memory.h"
#include "backends/hardwired/card/firmware_loop.h"
#include "base/status.h"

namespace reticle::backends::hardwired {
namespace {

constexpr size_t kMaxFds = 4;

struct Prefix {
  uint32_t magic;
  uint32_t version;
  uint64_t length;
};

absl::Status WaitFor(int socket, short events, int64_t deadline_ns) {
  while (true) {
    const int64_t left_ms = (deadline_ns - MonotonicNanos()) / 1'000'000;
    if (left_ms <= 0) return absl::DeadlineExceededError("the other side of the link is silent");
    pollfd fd{socket, events, 0};
    const int ready = poll(&fd, 1, static_cast<int>(std::min<int64_t>(left_ms, 1'000'000)));
    if (ready > 0) return absl::OkStatus();
    if (ready < 0 && errno != EINTR) return InternalError("poll: %s", std::strerror(errno));
  }
}

absl::Status Gone() { return UnavailableError("the other side of the link is gone"); }

// Reads `size` bytes; descriptors that come with them are added to `fds`.
absl::Status ReadAll(int socket, char* to, size_t size, int64_t deadline_ns,
                     std::vector<UniqueFd>* fds) {
  while (size > 0) {
    RETURN_IF_ERROR(WaitFor(socket, POLLIN, deadline_ns));
    iovec part{to, size};
    alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))];
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    const ssize_t got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got <= 0) return Gone();
    for (cmsghdr* head = CMSG_FIRSTHDR(&message); head != nullptr;
         head = CMSG_NXTHDR(&message, head)) {
      if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS) continue;
      const size_t count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (size_t i = 0; i < count; ++i) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(head) + i * sizeof(int), sizeof(int));
        fds->emplace_back(fd);
      }
    }
    to += got;
    size -= static_cast<size_t>(got);
  }
  return absl::OkStatus();
}

absl::StatusOr<sockaddr_un> AddressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return InvalidArgumentError("socket path '%s' has %u bytes; it must have 1 .. %u", path,
                                path.size(), sizeof(address.sun_path) - 1);
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

}  // namespace

void UniqueFd::Reset(int fd) {
  if (fd_ >= 0) close(fd_);
  fd_ = fd;
}

absl::Status SendCardMessage(int socket, std::string_view text, const std::vector<int>& fds) {
  if (text.size() > kMaxMessageBytes || fds.size() > kMaxFds) {
    return InvalidArgumentError("a message of %u bytes and %u descriptors; at most %u and %u",
                                text.size(), fds.size(), kMaxMessageBytes, kMaxFds);
  }
  const Prefix prefix{kCardMagic, kCardVersion, text.size()};
  std::string bytes(reinterpret_cast<const char*>(&prefix), sizeof(prefix));
  bytes.append(text);
  size_t sent = 0;
  while (sent < bytes.size()) {
    iovec part{bytes.data() + sent, bytes.size() - sent};
    alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (sent == 0 && !fds.empty()) {
      message.msg_control = control;
      message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
      cmsghdr* const head = CMSG_FIRSTHDR(&message);
      head->cmsg_level = SOL_SOCKET;
      head->cmsg_type = SCM_RIGHTS;
      head->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
      std::memcpy(CMSG_DATA(head), fds.data(), fds.size() * sizeof(int));
    }
    const ssize_t written = sendmsg(socket, &message, MSG_NOSIGNAL);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return Gone();
    sent += static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

absl::StatusOr<CardMessage> ReceiveCardMessage(int socket, int timeout_ms) {
  const int64_t deadline_ns = MonotonicNanos() + int64_t{timeout_ms} * 1'000'000;
  CardMessage message;
  Prefix prefix{};
  RETURN_IF_ERROR(
      ReadAll(socket, reinterpret_cast<char*>(&prefix), sizeof(prefix), deadline_ns, &message.fds));
  if (prefix.magic != kCardMagic || prefix.version != kCardVersion ||
      prefix.length > kMaxMessageBytes) {
    return DataLossError("the other side of the link does not speak version %u", kCardVersion);
  }
  // Grows with what comes, not with what is announced.
  constexpr size_t kPart = 1 << 16;
  while (message.text.size() < prefix.length) {
    const size_t at = message.text.size();
    const size_t part = std::min<size_t>(kPart, prefix.length - at);
    message.text.resize(at + part);
    RETURN_IF_ERROR(ReadAll(socket, message.text.data() + at, part, deadline_ns, &message.fds));
  }
  return message;
}

std::string JoinOptions(const std::vector<std::pair<std::string, std::string>>& options) {
  std::string text;
  for (const auto& [name, value] : options) text += name + "=" + value + "\n";
  return text;
}

std::vector<std::pair<std::string, std::string>> SplitOptions(std::string_view text) {
  std::vector<std::pair<std::string, std::string>> options;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    const size_t equals = line.find('=');
    if (equals == std::string_view::npos) continue;
    options.emplace_back(line.substr(0, equals), line.substr(equals + 1));
  }
  return options;
}

absl::StatusOr<UniqueFd> ConnectToCard(const std::string& path) {
  ASSIGN_OR_RETURN(const sockaddr_un address, AddressOf(path));
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (fd.get() < 0) return ResourceExhaustedError("socket: %s", std::strerror(errno));
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return UnavailableError("no card answers at %s: %s", path, std::strerror(errno));
  }
  return fd;
}

absl::StatusOr<UniqueFd> ListenForHosts(const std::string& path) {
  if (ConnectToCard(path).ok()) {
    return FailedPreconditionError("another card listens at %s already", path);
  }
  ASSIGN_OR_RETURN(const sockaddr_un address, AddressOf(path));
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (fd.get() < 0) return ResourceExhaustedError("socket: %s", std::strerror(errno));
  unlink(path.c_str());
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      listen(fd.get(), 4) != 0) {
    return FailedPreconditionError("cannot listen at %s: %s", path, std::strerror(errno));
  }
  return fd;
}

}  // namespace reticle::backends::hardwired
