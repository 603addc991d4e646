#include "tokenizer/jinja/strings.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <system_error>

#include "base/status.h"
#include "tokenizer/jinja/unicode.h"

namespace reticle::tokenizer::jinja {
namespace {

bool IsLineEnd(char32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

// Without surrounding space and with single underscores between digits taken out.
std::optional<std::string> CleanNumber(std::string_view text) {
  const auto [begin, end] = StripRange(text, Side::kBoth, std::nullopt);
  std::string out;
  for (size_t i = begin; i < end; ++i) {
    const char c = text[i];
    if (c != '_') {
      out.push_back(c);
      continue;
    }
    const auto is_digit = [](char d) { return std::isxdigit(static_cast<unsigned char>(d)) != 0; };
    if (i == begin || i + 1 >= end || !is_digit(text[i - 1]) || !is_digit(text[i + 1])) {
      return std::nullopt;
    }
  }
  return out;
}

}  // namespace

std::pair<size_t, size_t> StripRange(std::string_view text, Side side,
                                     std::optional<std::string_view> chars) {
  const auto strips = [&](std::string_view character) {
    return chars.has_value() ? chars->find(character) != std::string_view::npos
                             : IsSpace(DecodeCharacter(character));
  };
  size_t begin = 0;
  size_t end = text.size();
  if (side != Side::kRight) {
    while (begin < end) {
      const std::string_view character = CharacterAt(text, begin);
      if (!strips(character)) break;
      begin += character.size();
    }
  }
  if (side != Side::kLeft) {
    while (end > begin) {
      const size_t last = SkipCharactersBack(text, end, 1);
      if (!strips(text.substr(last, end - last))) break;
      end = last;
    }
  }
  return {begin, end};
}

std::vector<std::pair<size_t, size_t>> SplitLines(std::string_view text, bool keep_ends) {
  std::vector<std::pair<size_t, size_t>> lines;
  size_t begin = 0;
  for (size_t pos = 0; pos < text.size();) {
    const std::string_view character = CharacterAt(text, pos);
    const size_t line_end = pos;
    pos += character.size();
    if (!IsLineEnd(DecodeCharacter(character))) continue;
    if (character == "\r" && pos < text.size() && text[pos] == '\n') ++pos;
    lines.emplace_back(begin, keep_ends ? pos : line_end);
    begin = pos;
  }
  if (begin < text.size()) lines.emplace_back(begin, text.size());
  return lines;
}

absl::StatusOr<Text> Replace(Runtime& runtime, const Text& text, const Text& old_part,
                             const Text& new_part, int64_t count) {
  RETURN_IF_ERROR(runtime.Read(text.size() * (1 + old_part.size() / 16)));
  RETURN_IF_ERROR(runtime.Allocate(text.size()));
  uint64_t left = count < 0 ? std::numeric_limits<uint64_t>::max() : static_cast<uint64_t>(count);
  const std::string_view view = text.view();
  Text out;
  size_t pos = 0;
  const auto insert = [&]() -> absl::Status {
    --left;
    RETURN_IF_ERROR(runtime.Step());
    RETURN_IF_ERROR(runtime.Allocate(new_part.size()));
    out.Append(new_part);
    return absl::OkStatus();
  };
  if (old_part.empty()) {
    while (left > 0) {
      RETURN_IF_ERROR(insert());
      if (pos == text.size()) break;
      const size_t size = CharacterAt(view, pos).size();
      out.Append(text, pos, size);
      pos += size;
    }
  } else {
    while (left > 0) {
      const size_t found = view.find(old_part.view(), pos);
      if (found == std::string_view::npos) break;
      out.Append(text, pos, found - pos);
      RETURN_IF_ERROR(insert());
      pos = found + old_part.size();
    }
  }
  out.Append(text, pos, text.size() - pos);
  return out;
}

absl::StatusOr<Text> Pad(Runtime& runtime, const Text& text, int64_t width, Side side,
                         const Text& fill) {
  const auto size = static_cast<int64_t>(CountCharacters(text.view()));
  RETURN_IF_ERROR(runtime.Read(text.size()));
  if (width <= size) return text;
  const auto missing = static_cast<uint64_t>(width - size);
  RETURN_IF_ERROR(runtime.Step(missing));
  RETURN_IF_ERROR(runtime.Allocate(text.size() + missing * fill.size()));
  uint64_t before = side == Side::kLeft ? 0 : missing;
  if (side == Side::kBoth) {
    before = missing / 2 + (missing & static_cast<uint64_t>(width) & 1);
  }
  Text out;
  out.set_markup(text.is_markup());
  for (uint64_t i = 0; i < before; ++i) out.Append(fill);
  out.Append(text);
  for (uint64_t i = before; i < missing; ++i) out.Append(fill);
  return out;
}

absl::StatusOr<Text> EscapeHtml(Runtime& runtime, const Text& text) {
  RETURN_IF_ERROR(runtime.Read(text.size() * 4));
  Text out;
  text.ForEachRun(0, text.size(), [&](std::string_view run, bool untrusted) {
    std::string escaped;
    for (const char c : run) {
      switch (c) {
        case '&':
          escaped += "&amp;";
          break;
        case '<':
          escaped += "&lt;";
          break;
        case '>':
          escaped += "&gt;";
          break;
        case '\'':
          escaped += "&#39;";
          break;
        case '"':
          escaped += "&#34;";
          break;
        default:
          escaped.push_back(c);
      }
    }
    out.Append(escaped, untrusted);
  });
  RETURN_IF_ERROR(runtime.Allocate(out.size()));
  out.set_markup(true);
  return out;
}

absl::StatusOr<Value> MapText(Runtime& runtime, const Text& text,
                              std::string (*map)(std::string_view)) {
  RETURN_IF_ERROR(runtime.Read(text.size()));
  RETURN_IF_ERROR(runtime.Allocate(text.size()));
  Text mapped(map(text.view()), text.has_untrusted());
  mapped.set_markup(text.is_markup());
  return runtime.String(std::move(mapped));
}

absl::StatusOr<Value> JoinItems(Runtime& runtime, const Text& separator,
                                const std::vector<Value>& items, bool convert) {
  Text out;
  for (size_t i = 0; i < items.size(); ++i) {
    RETURN_IF_ERROR(runtime.Step());
    if (i > 0) {
      RETURN_IF_ERROR(runtime.Allocate(separator.size()));
      out.Append(separator);
    }
    if (!convert && !items[i].is_string()) {
      return InvalidArgumentError("sequence item %d: expected str instance, %s found", i,
                                  items[i].TypeName());
    }
    RETURN_IF_ERROR(runtime.AppendString(items[i], out));
  }
  return Value(std::move(out));
}

std::optional<int64_t> ParseInteger(std::string_view text, int base) {
  if (base != 0 && (base < 2 || base > 36)) return std::nullopt;
  const std::optional<std::string> clean = CleanNumber(text);
  if (!clean.has_value()) return std::nullopt;
  std::string_view digits = *clean;
  bool negative = false;
  if (!digits.empty() && (digits[0] == '-' || digits[0] == '+')) {
    negative = digits[0] == '-';
    digits.remove_prefix(1);
  }
  if (digits.size() > 2 && digits[0] == '0') {
    const char mark = static_cast<char>(digits[1] | 0x20);
    const int marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    if (marked != 0 && (base == marked || base == 0)) {
      base = marked;
      digits.remove_prefix(2);
    }
  }
  if (base == 0) base = 10;
  if (digits.empty() || digits[0] == '-') return std::nullopt;
  const std::string signed_digits = (negative ? "-" : "") + std::string(digits);
  int64_t value = 0;
  const char* const end = signed_digits.data() + signed_digits.size();
  const auto parsed = std::from_chars(signed_digits.data(), end, value, base);
  if (parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
  return value;
}

std::optional<double> ParseFloat(std::string_view text) {
  const std::optional<std::string> clean = CleanNumber(text);
  if (!clean.has_value()) return std::nullopt;
  std::string_view digits = *clean;
  bool negative = false;
  if (!digits.empty() && (digits[0] == '-' || digits[0] == '+')) {
    negative = digits[0] == '-';
    digits.remove_prefix(1);
  }
  const std::string lower = ToLower(digits);
  double value = 0;
  if (lower == "inf" || lower == "infinity") {
    value = std::numeric_limits<double>::infinity();
  } else if (lower == "nan") {
    value = std::numeric_limits<double>::quiet_NaN();
  } else {
    if (lower.empty() || !((lower[0] >= '0' && lower[0] <= '9') || lower[0] == '.')) {
      return std::nullopt;
    }
    const char* const end = lower.data() + lower.size();
    const auto parsed = std::from_chars(lower.data(), end, value);
    if (parsed.ptr != end || parsed.ec == std::errc::invalid_argument) return std::nullopt;
    if (parsed.ec == std::errc::result_out_of_range) {
      // Python gives infinity or zero; which one, the exponent's sign tells.
      value = lower.find("e-") != std::string::npos ? 0.0 : std::numeric_limits<double>::infinity();
    }
  }
  return negative ? -value : value;
}

}  // namespace reticle::tokenizer::jinja
