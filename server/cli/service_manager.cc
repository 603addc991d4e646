#include "server/cli/service_manager.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <charconv>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <vector>

#include "base/status.h"

namespace reticle::server::cli {
namespace {

// SD_LISTEN_FDS_START.
constexpr int kFirstDescriptor = 3;
constexpr std::string_view kNames[] = {"http", "grpc", "admin"};

std::optional<int> Number(const char* text) {
  if (text == nullptr) return std::nullopt;
  int value = 0;
  const char* const end = text + std::strlen(text);
  const auto parsed = std::from_chars(text, end, value);
  if (parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
  return value;
}

std::vector<std::string> SplitNames(const char* text) {
  std::vector<std::string> names;
  if (text == nullptr) return names;
  std::string_view rest = text;
  for (;;) {
    const size_t colon = rest.find(':');
    names.emplace_back(rest.substr(0, colon));
    if (colon == std::string_view::npos) return names;
    rest.remove_prefix(colon + 1);
  }
}

bool IsKnown(std::string_view name) {
  for (const std::string_view known : kNames) {
    if (known == name) return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<std::map<std::string, int>> TakeInheritedSockets() {
  const std::optional<int> pid = Number(std::getenv("LISTEN_PID"));
  const std::optional<int> count = Number(std::getenv("LISTEN_FDS"));
  const std::vector<std::string> names = SplitNames(std::getenv("LISTEN_FDNAMES"));
  for (const char* variable : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) unsetenv(variable);
  std::map<std::string, int> sockets;
  if (!count.has_value() || *count <= 0 || pid != static_cast<int>(getpid())) return sockets;
  size_t unnamed = 0;
  for (int i = 0; i < *count; ++i) {
    const auto index = static_cast<size_t>(i);
    std::string name = index < names.size() && IsKnown(names[index]) ? names[index] : "";
    if (name.empty() && unnamed < 2) name = kNames[unnamed++];
    if (name.empty() || !sockets.emplace(name, kFirstDescriptor + i).second) {
      return InvalidArgumentError(
          "the service manager hands over %d sockets; name them http, grpc and admin "
          "(FileDescriptorName=), each once",
          *count);
    }
    fcntl(kFirstDescriptor + i, F_SETFD, FD_CLOEXEC);
  }
  return sockets;
}

void NotifyServiceManager(std::string_view state) {
  const char* const path = std::getenv("NOTIFY_SOCKET");
  if (path == nullptr || (path[0] != '/' && path[0] != '@')) return;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const size_t length = std::strlen(path);
  if (length >= sizeof(address.sun_path)) return;
  std::memcpy(address.sun_path, path, length);
  // An abstract name begins with a zero byte.
  if (path[0] == '@') address.sun_path[0] = '\0';
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  sendto(fd, state.data(), state.size(), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&address),
         static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length));
  close(fd);
}

}  // namespace reticle::server::cli
