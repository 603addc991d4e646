// The greeting between a host and a card process over a Unix socket: text and descriptors. After
// it, all goes through the shared memory, and the socket only shows whether the other side lives.
#ifndef RETICLE_BACKENDS_HARDWIRED_CARD_CARD_LINK_H_
#define RETICLE_BACKENDS_HARDWIRED_CARD_CARD_LINK_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace reticle::backends::hardwired {

// A descriptor that is closed when it goes out of scope.
class UniqueFd {
 public:
  explicit UniqueFd(int fd = -1) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) Reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~UniqueFd() { Reset(); }

  int get() const { return fd_; }
  int Release() { return std::exchange(fd_, -1); }
  void Reset(int fd = -1);

 private:
  int fd_;
};

struct CardMessage {
  std::string text;
  std::vector<UniqueFd> fds;
};

// Sends a message of at most kMaxMessageBytes with up to four descriptors, which stay the caller's.
inline constexpr size_t kMaxMessageBytes = 256u << 20;
absl::Status SendCardMessage(int socket, std::string_view text, const std::vector<int>& fds);
// UNAVAILABLE when the other side is gone, DEADLINE_EXCEEDED after `timeout_ms`, DATA_LOSS for what
// is no message.
absl::StatusOr<CardMessage> ReceiveCardMessage(int socket, int timeout_ms);

// Options as "name=value" lines. A value holds no line break.
std::string JoinOptions(const std::vector<std::pair<std::string, std::string>>& options);
std::vector<std::pair<std::string, std::string>> SplitOptions(std::string_view text);

absl::StatusOr<UniqueFd> ConnectToCard(const std::string& path);
// Replaces a socket file that nobody listens on. FAILED_PRECONDITION when somebody does.
absl::StatusOr<UniqueFd> ListenForHosts(const std::string& path);

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_CARD_CARD_LINK_H_
