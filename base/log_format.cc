#include "base/log_format.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace reticle {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";

// Bytes of the well-formed UTF-8 sequence that `text` begins with (Unicode 15, table 3-7); 0: none.
size_t SequenceBytes(std::string_view text) {
  const auto byte = [&](size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  const auto tail = [&](size_t i, unsigned low = 0x80, unsigned high = 0xbf) {
    return byte(i) >= low && byte(i) <= high;
  };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead <= 0xdf) return tail(1) ? 2 : 0;
  if (lead >= 0xe0 && lead <= 0xef) {
    const unsigned low = lead == 0xe0 ? 0xa0 : 0x80;
    const unsigned high = lead == 0xed ? 0x9f : 0xbf;
    return tail(1, low, high) && tail(2) ? 3 : 0;
  }
  if (lead >= 0xf0 && lead <= 0xf4) {
    const unsigned low = lead == 0xf0 ? 0x90 : 0x80;
    const unsigned high = lead == 0xf4 ? 0x8f : 0xbf;
    return tail(1, low, high) && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

void AppendEscape(unsigned char c, std::string& out) {
  constexpr char kHex[] = "0123456789abcdef";
  switch (c) {
    case '"':
      out.append("\\\"");
      break;
    case '\\':
      out.append("\\\\");
      break;
    case '\n':
      out.append("\\n");
      break;
    case '\r':
      out.append("\\r");
      break;
    case '\t':
      out.append("\\t");
      break;
    default:
      out.append("\\u00");
      out.push_back(kHex[c >> 4]);
      out.push_back(kHex[c & 15]);
  }
}

// As inside a JSON string, with quotes and backslashes kept when `plain`.
void AppendEscaped(std::string_view text, bool plain, std::string& out) {
  while (!text.empty()) {
    const size_t bytes = SequenceBytes(text);
    const auto first = static_cast<unsigned char>(text[0]);
    if (bytes == 0) {
      out.append(kReplacement);
    } else if (first < 0x20 || first == 0x7f || (!plain && (first == '"' || first == '\\'))) {
      AppendEscape(first, out);
    } else {
      out.append(text.substr(0, bytes));
    }
    text.remove_prefix(std::max<size_t>(bytes, 1));
  }
}

void AppendQuoted(std::string_view text, std::string& out) {
  out.push_back('"');
  AppendEscaped(text, /*plain=*/false, out);
  out.push_back('"');
}

bool NeedsQuotes(std::string_view text) {
  return text.empty() || std::any_of(text.begin(), text.end(), [](char c) {
           return c <= ' ' || c == '"' || c == '=' || c == '\\' || c == 0x7f;
         });
}

void AppendText(LogFormat format, std::string_view text, std::string& out) {
  if (format == LogFormat::kJson || NeedsQuotes(text)) {
    AppendQuoted(text, out);
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
      AppendEscaped(message, /*plain=*/true, out);
      break;
    case LogFormat::kLogfmt:
      out.append("msg=");
      AppendText(format, message, out);
      break;
    case LogFormat::kJson:
      out.append("\"msg\":");
      AppendQuoted(message, out);
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
