// Python's two ways to format: "%s" % x and "{}".format(x).

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/status.h"
#include "tokenizer/jinja/operators.h"
#include "tokenizer/jinja/strings.h"
#include "tokenizer/jinja/unicode.h"

namespace reticle::tokenizer::jinja {
namespace {

constexpr size_t kMaxPrecision = 1000;
constexpr size_t kNpos = std::string_view::npos;

// How one value is shown: what both notations have in common.
struct Spec {
  Text fill = Text(std::string(" "));
  char align = '\0';  // '<', '>', '^', '=' or none
  char sign = '-';    // '-', '+' or ' '
  bool alternate = false;
  bool zero = false;
  char group = '\0';  // ',' or '_'
  int64_t width = 0;
  std::optional<size_t> precision;
  char type = '\0';
};

absl::StatusOr<size_t> ReadNumber(std::string_view text, size_t& pos) {
  size_t value = 0;
  for (; pos < text.size() && std::isdigit(static_cast<unsigned char>(text[pos])) != 0; ++pos) {
    value = value * 10 + static_cast<size_t>(text[pos] - '0');
    if (value > 1'000'000) return InvalidArgumentError("number in a format is above 1000000");
  }
  return value;
}

std::string Grouped(const std::string& digits, char separator, size_t size) {
  if (separator == '\0') return digits;
  size_t whole = 0;
  while (whole < digits.size() && std::isxdigit(static_cast<unsigned char>(digits[whole])) != 0) {
    ++whole;
  }
  std::string out;
  for (size_t i = 0; i < whole; ++i) {
    if (i > 0 && (whole - i) % size == 0) out.push_back(separator);
    out.push_back(digits[i]);
  }
  return out + digits.substr(whole);
}

std::string InBase(uint64_t value, unsigned base, bool upper) {
  const char* const digits = upper ? "0123456789ABCDEF" : "0123456789abcdef";
  std::string out;
  do {
    out.push_back(digits[value % base]);
    value /= base;
  } while (value != 0);
  std::reverse(out.begin(), out.end());
  return out;
}

// Sign, prefix and digits of a number, padded.
absl::StatusOr<Text> Numeric(Runtime& runtime, const Spec& spec, bool negative,
                             const std::string& prefix, std::string digits, size_t group_size) {
  digits = Grouped(digits, spec.group, group_size);
  std::string head = negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
  head += prefix;
  const char align = spec.align != '\0' ? spec.align : spec.zero ? '=' : '>';
  const Text fill = spec.zero && spec.align == '\0' ? Text(std::string("0")) : spec.fill;
  if (align == '=') {
    ASSIGN_OR_RETURN(const Text body,
                     Pad(runtime, Text(digits), spec.width - static_cast<int64_t>(head.size()),
                         Side::kRight, fill));
    Text out(head);
    out.Append(body);
    return out;
  }
  const Side side = align == '<' ? Side::kLeft : align == '^' ? Side::kBoth : Side::kRight;
  return Pad(runtime, Text(head + digits), spec.width, side, fill);
}

std::string FloatDigits(double magnitude, const Spec& spec) {
  const bool upper = std::isupper(static_cast<unsigned char>(spec.type)) != 0;
  if (!std::isfinite(magnitude)) {
    const std::string name = std::isnan(magnitude) ? "nan" : "inf";
    return upper ? ToUpper(name) : name;
  }
  const int precision = static_cast<int>(spec.precision.value_or(6));
  switch (spec.type) {
    case 'f':
    case 'F':
      return absl::StrFormat("%.*f", precision, magnitude);
    case 'e':
      return absl::StrFormat("%.*e", precision, magnitude);
    case 'E':
      return absl::StrFormat("%.*E", precision, magnitude);
    case '%':
      return absl::StrFormat("%.*f", precision, magnitude * 100) + "%";
    case 'G':
      return absl::StrFormat("%.*G", precision, magnitude);
    default:
      return absl::StrFormat("%.*g", precision, magnitude);
  }
}

absl::StatusOr<Text> FormatNumber(Runtime& runtime, const Value& value, const Spec& spec) {
  const std::string_view integer_types = "bcdoxXni";
  const bool as_integer =
      value.is_integral() &&
      (spec.type == '\0' || integer_types.find(spec.type) != std::string_view::npos);
  if (as_integer) {
    const int64_t integer = value.integer();
    const uint64_t magnitude =
        integer < 0 ? uint64_t{0} - static_cast<uint64_t>(integer) : static_cast<uint64_t>(integer);
    if (spec.type == 'c') {
      std::string character;
      if (integer < 0 || integer > 0x10FFFF) {
        return InvalidArgumentError("%%c arg not in range(0x110000)");
      }
      AppendUtf8(static_cast<char32_t>(integer), character);
      return Pad(runtime, Text(character), spec.width,
                 spec.align == '<' ? Side::kLeft : Side::kRight, spec.fill);
    }
    const char type = spec.type;
    const unsigned base = type == 'b' ? 2 : type == 'o' ? 8 : type == 'x' || type == 'X' ? 16 : 10;
    const std::string prefix =
        spec.alternate && base != 10 ? std::string("0") + type : std::string();
    std::string digits = InBase(magnitude, base, type == 'X');
    if (spec.precision.has_value() && digits.size() < *spec.precision) {
      digits.insert(0, *spec.precision - digits.size(), '0');
    }
    return Numeric(runtime, spec, integer < 0, prefix, std::move(digits), base == 10 ? 3 : 4);
  }
  if (std::string_view("eEfFgG%").find(spec.type) == std::string_view::npos && spec.type != '\0') {
    return InvalidArgumentError("Unknown format code '%c' for object of type '%s'", spec.type,
                                value.TypeName());
  }
  const double number = value.number();
  if (spec.type == '\0' && !spec.precision.has_value()) {
    ASSIGN_OR_RETURN(const Text shown, runtime.ToText(Value(std::fabs(number))));
    return Numeric(runtime, spec, std::signbit(number), "", shown.str(), 3);
  }
  return Numeric(runtime, spec, std::signbit(number) && !std::isnan(number), "",
                 FloatDigits(std::fabs(number), spec), 3);
}

absl::StatusOr<Text> FormatString(Runtime& runtime, Text text, const Spec& spec) {
  if (spec.precision.has_value()) {
    const size_t end = SkipCharacters(text.view(), 0, *spec.precision);
    text = text.Substr(0, end);
  }
  const Side side = spec.align == '>'   ? Side::kRight
                    : spec.align == '^' ? Side::kBoth
                                        : Side::kLeft;
  return Pad(runtime, text, spec.width, side, spec.fill);
}

// The arguments of a "%" format, in turn.
class PercentArguments {
 public:
  explicit PercentArguments(const Value& argument) : argument_(argument) {
    is_tuple_ = argument.is_sequence() && argument.sequence().is_tuple();
  }

  absl::StatusOr<Value> Next() {
    const size_t count = is_tuple_ ? argument_.items().size() : 1;
    if (used_ == count) return InvalidArgumentError("not enough arguments for format string");
    ++used_;
    return is_tuple_ ? argument_.items()[used_ - 1] : argument_;
  }

  absl::StatusOr<Value> Named(const std::string& name) {
    if (!argument_.is_dict()) return InvalidArgumentError("format requires a mapping");
    named_ = true;
    const Value* const found = argument_.dict().Find(std::string_view(name));
    if (found == nullptr) return InvalidArgumentError("format: no value for key '%s'", name);
    return *found;
  }

  absl::Status CheckAllUsed() const {
    const bool left =
        is_tuple_ ? used_ < argument_.items().size()
                  : used_ == 0 && !argument_.is_dict() && !named_ && !argument_.is_sequence();
    if (!left) return absl::OkStatus();
    return InvalidArgumentError("not all arguments converted during string formatting");
  }

 private:
  const Value& argument_;
  bool is_tuple_ = false;
  bool named_ = false;
  size_t used_ = 0;
};

absl::StatusOr<Text> FormatPercent(Runtime& runtime, const Value& value, const Spec& spec) {
  switch (spec.type) {
    case 's': {
      ASSIGN_OR_RETURN(Text text, runtime.ToText(value));
      return FormatString(runtime, std::move(text), spec);
    }
    case 'r':
    case 'a': {
      Text text;
      RETURN_IF_ERROR(runtime.AppendRepr(value, text));
      return FormatString(runtime, std::move(text), spec);
    }
    case 'c':
      if (value.is_string() && CountCharacters(value.view()) == 1) {
        return FormatString(runtime, value.text(), spec);
      }
      break;
    default:
      break;
  }
  if (value.is_undefined()) return UndefinedError(value);
  if (!value.is_number()) {
    return InvalidArgumentError("%%%c format: a number is required, not %s", spec.type,
                                value.TypeName());
  }
  if (value.kind() == Value::Kind::kFloat && std::string_view("diu").find(spec.type) != kNpos) {
    const double truncated = std::trunc(value.number());
    if (!(std::fabs(truncated) < 9223372036854775808.0)) {
      return OutOfRangeError("cannot convert %g to a 64-bit integer", value.number());
    }
    return FormatNumber(runtime, Value(static_cast<int64_t>(truncated)), spec);
  }
  return FormatNumber(runtime, value, spec);
}

// [[fill]align][sign][#][0][width][,][.precision][type]
absl::StatusOr<Spec> ParseSpec(const Text& source) {
  const std::string_view text = source.view();
  Spec spec;
  size_t pos = 0;
  const auto is_align = [&](size_t at) {
    return at < text.size() && std::string_view("<>^=").find(text[at]) != kNpos;
  };
  const size_t first = text.empty() ? 0 : CharacterAt(text, 0).size();
  if (first > 0 && is_align(first)) {
    spec.fill = source.Substr(0, first);
    spec.align = text[first];
    pos = first + 1;
  } else if (is_align(0)) {
    spec.align = text[0];
    pos = 1;
  }
  const auto take = [&](std::string_view any) {
    if (pos < text.size() && any.find(text[pos]) != kNpos) return text[pos++];
    return '\0';
  };
  if (const char sign = take("+- "); sign != '\0') spec.sign = sign;
  spec.alternate = take("#") != '\0';
  spec.zero = take("0") != '\0';
  ASSIGN_OR_RETURN(const size_t width, ReadNumber(text, pos));
  spec.width = static_cast<int64_t>(width);
  spec.group = take(",_");
  if (take(".") != '\0') {
    const size_t before = pos;
    ASSIGN_OR_RETURN(const size_t precision, ReadNumber(text, pos));
    if (pos == before) return InvalidArgumentError("Format specifier missing precision");
    spec.precision = std::min(precision, kMaxPrecision);
  }
  spec.type = take("bcdeEfFgGnosxX%");
  if (pos != text.size()) return InvalidArgumentError("Invalid format specifier '%s'", text);
  return spec;
}

class BraceFormatter {
 public:
  BraceFormatter(Runtime& runtime, const CallArgs& args) : runtime_(runtime), args_(args) {}

  absl::StatusOr<Text> Run(const Text& format, int depth) {
    if (depth > 2) return InvalidArgumentError("Max string recursion exceeded");
    const std::string_view text = format.view();
    RETURN_IF_ERROR(runtime_.Allocate(text.size()));
    Text out;
    for (size_t pos = 0; pos < text.size();) {
      const size_t brace = std::min(text.find_first_of("{}", pos), text.size());
      out.Append(format, pos, brace - pos);
      if (brace == text.size()) break;
      if (brace + 1 < text.size() && text[brace + 1] == text[brace]) {
        out.Append(format, brace, 1);
        pos = brace + 2;
        continue;
      }
      if (text[brace] == '}') {
        return InvalidArgumentError("Single '}' encountered in format string");
      }
      int open = 1;
      size_t end = brace + 1;
      for (; end < text.size() && open > 0; ++end) {
        open += text[end] == '{' ? 1 : text[end] == '}' ? -1 : 0;
      }
      if (open > 0) return InvalidArgumentError("expected '}' before end of string");
      RETURN_IF_ERROR(Field(format.Substr(brace + 1, end - brace - 2), depth, out));
      pos = end;
    }
    return out;
  }

 private:
  // name!conversion:spec
  absl::Status Field(const Text& field, int depth, Text& out) {
    const std::string_view text = field.view();
    size_t name_end = 0;
    bool in_brackets = false;
    while (name_end < text.size() &&
           (in_brackets || (text[name_end] != ':' && text[name_end] != '!'))) {
      if (text[name_end] == '[') in_brackets = true;
      if (text[name_end] == ']') in_brackets = false;
      ++name_end;
    }
    ASSIGN_OR_RETURN(Value value, Lookup(text.substr(0, name_end)));
    size_t pos = name_end;
    if (pos < text.size() && text[pos] == '!') {
      const char conversion = pos + 1 < text.size() ? text[pos + 1] : '\0';
      if (conversion != 's' && conversion != 'r' && conversion != 'a') {
        return InvalidArgumentError("Unknown conversion specifier in a format");
      }
      Text shown;
      RETURN_IF_ERROR(conversion == 's' ? runtime_.AppendString(value, shown)
                                        : runtime_.AppendRepr(value, shown));
      value = Value(std::move(shown));
      pos += 2;
      if (pos < text.size() && text[pos] != ':') {
        return InvalidArgumentError("expected ':' after conversion specifier");
      }
    }
    Text spec_text;
    if (pos < text.size()) {
      ASSIGN_OR_RETURN(spec_text, Run(field.Substr(pos + 1, text.size() - pos - 1), depth + 1));
    }
    ASSIGN_OR_RETURN(const Text shown, Show(value, spec_text));
    RETURN_IF_ERROR(runtime_.Allocate(shown.size()));
    out.Append(shown);
    return absl::OkStatus();
  }

  absl::StatusOr<Text> Show(const Value& value, const Text& spec_text) {
    if (spec_text.empty()) return runtime_.ToText(value);
    ASSIGN_OR_RETURN(const Spec spec, ParseSpec(spec_text));
    if (value.is_number() && !(value.is_bool() && spec.type == '\0')) {
      return FormatNumber(runtime_, value, spec);
    }
    if (!value.is_string() && !value.is_bool()) {
      return InvalidArgumentError("unsupported format string passed to %s.__format__",
                                  value.TypeName());
    }
    if (spec.type != '\0' && spec.type != 's') {
      return InvalidArgumentError("Unknown format code '%c' for object of type '%s'", spec.type,
                                  value.TypeName());
    }
    ASSIGN_OR_RETURN(Text text, runtime_.ToText(value));
    return FormatString(runtime_, std::move(text), spec);
  }

  absl::StatusOr<Value> Lookup(std::string_view name) {
    const size_t first_end = std::min(name.find_first_of(".["), name.size());
    const std::string_view first = name.substr(0, first_end);
    Value value;
    const bool is_number = first.find_first_not_of("0123456789") == kNpos;
    if (is_number) {
      size_t index = next_;
      if (first.empty()) {
        if (explicit_) return InvalidArgumentError("cannot mix manual and automatic numbering");
        automatic_ = true;
        ++next_;
      } else {
        if (automatic_) return InvalidArgumentError("cannot mix manual and automatic numbering");
        explicit_ = true;
        size_t pos = 0;
        ASSIGN_OR_RETURN(index, ReadNumber(first, pos));
      }
      if (index >= args_.positional.size()) {
        return InvalidArgumentError("Replacement index %d out of range", index);
      }
      value = args_.positional[index];
    } else {
      const auto found = std::find_if(args_.named.begin(), args_.named.end(),
                                      [&](const auto& named) { return named.first == first; });
      if (found == args_.named.end()) {
        return InvalidArgumentError("format: no value for key '%s'", first);
      }
      value = found->second;
    }
    for (size_t pos = first_end; pos < name.size();) {
      if (name[pos] == '.') {
        const size_t end = std::min(name.find_first_of(".[", pos + 1), name.size());
        ASSIGN_OR_RETURN(
            value,
            runtime_.GetAttribute(value, Value(std::string(name.substr(pos + 1, end - pos - 1)))));
        pos = end;
        continue;
      }
      const size_t end = name[pos] == '[' ? name.find(']', pos) : kNpos;
      if (end == kNpos) return InvalidArgumentError("malformed field name in a format");
      const std::string_view key = name.substr(pos + 1, end - pos - 1);
      const auto index =
          key.find_first_not_of("0123456789") == kNpos ? ParseInteger(key, 10) : std::nullopt;
      ASSIGN_OR_RETURN(value, runtime_.GetItem(value, index.has_value() ? Value(*index)
                                                                        : Value(std::string(key))));
      pos = end + 1;
    }
    return value;
  }

  Runtime& runtime_;
  const CallArgs& args_;
  size_t next_ = 0;
  bool automatic_ = false;
  bool explicit_ = false;
};

}  // namespace

absl::StatusOr<Value> PercentFormat(Runtime& runtime, const Text& format, const Value& argument) {
  const std::string_view text = format.view();
  PercentArguments arguments(argument);
  RETURN_IF_ERROR(runtime.Allocate(text.size()));
  Text out;
  for (size_t pos = 0; pos < text.size();) {
    const size_t percent = std::min(text.find('%', pos), text.size());
    out.Append(format, pos, percent - pos);
    if (percent == text.size()) break;
    pos = percent + 1;
    RETURN_IF_ERROR(runtime.Step());
    std::optional<Value> named;
    if (pos < text.size() && text[pos] == '(') {
      const size_t close = text.find(')', pos);
      if (close == kNpos) return InvalidArgumentError("incomplete format key");
      ASSIGN_OR_RETURN(named, arguments.Named(std::string(text.substr(pos + 1, close - pos - 1))));
      pos = close + 1;
    }
    Spec spec;
    spec.align = '>';
    for (; pos < text.size(); ++pos) {
      if (text[pos] == '-') {
        spec.align = '<';
      } else if (text[pos] == '0') {
        spec.zero = true;
      } else if (text[pos] == '+' || (text[pos] == ' ' && spec.sign != '+')) {
        spec.sign = text[pos];
      } else if (text[pos] == '#') {
        spec.alternate = true;
      } else if (text[pos] != ' ') {
        break;
      }
    }
    ASSIGN_OR_RETURN(const size_t width, ReadNumber(text, pos));
    spec.width = static_cast<int64_t>(width);
    if (pos < text.size() && text[pos] == '.') {
      ++pos;
      ASSIGN_OR_RETURN(const size_t precision, ReadNumber(text, pos));
      spec.precision = std::min(precision, kMaxPrecision);
    }
    if (pos == text.size()) return InvalidArgumentError("incomplete format");
    spec.type = text[pos++];
    if (spec.type == '%') {
      out.Append("%");
      continue;
    }
    if (std::string_view("diuoxXeEfFgGcrsa").find(spec.type) == kNpos) {
      return InvalidArgumentError("unsupported format character '%c'", spec.type);
    }
    const bool is_text = std::string_view("srac").find(spec.type) != kNpos;
    if (spec.zero && spec.align == '>' && !is_text) {
      spec.align = '\0';
    }
    if (!named.has_value()) {
      ASSIGN_OR_RETURN(named, arguments.Next());
    }
    ASSIGN_OR_RETURN(const Text shown, FormatPercent(runtime, *named, spec));
    RETURN_IF_ERROR(runtime.Allocate(shown.size()));
    out.Append(shown);
  }
  RETURN_IF_ERROR(arguments.CheckAllUsed());
  return Value(std::move(out));
}

absl::StatusOr<Value> BraceFormat(Runtime& runtime, const Text& format, const CallArgs& args) {
  ASSIGN_OR_RETURN(Text out, BraceFormatter(runtime, args).Run(format, 0));
  return Value(std::move(out));
}

}  // namespace reticle::tokenizer::jinja
