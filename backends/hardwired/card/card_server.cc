#include "backends/hardwired/card/card_server.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <thread>

#include "backends/hardwired/card/card_link.h"
#include "backends/hardwired/card/fault.h"
#include "backends/hardwired/card/fault_port.h"
#include "backends/hardwired/card/firmware_loop.h"
#include "base/log.h"
#include "base/status.h"

namespace reticle::backends::hardwired {
namespace {

constexpr int kGreetingMs = 10'000;

// What a host may say to a card that was started with a configuration of its own.
bool IsHostsToSay(const std::string& name) {
  return name == "context_limit" || name == "max_sequences" || name == "kv_bytes" ||
         name == "sampling";
}

sigset_t Signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  for (uint32_t kind = 1; kind < kFaultKinds; ++kind) {
    sigaddset(&set, SIGRTMIN + static_cast<int>(kind));
  }
  return set;
}

class CardServer {
 public:
  explicit CardServer(const CardServerOptions& options) : options_(options) {}

  absl::Status Run() {
    const sigset_t signals = Signals();
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    stop_event_.Reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (stop_event_.get() < 0) return ResourceExhaustedError("no descriptor for an event");
    std::thread watcher([this, signals] { WatchSignals(signals); });
    const absl::Status status = options_.socket_fd >= 0 ? ServeOne() : ServeAll();
    stop_.store(true);
    pthread_kill(watcher.native_handle(), SIGTERM);
    watcher.join();
    return status;
  }

 private:
  void WatchSignals(const sigset_t& signals) {
    while (!stop_.load()) {
      int number = 0;
      if (sigwait(&signals, &number) != 0) continue;
      const int kind = number - SIGRTMIN;
      if (kind > 0 && kind < static_cast<int>(kFaultKinds)) {
        if (const auto fault = ParseFault(FaultName(static_cast<FaultKind>(kind))); fault.ok()) {
          port_.Inject(*fault);
        }
        continue;
      }
      stop_.store(true);
      const uint64_t one = 1;
      [[maybe_unused]] const ssize_t written = write(stop_event_.get(), &one, sizeof(one));
      port_.WakeCard();
    }
  }

  absl::Status ServeOne() {
    UniqueFd host(options_.socket_fd);
    ASSIGN_OR_RETURN(const CardMessage greeting, ReceiveCardMessage(host.get(), kGreetingMs));
    CardConfig config;
    for (const auto& [name, value] : SplitOptions(greeting.text)) {
      const auto taken = config.Set(name, value);
      if (taken.ok() && !*taken) return Refuse(host.get(), InvalidArgumentError("option %s", name));
      if (!taken.ok()) return Refuse(host.get(), taken.status());
    }
    auto parts = BuildCard(config);
    if (!parts.ok()) return Refuse(host.get(), parts.status());
    return Serve(host.get(), greeting, *parts, config);
  }

  absl::Status ServeAll() {
    ASSIGN_OR_RETURN(const UniqueFd listener, ListenForHosts(options_.socket_path));
    // Once before any host comes, so that a bad image is told at once.
    ASSIGN_OR_RETURN(CardParts parts, BuildCard(options_.config));
    LogInfo("card '%s' with model '%s' waits at %s", parts.capabilities.device_name,
            parts.capabilities.model_name, options_.socket_path);
    while (!stop_.load()) {
      pollfd fds[2] = {{listener.get(), POLLIN, 0}, {stop_event_.get(), POLLIN, 0}};
      if (poll(fds, 2, -1) <= 0 || (fds[0].revents & POLLIN) == 0) continue;
      const UniqueFd host(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (host.get() < 0) continue;
      if (const absl::Status status = ServeHost(host.get()); !status.ok()) {
        LogWarning("card: %s", std::string(status.message()));
      }
    }
    unlink(options_.socket_path.c_str());
    return absl::OkStatus();
  }

  absl::Status ServeHost(int host) {
    ASSIGN_OR_RETURN(const CardMessage greeting, ReceiveCardMessage(host, kGreetingMs));
    CardConfig config = options_.config;
    for (const auto& [name, value] : SplitOptions(greeting.text)) {
      if (!IsHostsToSay(name)) {
        return Refuse(host,
                      InvalidArgumentError(
                          "option %s: the card at this socket has its own configuration", name));
      }
      if (value == "0") continue;
      if (const auto taken = config.Set(name, value); !taken.ok()) {
        return Refuse(host, taken.status());
      }
    }
    auto parts = BuildCard(config);
    if (!parts.ok()) return Refuse(host, parts.status());
    return Serve(host, greeting, *parts, config);
  }

  static absl::Status Refuse(int host, const absl::Status& status) {
    const std::string text = absl::StrFormat("status=%d\nmessage=%s\n",
                                             static_cast<int>(status.code()), status.message());
    RETURN_IF_ERROR(SendCardMessage(host, text, {}));
    return status;
  }

  absl::Status Serve(int host, const CardMessage& greeting, const CardParts& parts,
                     const CardConfig& config) {
    if (greeting.fds.size() != 1) {
      return Refuse(host,
                    InvalidArgumentError("%u descriptors came with the greeting; it must be 1",
                                         greeting.fds.size()));
    }
    const UniqueFd doorbell(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (doorbell.get() < 0) return ResourceExhaustedError("no descriptor for the doorbell");
    ASSIGN_OR_RETURN(BootedCard card, BootCard(parts, config, true, greeting.fds[0].get()));
    RETURN_IF_ERROR(SendCardMessage(host, absl::StrFormat("status=0\npid=%d\n", getpid()),
                                    {card.memory->fd(), doorbell.get()}));
    port_.Attach(card.memory, doorbell.get(), -1);
    FirmwareLoop::Options loop;
    loop.doorbell_fd = doorbell.get();
    loop.hangup_fd = host;
    loop.virtual_clock = config.virtual_clock;
    FirmwareLoop(*card.firmware, card.memory->registers(), loop, stop_).Run();
    port_.Detach();
    if (card.firmware->gone()) raise(SIGKILL);
    return absl::OkStatus();
  }

  const CardServerOptions& options_;
  std::atomic<bool> stop_{false};
  UniqueFd stop_event_;
  FaultPort port_;
};

}  // namespace

absl::Status RunCardServer(const CardServerOptions& options) { return CardServer(options).Run(); }

}  // namespace reticle::backends::hardwired
