#include "base/log.h"

#include <poll.h>
#include <pthread.h>
#include <spdlog/async_logger.h>
#include <spdlog/details/null_mutex.h>
#include <spdlog/details/thread_pool.h>
#include <spdlog/logger.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/status.h"

namespace reticle {
namespace {

constexpr std::string_view kLevels[] = {"debug", "info", "warning", "error", "off"};
constexpr std::string_view kFormats[] = {"text", "logfmt", "json"};
constexpr size_t kGatheredBytes = size_t{32} << 10;

std::atomic<LogLevel> g_level{LogLevel::kInfo};
std::atomic<LogFormat> g_format{LogFormat::kText};
std::atomic<uint64_t> g_queued{0};
std::atomic<uint64_t> g_written{0};
std::atomic<uint64_t> g_failed{0};
std::atomic<uint64_t> g_suppressed{0};
// Never destroyed: threads may log while the process ends.
std::atomic<spdlog::details::thread_pool*> g_pool{nullptr};

// Writes to standard error, all that is ready in one piece.
template <typename MutexType>
class StderrSink : public spdlog::sinks::base_sink<MutexType> {
 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    this->formatter_->format(message, line);
    gathered_.append(line.data(), line.size());
    ++lines_;
    spdlog::details::thread_pool* const pool = g_pool.load(std::memory_order_acquire);
    if (pool == nullptr || gathered_.size() >= kGatheredBytes || pool->queue_size() == 0) {
      WriteOut();
    }
  }
  void flush_() override { WriteOut(); }

 private:
  void WriteOut() {
    std::string_view rest = gathered_;
    while (!rest.empty()) {
      const ssize_t written = write(STDERR_FILENO, rest.data(), rest.size());
      if (written > 0) {
        rest.remove_prefix(static_cast<size_t>(written));
      } else if (errno == EAGAIN) {
        pollfd ready{STDERR_FILENO, POLLOUT, 0};
        poll(&ready, 1, -1);
      } else if (errno != EINTR) {
        break;
      }
    }
    (rest.empty() ? g_written : g_failed).fetch_add(lines_, std::memory_order_acq_rel);
    gathered_.clear();
    lines_ = 0;
  }

  std::string gathered_;
  uint64_t lines_ = 0;
};

void SetPattern(spdlog::logger& logger) {
  switch (g_format.load()) {
    case LogFormat::kText:
      logger.set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
      break;
    case LogFormat::kLogfmt:
      logger.set_pattern("time=%Y-%m-%dT%H:%M:%S.%e%z level=%l %v");
      break;
    case LogFormat::kJson:
      logger.set_pattern(R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l",%v})");
      break;
  }
  logger.set_level(spdlog::level::trace);
}

std::shared_ptr<spdlog::logger>& LoggerSlot() {
  static auto* const slot = [] {
    auto logger =
        std::make_shared<spdlog::logger>("reticle", std::make_shared<StderrSink<std::mutex>>());
    SetPattern(*logger);
    return new std::shared_ptr<spdlog::logger>(std::move(logger));
  }();
  return *slot;
}

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
    case LogLevel::kOff:
      break;
  }
  return spdlog::level::off;
}

// The share of each place: a hash table that never forgets, since places are few and constant.
struct Site {
  std::atomic<const char*> format{nullptr};
  std::atomic<int64_t> second{0};
  std::atomic<int> lines{0};
  std::atomic<uint64_t> suppressed{0};
};
constexpr size_t kSites = 1024;
std::array<Site, kSites> g_sites;

Site* FindSite(const char* format) {
  size_t index = (reinterpret_cast<uintptr_t>(format) * 0x9e3779b97f4a7c15u) >> 54;
  for (size_t tried = 0; tried < kSites; ++tried, index = (index + 1) % kSites) {
    const char* found = g_sites[index].format.load(std::memory_order_acquire);
    if (found == nullptr && g_sites[index].format.compare_exchange_strong(found, format)) {
      return &g_sites[index];
    }
    if (found == format) return &g_sites[index];
  }
  return nullptr;
}

int64_t NowSecond() { return Clock::Monotonic().NowNanos() / 1'000'000'000 + 1; }

}  // namespace

void StartLog(const LogOptions& options) {
  std::shared_ptr<spdlog::logger>& logger = LoggerSlot();
  g_format.store(options.format);
  if (options.asynchronous) {
    // Never destroyed: whoever logs last needs it, as the logger.
    static auto* const pools = new std::vector<std::shared_ptr<spdlog::details::thread_pool>>;
    pools->push_back(std::make_shared<spdlog::details::thread_pool>(
        options.queue_lines, 1, [] { pthread_setname_np(pthread_self(), "log"); }));
    logger = std::make_shared<spdlog::async_logger>(
        "reticle", std::make_shared<StderrSink<spdlog::details::null_mutex>>(), pools->back(),
        spdlog::async_overflow_policy::overrun_oldest);
    g_pool.store(pools->back().get(), std::memory_order_release);
  }
  SetPattern(*logger);
}

bool FlushLog(int64_t timeout_ns) {
  const Clock& clock = Clock::Monotonic();
  const int64_t end_ns = clock.NowNanos() + timeout_ns;
  const uint64_t queued = g_queued.load(std::memory_order_acquire);
  while (g_written.load(std::memory_order_acquire) + CountLog().dropped < queued) {
    if (clock.NowNanos() >= end_ns) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

void SetLogLevel(LogLevel level) { g_level.store(level, std::memory_order_relaxed); }
LogLevel GetLogLevel() { return g_level.load(std::memory_order_relaxed); }
bool LogEnabled(LogLevel level) { return level >= g_level.load(std::memory_order_relaxed); }

absl::StatusOr<LogLevel> ParseLogLevel(std::string_view name) {
  for (size_t i = 0; i < std::size(kLevels); ++i) {
    if (kLevels[i] == name) return static_cast<LogLevel>(i);
  }
  return InvalidArgumentError(
      "the log level is \"%s\"; it must be debug, info, warning, error or off", name.substr(0, 64));
}

std::string_view LogLevelName(LogLevel level) { return kLevels[static_cast<size_t>(level)]; }

absl::StatusOr<LogFormat> ParseLogFormat(std::string_view name) {
  for (size_t i = 0; i < std::size(kFormats); ++i) {
    if (kFormats[i] == name) return static_cast<LogFormat>(i);
  }
  return InvalidArgumentError("the log format is \"%s\"; it must be text, logfmt or json",
                              name.substr(0, 64));
}

void LogEvent(LogLevel level, std::string_view message, std::span<const LogField> fields) {
  if (!LogEnabled(level) || level == LogLevel::kOff) return;
  thread_local std::string body;
  body.clear();
  AppendLogBody(g_format.load(std::memory_order_relaxed), message, fields, body);
  g_queued.fetch_add(1, std::memory_order_acq_rel);
  LoggerSlot()->log(ToSpdlog(level), spdlog::string_view_t(body.data(), body.size()));
}

void LogLine(LogLevel level, std::string_view message) {
  uint64_t suppressed = 0;
  if (!LogEnabled(level) || !log_internal::Admit("a driver's line", &suppressed)) return;
  log_internal::Write(level, message, suppressed);
}

LogCounts CountLog() {
  LogCounts counts;
  counts.dropped = g_failed.load(std::memory_order_acquire);
  if (spdlog::details::thread_pool* const pool = g_pool.load(std::memory_order_acquire)) {
    counts.dropped += pool->overrun_counter();
  }
  counts.suppressed = g_suppressed.load(std::memory_order_relaxed);
  return counts;
}

void ReportSuppressedLines() {
  const int64_t now = NowSecond();
  for (Site& site : g_sites) {
    const char* const format = site.format.load(std::memory_order_acquire);
    if (format == nullptr || site.second.load(std::memory_order_relaxed) >= now) continue;
    const uint64_t suppressed = site.suppressed.exchange(0, std::memory_order_relaxed);
    if (suppressed == 0) continue;
    const LogField fields[] = {{"site", std::string_view(format)},
                               {"suppressed", static_cast<int64_t>(suppressed)}};
    LogEvent(LogLevel::kWarning, "lines were suppressed", fields);
  }
}

namespace log_internal {

bool Admit(const char* site_format, uint64_t* suppressed) {
  Site* const site = FindSite(site_format);
  if (site == nullptr) return true;
  const int64_t now = NowSecond();
  int64_t second = site->second.load(std::memory_order_relaxed);
  if (second != now && site->second.compare_exchange_strong(second, now)) site->lines.store(0);
  if (site->lines.fetch_add(1, std::memory_order_relaxed) < kLinesASecond) {
    *suppressed = site->suppressed.exchange(0, std::memory_order_relaxed);
    return true;
  }
  site->suppressed.fetch_add(1, std::memory_order_relaxed);
  g_suppressed.fetch_add(1, std::memory_order_relaxed);
  return false;
}

void Write(LogLevel level, std::string_view message, uint64_t suppressed) {
  const LogField field{"suppressed", static_cast<int64_t>(suppressed)};
  LogEvent(level, message, std::span(&field, suppressed > 0 ? 1 : 0));
}

}  // namespace log_internal
}  // namespace reticle
