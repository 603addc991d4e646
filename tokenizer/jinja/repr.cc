#include "tokenizer/jinja/repr.h"

#include <charconv>
#include <cmath>
#include <cstdlib>

#include "base/status.h"
#include "tokenizer/jinja/runtime.h"
#include "tokenizer/jinja/unicode.h"

namespace reticle::tokenizer::jinja {

std::string FloatRepr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[40];
  const auto [end, error] =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific);
  const std::string_view shown(buffer, static_cast<size_t>(end - buffer));
  const size_t e = shown.find('e');
  const int exponent = std::atoi(std::string(shown.substr(e + 1)).c_str());
  const bool negative = shown[0] == '-';
  std::string digits;
  for (const char c : shown.substr(0, e)) {
    if (c >= '0' && c <= '9') digits.push_back(c);
  }
  std::string out = negative ? "-" : "";
  if (exponent < -4 || exponent >= 16) {
    out.push_back(digits[0]);
    if (digits.size() > 1) {
      out.push_back('.');
      out.append(digits, 1);
    }
    out += absl::StrFormat("e%c%02d", exponent < 0 ? '-' : '+', std::abs(exponent));
    return out;
  }
  if (exponent < 0) {
    out += "0.";
    out.append(static_cast<size_t>(-exponent - 1), '0');
    return out + digits;
  }
  const auto whole = static_cast<size_t>(exponent) + 1;
  if (digits.size() <= whole) {
    out += digits;
    out.append(whole - digits.size(), '0');
    return out + ".0";
  }
  out.append(digits, 0, whole);
  out.push_back('.');
  return out.append(digits, whole);
}

std::string StringRepr(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const bool has_double = text.find('"') != std::string_view::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  std::string out(1, quote);
  for (size_t pos = 0; pos < text.size();) {
    const std::string_view character = CharacterAt(text, pos);
    const char32_t c = DecodeCharacter(character);
    pos += character.size();
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out.push_back('\\');
      out.append(character);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (IsPrintable(c)) {
      out.append(character);
    } else if (c <= 0xFF) {
      out += absl::StrFormat("\\x%02x", static_cast<uint32_t>(c));
    } else if (c <= 0xFFFF) {
      out += absl::StrFormat("\\u%04x", static_cast<uint32_t>(c));
    } else {
      out += absl::StrFormat("\\U%08x", static_cast<uint32_t>(c));
    }
  }
  out.push_back(quote);
  return out;
}

absl::Status Runtime::AppendString(const Value& value, Text& out) {
  switch (value.kind()) {
    case Value::Kind::kUndefined:
      return absl::OkStatus();
    case Value::Kind::kString:
      RETURN_IF_ERROR(Allocate(value.text().size()));
      out.Append(value.text());
      return absl::OkStatus();
    case Value::Kind::kSequence:
    case Value::Kind::kDict: {
      Text text;
      RETURN_IF_ERROR(AppendRepr(value, text));
      if (text.has_untrusted()) text.Taint();
      out.Append(text);
      return absl::OkStatus();
    }
    default:
      return AppendRepr(value, out);
  }
}

absl::StatusOr<Text> Runtime::ToText(const Value& value) {
  if (value.is_string()) {
    RETURN_IF_ERROR(Allocate(value.text().size()));
    return value.text();
  }
  Text out;
  RETURN_IF_ERROR(AppendString(value, out));
  return out;
}

absl::Status Runtime::AppendRepr(const Value& value, Text& out) {
  RETURN_IF_ERROR(Step());
  RETURN_IF_ERROR(Allocate(8));
  switch (value.kind()) {
    case Value::Kind::kUndefined:
      out.Append("Undefined");
      return absl::OkStatus();
    case Value::Kind::kNone:
      out.Append("None");
      return absl::OkStatus();
    case Value::Kind::kBool:
      out.Append(value.boolean() ? "True" : "False");
      return absl::OkStatus();
    case Value::Kind::kInt: {
      char buffer[24];
      const auto [end, error] = std::to_chars(buffer, buffer + sizeof(buffer), value.integer());
      out.Append(std::string_view(buffer, static_cast<size_t>(end - buffer)));
      return absl::OkStatus();
    }
    case Value::Kind::kBigInt:
      RETURN_IF_ERROR(Allocate(value.big_digits().size()));
      out.Append(value.big_digits());
      return absl::OkStatus();
    case Value::Kind::kFloat:
      out.Append(FloatRepr(value.number()));
      return absl::OkStatus();
    case Value::Kind::kString: {
      RETURN_IF_ERROR(Allocate(value.text().size() * 2));
      const bool is_markup = value.text().is_markup();
      if (is_markup) out.Append("Markup(");
      out.Append(StringRepr(value.view()), value.text().has_untrusted());
      if (is_markup) out.Append(")");
      return absl::OkStatus();
    }
    case Value::Kind::kSequence: {
      const Sequence& sequence = value.sequence();
      if (sequence.type == Sequence::Type::kRange) {
        out.Append(sequence.range_step == 1
                       ? absl::StrFormat("range(%d, %d)", sequence.range_start, sequence.range_stop)
                       : absl::StrFormat("range(%d, %d, %d)", sequence.range_start,
                                         sequence.range_stop, sequence.range_step));
        return absl::OkStatus();
      }
      if (sequence.is_view()) out.Append(absl::StrFormat("%s(", value.TypeName()));
      out.Append(sequence.is_tuple() ? "(" : "[");
      for (size_t i = 0; i < sequence.items.size(); ++i) {
        if (i > 0) out.Append(", ");
        RETURN_IF_ERROR(AppendRepr(sequence.items[i], out));
      }
      if (sequence.is_tuple() && sequence.items.size() == 1) out.Append(",");
      out.Append(sequence.is_tuple() ? ")" : "]");
      if (sequence.is_view()) out.Append(")");
      return absl::OkStatus();
    }
    case Value::Kind::kDict: {
      out.Append("{");
      bool first = true;
      for (const auto& [key, item] : value.dict().items()) {
        if (!first) out.Append(", ");
        first = false;
        RETURN_IF_ERROR(AppendRepr(key, out));
        out.Append(": ");
        RETURN_IF_ERROR(AppendRepr(item, out));
      }
      out.Append("}");
      return absl::OkStatus();
    }
    case Value::Kind::kNative:
      out.Append(value.native().Repr());
      return absl::OkStatus();
  }
  return absl::OkStatus();
}

}  // namespace reticle::tokenizer::jinja
