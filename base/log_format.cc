#include "base/log_format.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/json_text.h"

namespace reticle {
namespace {

// As inside a JSON string, but with quotes and backslashes kept.
void AppendPlain(std::string_view text, std::string& out) {
  while (!text.empty()) {
    const size_t end = std::min(text.find_first_of("\"\\"), text.size());
    AppendJsonEscaped(out, text.substr(0, end));
    out.append(text.substr(end, 1));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

bool NeedsQuotes(std::string_view text) {
  return text.empty() || std::any_of(text.begin(), text.end(), [](char c) {
           return c <= ' ' || c == '"' || c == '=' || c == '\\' || c == 0x7f;
         });
}

void AppendText(LogFormat format, std::string_view text, std::string& out) {
  if (format == LogFormat::kJson || NeedsQuotes(text)) {
    AppendJsonString(out, text);
  } else {
    out.append(text);
  }
}

void AppendValue(LogFormat format, const LogField& field, std::string& out) {
  char digits[32];
  if (const auto* text = std::get_if<std::string_view>(&field.value)) {
    AppendText(format, *text, out);
  } else if (const auto* number = std::get_if<int64_t>(&field.value)) {
    out.append(digits, std::to_chars(digits, digits + sizeof(digits), *number).ptr);
  } else if (const auto* real = std::get_if<double>(&field.value)) {
    if (!std::isfinite(*real)) {
      out.append(format == LogFormat::kJson ? "null" : "nan");
      return;
    }
    // Times are in ms; a microsecond is as fine as they need to be.
    out.append(digits, std::to_chars(digits, digits + sizeof(digits),
                                     std::round(*real * 1000) / 1000, std::chars_format::general)
                           .ptr);
  } else {
    out.append(std::get<bool>(field.value) ? "true" : "false");
  }
}

}  // namespace

void AppendLogBody(LogFormat format, std::string_view message, std::span<const LogField> fields,
                   std::string& out) {
  switch (format) {
    case LogFormat::kText:
      AppendPlain(message, out);
      break;
    case LogFormat::kLogfmt:
      out.append("msg=");
      AppendText(format, message, out);
      break;
    case LogFormat::kJson:
      out.append("\"msg\":");
      AppendJsonString(out, message);
      break;
  }
  for (const LogField& field : fields) {
    if (format == LogFormat::kJson) {
      out.append(",\"").append(field.key).append("\":");
    } else {
      out.append(" ").append(field.key).append("=");
    }
    AppendValue(format, field, out);
  }
}

}  // namespace reticle
