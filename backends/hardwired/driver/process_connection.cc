// Cards in processes of their own: started by the driver, or waiting at a socket.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/numbers.h"
#include "backends/hardwired/card/card_link.h"
#include "backends/hardwired/card/firmware_loop.h"
#include "backends/hardwired/driver/connection.h"
#include "base/status.h"

extern char** environ;

namespace reticle::backends::hardwired {
namespace {

constexpr int kGreetingMs = 30'000;
constexpr int kChildSocket = 3;

// Starts `program card --fd 3` with the other end of `socket` as its descriptor 3.
absl::StatusOr<pid_t> Spawn(const std::string& program, int socket) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  // A descriptor that is 3 already would keep its close-on-exec flag, so it goes by another number.
  const UniqueFd high(fcntl(socket, F_DUPFD_CLOEXEC, 16));
  posix_spawn_file_actions_adddup2(&actions, high.get(), kChildSocket);
  posix_spawn_file_actions_addclosefrom_np(&actions, kChildSocket + 1);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  // A group of its own: what the terminal sends to the server does not strike the card.
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
  std::string words[] = {"reticle", "card", "--fd", std::to_string(kChildSocket)};
  char* const arguments[] = {words[0].data(), words[1].data(), words[2].data(), words[3].data(),
                             nullptr};
  pid_t pid = -1;
  const int error = high.get() < 0 ? errno
                                   : posix_spawn(&pid, program.c_str(), &actions, &attributes,
                                                 arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) {
    return UnavailableError("cannot start the card %s: %s", program, std::strerror(error));
  }
  return pid;
}

class ProcessConnection : public Connection {
 public:
  ProcessConnection(const DriverOptions& options, int event_fd)
      : options_(options), event_fd_(event_fd) {}
  ~ProcessConnection() override { Stop(); }

  absl::Status Start() override {
    Stop();
    if (options_.place == CardPlace::kSocket) {
      ASSIGN_OR_RETURN(socket_, ConnectToCard(options_.card_socket));
    } else {
      RETURN_IF_ERROR(StartProcess());
    }
    const absl::Status status = Greet();
    if (!status.ok()) Stop();
    return status;
  }
  void Ring() override {
    if (memory_->registers().card_sleeps.load(std::memory_order_seq_cst) != 0) {
      fault_port_.WakeCard();
    }
  }
  bool Advance() override {
    CardRegisters& registers = memory_->registers();
    if ((memory_flags_ & kCardHasVirtualClock) == 0) return false;
    const uint64_t request = registers.advance_request.load(std::memory_order_relaxed);
    if (registers.advanced.load(std::memory_order_acquire) == request) {
      registers.advance_request.store(request + 1, std::memory_order_seq_cst);
      Ring();
    }
    return true;
  }
  int64_t NowNanos() const override { return MonotonicNanos(); }
  int hangup_fd() const override { return socket_.get(); }

 private:
  absl::Status StartProcess() {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
      return ResourceExhaustedError("socketpair: %s", std::strerror(errno));
    }
    socket_.Reset(ends[0]);
    const UniqueFd theirs(ends[1]);
    ASSIGN_OR_RETURN(pid_, Spawn(options_.card_program, theirs.get()));
    return absl::OkStatus();
  }

  absl::Status Greet() {
    const bool own = options_.place == CardPlace::kProcess;
    const std::string text = JoinOptions(own ? options_.card.ToOptions() : options_.host_options);
    RETURN_IF_ERROR(SendCardMessage(socket_.get(), text, {event_fd_}));
    ASSIGN_OR_RETURN(CardMessage answer, ReceiveCardMessage(socket_.get(), kGreetingMs));
    int code = static_cast<int>(absl::StatusCode::kUnknown);
    std::string message = "the card gave no reason";
    for (const auto& [name, value] : SplitOptions(answer.text)) {
      if (name == "status" && !absl::SimpleAtoi(value, &code)) {
        return DataLossError("the card answers with status '%s'", value);
      }
      if (name == "message") message = value;
    }
    if (code != 0) return absl::Status(static_cast<absl::StatusCode>(code), message);
    if (answer.fds.size() != 2) {
      return DataLossError("%u descriptors came with the card's answer; it must be 2",
                           answer.fds.size());
    }
    ASSIGN_OR_RETURN(memory_, CardMemory::Attach(answer.fds[0].Release()));
    std::memcpy(&memory_flags_, &memory_->registers().flags, sizeof(memory_flags_));
    doorbell_ = std::move(answer.fds[1]);
    // A full counter must not block the host.
    fcntl(doorbell_.get(), F_SETFL, fcntl(doorbell_.get(), F_GETFL) | O_NONBLOCK);
    fault_port_.Attach(memory_, doorbell_.get(), -1);
    return absl::OkStatus();
  }

  void Stop() {
    fault_port_.Detach();
    // Others may hold duplicates, and the card is to see the end all the same.
    if (socket_.get() >= 0) shutdown(socket_.get(), SHUT_RDWR);
    socket_.Reset();
    doorbell_.Reset();
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
  }

  const DriverOptions options_;
  const int event_fd_;
  UniqueFd socket_;
  UniqueFd doorbell_;
  uint32_t memory_flags_ = 0;
  pid_t pid_ = -1;
};

}  // namespace

std::unique_ptr<Connection> MakeProcessConnection(const DriverOptions& options, int event_fd) {
  return std::make_unique<ProcessConnection>(options, event_fd);
}

}  // namespace reticle::backends::hardwired
