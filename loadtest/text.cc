#include "loadtest/text.h"

#include <charconv>
#include <cmath>
#include <cstring>

#include "base/status.h"

namespace reticle::loadtest {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";

void AppendUtf8(std::string& out, uint32_t code) {
  const auto put = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xc0 | code >> 6);
    put(0x80 | (code & 63));
  } else if (code < 0x10000) {
    put(0xe0 | code >> 12);
    put(0x80 | (code >> 6 & 63));
    put(0x80 | (code & 63));
  } else {
    put(0xf0 | code >> 18);
    put(0x80 | (code >> 12 & 63));
    put(0x80 | (code >> 6 & 63));
    put(0x80 | (code & 63));
  }
}

// The four hexadecimal digits at the start of `text`; false when they are not there.
bool ParseHex4(std::string_view text, uint32_t& out) {
  if (text.size() < 4) return false;
  const auto parsed = std::from_chars(text.data(), text.data() + 4, out, 16);
  return parsed.ec == std::errc() && parsed.ptr == text.data() + 4;
}

}  // namespace

std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::string_view Trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

bool ParseDouble(std::string_view text, double& out) {
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), out);
  return parsed.ec == std::errc() && parsed.ptr == text.data() + text.size() && std::isfinite(out);
}

bool ParseInteger(std::string_view text, int64_t& out) {
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), out);
  return parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
}

absl::StatusOr<int64_t> ParseDurationNs(std::string_view text) {
  double number = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(parsed.ptr, text.data() + text.size() - parsed.ptr);
  double scale = 0;
  if (unit == "ns") scale = 1;
  if (unit == "us") scale = 1e3;
  if (unit == "ms") scale = 1e6;
  if (unit.empty() || unit == "s") scale = 1e9;
  if (unit == "m" || unit == "min") scale = 60e9;
  if (unit == "h") scale = 3600e9;
  if (parsed.ec != std::errc() || scale == 0 || !(number >= 0) || number * scale > 9e18) {
    return InvalidArgumentError("\"%s\" is no duration such as 250us, 20ms, 1.5s, 2m or 1h", text);
  }
  return std::llround(number * scale);
}

std::string FormatNs(double ns) {
  double value = ns / 1e3;
  const char* unit = "us";
  if (ns >= 1e6) value = ns / 1e6, unit = "ms";
  if (ns >= 1e9) value = ns / 1e9, unit = "s";
  const int digits = value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return absl::StrFormat("%.*f %s", digits, value, unit);
}

std::string FormatCount(double value) {
  const char* unit = "";
  if (std::fabs(value) >= 1e4) value /= 1e3, unit = "k";
  if (std::fabs(value) >= 1e3 && *unit != 0) value /= 1e3, unit = "M";
  if (std::fabs(value) >= 1e3 && *unit == 'M') value /= 1e3, unit = "G";
  if (*unit == 0 && value == std::floor(value)) return absl::StrFormat("%.0f", value);
  const int digits = std::fabs(value) >= 100 ? 1 : 2;
  return absl::StrFormat("%.*f%s", digits, value, unit);
}

void AppendJsonUnescaped(std::string& out, std::string_view escaped) {
  while (!escaped.empty()) {
    const size_t plain = escaped.find('\\');
    out.append(escaped.substr(0, plain));
    if (plain == std::string_view::npos || plain + 1 == escaped.size()) return;
    const char kind = escaped[plain + 1];
    escaped.remove_prefix(plain + 2);
    switch (kind) {
      case 'n':
        out.push_back('\n');
        continue;
      case 'r':
        out.push_back('\r');
        continue;
      case 't':
        out.push_back('\t');
        continue;
      case 'b':
        out.push_back('\b');
        continue;
      case 'f':
        out.push_back('\f');
        continue;
      case 'u':
        break;
      default:
        out.push_back(kind);
        continue;
    }
    uint32_t code = 0;
    if (!ParseHex4(escaped, code)) continue;
    escaped.remove_prefix(4);
    uint32_t low = 0;
    if (code >= 0xd800 && code < 0xdc00 && escaped.starts_with("\\u") &&
        ParseHex4(escaped.substr(2), low) && low >= 0xdc00 && low < 0xe000) {
      escaped.remove_prefix(6);
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    if (code >= 0xd800 && code < 0xe000) {
      out.append(kReplacement);
    } else {
      AppendUtf8(out, code);
    }
  }
}

void AppendInteger(std::string& out, int64_t value) {
  char digits[24];
  const auto end = std::to_chars(digits, digits + sizeof(digits), value);
  out.append(digits, end.ptr);
}

void AppendDouble(std::string& out, double value) {
  if (!std::isfinite(value)) {
    out.append("null");
    return;
  }
  char digits[40];
  const auto end = std::to_chars(digits, digits + sizeof(digits), value);
  out.append(digits, end.ptr);
}

}  // namespace reticle::loadtest
