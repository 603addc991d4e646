// Cards within the host's process: inline and in a thread.
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <system_error>
#include <thread>

#include "backends/hardwired/card/card_link.h"
#include "backends/hardwired/card/firmware_loop.h"
#include "backends/hardwired/driver/connection.h"
#include "backends/hardwired/timing/virtual_clock.h"
#include "base/status.h"

namespace reticle::backends::hardwired {
namespace {

class InlineConnection : public Connection, public VirtualClock::Source {
 public:
  InlineConnection(const DriverOptions& options, CardParts parts,
                   std::shared_ptr<VirtualClock> clock, int event_fd)
      : config_(options.card),
        parts_(std::move(parts)),
        clock_(std::move(clock)),
        event_fd_(event_fd) {
    if (clock_ != nullptr) clock_->AddSource(this);
  }
  ~InlineConnection() override {
    if (clock_ != nullptr) clock_->RemoveSource(this);
  }

  absl::Status Start() override {
    fault_port_.Detach();
    if (firmware_ != nullptr) {
      RETURN_IF_ERROR(parts_.content->CheckSeal());
      firmware_.reset();
    }
    ASSIGN_OR_RETURN(BootedCard card, BootCard(parts_, config_, false, -1));
    memory_ = std::move(card.memory);
    firmware_ = std::move(card.firmware);
    fault_port_.Attach(memory_, -1, event_fd_);
    return absl::OkStatus();
  }
  void Ring() override { Pump(); }
  void Pump() override { firmware_->Step(NowNanos()); }
  bool Advance() override {
    if (!config_.virtual_clock || clock_ != nullptr) return false;
    const int64_t next = firmware_->next_event_ns();
    if (next == INT64_MAX) return false;
    virtual_now_ns_ = std::max(virtual_now_ns_, next);
    firmware_->Step(virtual_now_ns_);
    return true;
  }
  bool is_inline() const override { return true; }
  int64_t NowNanos() const override {
    if (clock_ != nullptr) return clock_->NowNanos();
    return config_.virtual_clock ? virtual_now_ns_ : MonotonicNanos();
  }
  int64_t NextEventNanos() const override {
    return firmware_ == nullptr ? INT64_MAX : firmware_->next_event_ns();
  }

 private:
  const CardConfig config_;
  const CardParts parts_;
  const std::shared_ptr<VirtualClock> clock_;
  const int event_fd_;
  std::unique_ptr<Firmware> firmware_;
  int64_t virtual_now_ns_ = 0;
};

class ThreadConnection : public Connection {
 public:
  ThreadConnection(const DriverOptions& options, CardParts parts, int event_fd)
      : config_(options.card), parts_(std::move(parts)), event_fd_(event_fd) {}
  ~ThreadConnection() override { Stop(); }

  absl::Status Start() override {
    Stop();
    if (memory_ != nullptr) RETURN_IF_ERROR(parts_.content->CheckSeal());
    doorbell_.Reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (doorbell_.get() < 0) return absl::ResourceExhaustedError("no descriptor for the doorbell");
    ASSIGN_OR_RETURN(BootedCard card, BootCard(parts_, config_, true, event_fd_));
    memory_ = std::move(card.memory);
    firmware_ = std::move(card.firmware);
    stop_.store(false);
    FirmwareLoop::Options options;
    options.doorbell_fd = doorbell_.get();
    options.virtual_clock = config_.virtual_clock;
    try {
      thread_ = std::thread([this, options] {
        pthread_setname_np(pthread_self(), "card");
        FirmwareLoop(*firmware_, memory_->registers(), options, stop_).Run();
      });
    } catch (const std::system_error& error) {
      return InternalError("cannot start the card's thread: %s", error.what());
    }
    fault_port_.Attach(memory_, doorbell_.get(), -1);
    return absl::OkStatus();
  }
  void Ring() override {
    if (memory_->registers().card_sleeps.load(std::memory_order_seq_cst) != 0) {
      fault_port_.WakeCard();
    }
  }
  bool Advance() override {
    if (!config_.virtual_clock) return false;
    CardRegisters& registers = memory_->registers();
    const uint64_t request = registers.advance_request.load(std::memory_order_relaxed);
    if (registers.advanced.load(std::memory_order_acquire) == request) {
      registers.advance_request.store(request + 1, std::memory_order_seq_cst);
      Ring();
    }
    return true;
  }
  int64_t NowNanos() const override { return MonotonicNanos(); }

 private:
  void Stop() {
    fault_port_.Detach();
    stop_.store(true);
    if (doorbell_.get() >= 0) {
      const uint64_t one = 1;
      [[maybe_unused]] const ssize_t written = write(doorbell_.get(), &one, sizeof(one));
    }
    if (thread_.joinable()) thread_.join();
    firmware_.reset();
  }

  const CardConfig config_;
  const CardParts parts_;
  const int event_fd_;
  UniqueFd doorbell_;
  std::unique_ptr<Firmware> firmware_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Connection>> MakeInlineConnection(const DriverOptions& options,
                                                                 int event_fd) {
  std::shared_ptr<VirtualClock> clock;
  if (!options.virtual_clock.empty()) {
    clock = VirtualClock::Find(options.virtual_clock);
    if (clock == nullptr) {
      return NotFoundError("option virtual_clock: there is no clock '%s'", options.virtual_clock);
    }
  }
  ASSIGN_OR_RETURN(CardParts parts, BuildCard(options.card));
  return std::make_unique<InlineConnection>(options, std::move(parts), std::move(clock), event_fd);
}

absl::StatusOr<std::unique_ptr<Connection>> MakeThreadConnection(const DriverOptions& options,
                                                                 int event_fd) {
  ASSIGN_OR_RETURN(CardParts parts, BuildCard(options.card));
  return std::make_unique<ThreadConnection>(options, std::move(parts), event_fd);
}

absl::StatusOr<std::unique_ptr<Connection>> MakeConnection(const DriverOptions& options,
                                                           int event_fd) {
  switch (options.place) {
    case CardPlace::kInline:
      return MakeInlineConnection(options, event_fd);
    case CardPlace::kThread:
      return MakeThreadConnection(options, event_fd);
    case CardPlace::kProcess:
    case CardPlace::kSocket:
      break;
  }
  return MakeProcessConnection(options, event_fd);
}

}  // namespace reticle::backends::hardwired
