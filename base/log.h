// Logging behind a small header (spdlog costs nine seconds to include). Lines go to standard error.
//
//   LogInfo("loaded %s in %.1f ms", path, ms);
//   LogEvent(LogLevel::kInfo, "request", fields);      // a line of keys and values
//
// Thread-safe. Never on the token path, and never with a key; a prompt only where its operator asks
// for it. A line of LogInfo and its siblings is written at most kLinesASecond times a second for
// each place in the source; the next one that is written says how many were not (`suppressed`).
// LogEvent is not limited so.
//
// Until StartLog lines are written by their callers, as text. A server starts with
// `asynchronous`: then callers only queue, and a standard error that takes nothing makes the oldest
// lines go missing, counted, but never stalls anybody.
#ifndef RETICLE_BASE_LOG_H_
#define RETICLE_BASE_LOG_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/strings/str_format.h"
#include "base/log_format.h"

namespace reticle {

enum class LogLevel { kDebug = 0, kInfo = 1, kWarning = 2, kError = 3, kOff = 4 };
inline constexpr int kLinesASecond = 20;

struct LogOptions {
  LogFormat format = LogFormat::kText;
  bool asynchronous = false;
  size_t queue_lines = 8192;  // that may wait for standard error
};
// Once, before other threads log. An asynchronous log has a thread of its own from here on.
void StartLog(const LogOptions& options);
// Waits until what was logged is written, for at most `timeout_ns`. False when that passed.
bool FlushLog(int64_t timeout_ns);

// Lines below `level` are dropped; the default is kInfo. At any time.
void SetLogLevel(LogLevel level);
LogLevel GetLogLevel();
bool LogEnabled(LogLevel level);
// "debug", "info", "warning", "error", "off". INVALID_ARGUMENT lists them.
absl::StatusOr<LogLevel> ParseLogLevel(std::string_view name);
std::string_view LogLevelName(LogLevel level);
// "text", "logfmt", "json". INVALID_ARGUMENT lists them.
absl::StatusOr<LogFormat> ParseLogFormat(std::string_view name);

void LogEvent(LogLevel level, std::string_view message, std::span<const LogField> fields);
// A line that was formatted elsewhere, by a driver; all of these are limited as one place.
void LogLine(LogLevel level, std::string_view message);

struct LogCounts {
  uint64_t dropped = 0;     // lines that were queued and never written
  uint64_t suppressed = 0;  // lines beyond their place's share
};
LogCounts CountLog();
// Says for every place that has been quiet for a second how many of its lines were suppressed, if
// that has not been said. For whoever runs something now and then.
void ReportSuppressedLines();

namespace log_internal {
// Whether the place whose format is `site` may write a line now; then `suppressed` gets the number
// of those before it that were not.
bool Admit(const char* site, uint64_t* suppressed);
void Write(LogLevel level, std::string_view message, uint64_t suppressed);
}  // namespace log_internal

template <typename... Args>
void Log(LogLevel level, const absl::FormatSpec<Args...>& format, const Args&... args) {
  if (!LogEnabled(level)) return;
  // The literal itself stands for the place.
  const char* const site =
      absl::str_format_internal::UntypedFormatSpecImpl::Extract(format).str().data();
  uint64_t suppressed = 0;
  if (!log_internal::Admit(site, &suppressed)) return;
  log_internal::Write(level, absl::StrFormat(format, args...), suppressed);
}
template <typename... Args>
void LogDebug(const absl::FormatSpec<Args...>& format, const Args&... args) {
  Log(LogLevel::kDebug, format, args...);
}
template <typename... Args>
void LogInfo(const absl::FormatSpec<Args...>& format, const Args&... args) {
  Log(LogLevel::kInfo, format, args...);
}
template <typename... Args>
void LogWarning(const absl::FormatSpec<Args...>& format, const Args&... args) {
  Log(LogLevel::kWarning, format, args...);
}
template <typename... Args>
void LogError(const absl::FormatSpec<Args...>& format, const Args&... args) {
  Log(LogLevel::kError, format, args...);
}

}  // namespace reticle

#endif  // RETICLE_BASE_LOG_H_
