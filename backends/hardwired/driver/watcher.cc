#include "backends/hardwired/driver/watcher.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <system_error>

#include "backends/hardwired/card/firmware_loop.h"
#include "base/log.h"
#include "base/status.h"

namespace reticle::backends::hardwired {
namespace {

constexpr int64_t kNanosPerMilli = 1'000'000;

}  // namespace

std::string LossText(LossReason reason) {
  switch (reason) {
    case LossReason::kNone:
      break;
    case LossReason::kGone:
      return "the card is gone";
    case LossReason::kHang:
      return "the card hangs: it shows no heartbeat";
    case LossReason::kLink:
      return "the link to the card is broken";
    case LossReason::kMemory:
      return "the card stopped at an uncorrected memory error";
    case LossReason::kImage:
      return "the card's image does not match its seal";
    case LossReason::kRestart:
      return "the card could not be started again";
  }
  return "";
}

absl::StatusOr<std::unique_ptr<Watcher>> Watcher::Start(Options options) {
  std::unique_ptr<Watcher> watcher(new Watcher(std::move(options)));
  watcher->wake_.Reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (watcher->wake_.get() < 0) return absl::ResourceExhaustedError("no descriptor for an event");
  try {
    watcher->thread_ = std::thread([raw = watcher.get()] {
      pthread_setname_np(pthread_self(), "card-watch");
      raw->Run();
    });
  } catch (const std::system_error& error) {
    return InternalError("cannot start the card's watcher: %s", error.what());
  }
  return watcher;
}

Watcher::~Watcher() {
  stop_.store(true);
  Wake();
  if (thread_.joinable()) thread_.join();
}

void Watcher::Wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_.get(), &one, sizeof(one));
}

void Watcher::Watch(std::shared_ptr<CardMemory> memory, int hangup_fd) {
  {
    MutexLock lock(mutex_);
    memory_ = std::move(memory);
    hangup_.Reset(hangup_fd >= 0 ? fcntl(hangup_fd, F_DUPFD_CLOEXEC, 0) : -1);
    ++epoch_;
  }
  Wake();
}

void Watcher::Run() {
  const int64_t round_ms = std::clamp<int64_t>(options_.watchdog_ns / 4 / kNanosPerMilli, 5, 100);
  bool told = false;
  uint64_t told_epoch = 0;
  while (!stop_.load()) {
    int hangup_fd = -1;
    uint64_t epoch = 0;
    {
      MutexLock lock(mutex_);
      epoch = epoch_;
      // Closed only by Watch, which wakes this thread first to look again: a duplicate for the
      // wait.
      if (hangup_.get() >= 0) hangup_fd = fcntl(hangup_.get(), F_DUPFD_CLOEXEC, 0);
    }
    const UniqueFd hangup(hangup_fd);
    if (epoch != told_epoch) told = false;
    pollfd fds[2] = {{wake_.get(), POLLIN, 0}, {hangup.get(), POLLIN, 0}};
    const int count = hangup.get() >= 0 && !told ? 2 : 1;
    const int ready = poll(fds, count, static_cast<int>(round_ms));
    if (ready > 0 && (fds[0].revents & POLLIN) != 0) {
      uint64_t wakes = 0;
      [[maybe_unused]] const ssize_t taken = read(wake_.get(), &wakes, sizeof(wakes));
      continue;
    }
    if (ready > 0 && count == 2 && fds[1].revents != 0) {
      // The card says nothing after its greeting: this is the end of its process. Not that of a
      // card which was replaced meanwhile.
      MutexLock lock(mutex_);
      told = true;
      told_epoch = epoch;
      if (epoch == epoch_) options_.lose(LossReason::kGone);
      continue;
    }
    if (options_.watches_heartbeat) CheckHeartbeat(MonotonicNanos());
    if (!options_.fault_file.empty()) CheckFaultFile();
  }
}

void Watcher::CheckHeartbeat(int64_t now_ns) {
  MutexLock lock(mutex_);
  if (memory_ == nullptr) return;
  const uint64_t heartbeat = memory_->registers().heartbeat.load(std::memory_order_relaxed);
  if (heartbeat != heartbeat_ || epoch_ != heartbeat_epoch_ || !options_.owes_work()) {
    heartbeat_ = heartbeat;
    heartbeat_epoch_ = epoch_;
    heartbeat_since_ns_ = now_ns;
    return;
  }
  if (now_ns - heartbeat_since_ns_ >= options_.watchdog_ns) options_.lose(LossReason::kHang);
}

void Watcher::CheckFaultFile() {
  struct stat info {};
  if (stat(options_.fault_file.c_str(), &info) != 0) return;
  const int64_t time_ns = info.st_mtim.tv_sec * 1'000'000'000 + info.st_mtim.tv_nsec;
  if (time_ns == fault_file_time_ns_ && info.st_size == fault_file_size_) return;
  fault_file_time_ns_ = time_ns;
  fault_file_size_ = info.st_size;
  std::ifstream file(options_.fault_file);
  for (std::string line; std::getline(file, line);) InjectLine(line);
}

void Watcher::InjectLine(std::string_view line) {
  const auto trim = [](std::string_view text) {
    const size_t begin = text.find_first_not_of(" \t\r");
    if (begin == std::string_view::npos) return std::string_view();
    return text.substr(begin, text.find_last_not_of(" \t\r") + 1 - begin);
  };
  line = trim(line);
  if (line.empty() || line.front() == '#') return;
  const size_t space = line.find_first_of(" \t");
  const std::string_view device = line.substr(0, space);
  const std::string_view text =
      space == std::string_view::npos ? std::string_view() : trim(line.substr(space));
  if (device != "*" && device != options_.device_name &&
      device != std::to_string(options_.device_index)) {
    return;
  }
  const auto fault = ParseFault(text);
  if (!fault.ok()) {
    LogWarning("%s: %s", options_.fault_file, fault.status().message());
    return;
  }
  LogWarning("device '%s': injecting the fault %s", options_.device_name, FormatFault(*fault));
  options_.inject(*fault);
}

}  // namespace reticle::backends::hardwired
