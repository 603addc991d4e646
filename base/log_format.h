// How a line of the log is written: what stands between its time and its end.
#ifndef RETICLE_BASE_LOG_FORMAT_H_
#define RETICLE_BASE_LOG_FORMAT_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>

namespace reticle {

enum class LogFormat : uint8_t {
  kText,    // 2026-11-22T05:08:30.123+0000 info message key=value
  kLogfmt,  // time=2026-11-22T05:08:30.123+0000 level=info msg="message" key=value
  kJson,    // {"time":"2026-11-22T05:08:30.123+0000","level":"info","msg":"message","key":"value"}
};

// A key is a short plain name; a value may hold any bytes, which are escaped.
struct LogField {
  std::string_view key;
  std::variant<std::string_view, int64_t, double, bool> value;
};

// Appends message and fields as `format` writes them behind time and level. Never a line break;
// bytes that are not UTF-8 become U+FFFD.
void AppendLogBody(LogFormat format, std::string_view message, std::span<const LogField> fields,
                   std::string& out);

}  // namespace reticle

#endif  // RETICLE_BASE_LOG_FORMAT_H_
