#include "tokenizer/jinja/json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <memory>
#include <system_error>
#include <utility>
#include <vector>

#include "base/status.h"
#include "tokenizer/jinja/repr.h"
#include "tokenizer/jinja/unicode.h"

namespace reticle::tokenizer::jinja {
namespace {

class JsonParser {
 public:
  JsonParser(std::string_view text, const JsonOptions& options) : text_(text), options_(options) {}

  absl::StatusOr<Value> Run() {
    if (!IsValidUtf8(text_)) return InvalidArgumentError("JSON is not valid UTF-8");
    ASSIGN_OR_RETURN(Value value, ParseValue(0));
    SkipSpace();
    if (pos_ != text_.size()) return Error("unexpected text after the value");
    return value;
  }

 private:
  absl::Status Error(std::string_view what) const {
    return InvalidArgumentError("JSON, offset %d: %s", pos_, what);
  }

  void SkipSpace() {
    while (pos_ < text_.size() && (text_[pos_] == ' ' || text_[pos_] == '\n' ||
                                   text_[pos_] == '\r' || text_[pos_] == '\t')) {
      ++pos_;
    }
  }

  bool Skip(std::string_view what) {
    if (text_.substr(pos_, what.size()) != what) return false;
    pos_ += what.size();
    return true;
  }

  absl::StatusOr<Value> ParseValue(int depth) {
    SkipSpace();
    if (pos_ == text_.size()) return Error("unexpected end");
    switch (text_[pos_]) {
      case '{':
        return ParseObject(depth + 1);
      case '[':
        return ParseArray(depth + 1);
      case '"': {
        ASSIGN_OR_RETURN(std::string text, ParseString());
        return Value(Text(std::move(text), options_.untrusted));
      }
      default:
        if (Skip("true")) return Value(true);
        if (Skip("false")) return Value(false);
        if (Skip("null")) return Value(Value::None{});
        return ParseNumber();
    }
  }

  absl::Status CheckDepth(int depth) const {
    if (depth <= options_.max_depth) return absl::OkStatus();
    return Error(absl::StrFormat("nested deeper than the limit of %d", options_.max_depth));
  }

  absl::StatusOr<Value> ParseArray(int depth) {
    RETURN_IF_ERROR(CheckDepth(depth));
    ++pos_;
    Value::List items;
    SkipSpace();
    if (Skip("]")) return Value(std::move(items));
    for (;;) {
      ASSIGN_OR_RETURN(Value item, ParseValue(depth));
      items.push_back(std::move(item));
      SkipSpace();
      if (Skip("]")) return Value(std::move(items));
      if (!Skip(",")) return Error("expected ',' or ']'");
    }
  }

  absl::StatusOr<Value> ParseObject(int depth) {
    RETURN_IF_ERROR(CheckDepth(depth));
    ++pos_;
    Dict dict;
    SkipSpace();
    if (Skip("}")) return Value(std::move(dict));
    for (;;) {
      SkipSpace();
      if (pos_ == text_.size() || text_[pos_] != '"') return Error("expected a key");
      ASSIGN_OR_RETURN(std::string key, ParseString());
      SkipSpace();
      if (!Skip(":")) return Error("expected ':'");
      ASSIGN_OR_RETURN(Value value, ParseValue(depth));
      dict.Set(Value(Text(std::move(key), options_.untrusted)), std::move(value));
      SkipSpace();
      if (Skip("}")) return Value(std::move(dict));
      if (!Skip(",")) return Error("expected ',' or '}'");
    }
  }

  absl::StatusOr<uint32_t> ParseHex4() {
    const std::string_view digits = text_.substr(pos_, 4);
    uint32_t code = 0;
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
    if (digits.size() != 4 || parsed.ptr != digits.data() + 4) return Error("invalid \\u escape");
    pos_ += 4;
    return code;
  }

  absl::StatusOr<char32_t> ParseUnicodeEscape() {
    ASSIGN_OR_RETURN(const uint32_t first, ParseHex4());
    if (first < 0xD800 || first > 0xDFFF) return static_cast<char32_t>(first);
    if (first > 0xDBFF || !Skip("\\u")) return Error("lone surrogate in a string");
    ASSIGN_OR_RETURN(const uint32_t second, ParseHex4());
    if (second < 0xDC00 || second > 0xDFFF) return Error("lone surrogate in a string");
    return static_cast<char32_t>(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00));
  }

  absl::StatusOr<std::string> ParseString() {
    ++pos_;
    std::string out;
    for (;;) {
      const size_t begin = pos_;
      while (pos_ < text_.size() && text_[pos_] != '"' && text_[pos_] != '\\' &&
             static_cast<unsigned char>(text_[pos_]) >= 0x20) {
        ++pos_;
      }
      out.append(text_.substr(begin, pos_ - begin));
      if (pos_ == text_.size()) return Error("string is not closed");
      const char c = text_[pos_++];
      if (c == '"') return out;
      if (c != '\\') return Error("control character in a string");
      if (pos_ == text_.size()) return Error("string is not closed");
      const char escape = text_[pos_++];
      constexpr std::string_view kSimple = "\"\\/bfnrt";
      constexpr std::string_view kMeaning = "\"\\/\b\f\n\r\t";
      const size_t simple = kSimple.find(escape);
      if (simple != std::string_view::npos) {
        out.push_back(kMeaning[simple]);
      } else if (escape == 'u') {
        ASSIGN_OR_RETURN(const char32_t code, ParseUnicodeEscape());
        AppendUtf8(code, out);
      } else {
        return Error("invalid escape in a string");
      }
    }
  }

  size_t SkipDigits() {
    const size_t begin = pos_;
    while (pos_ < text_.size() && text_[pos_] >= '0' && text_[pos_] <= '9') ++pos_;
    return pos_ - begin;
  }

  absl::StatusOr<Value> ParseNumber() {
    constexpr size_t kMaxDigits = 4300;  // as Python
    const size_t begin = pos_;
    Skip("-");
    if (!Skip("0") && SkipDigits() == 0) {
      pos_ = begin;
      return Error("expected a value");
    }
    bool is_integer = true;
    if (Skip(".")) {
      is_integer = false;
      if (SkipDigits() == 0) return Error("expected a digit");
    }
    if (Skip("e") || Skip("E")) {
      is_integer = false;
      if (!Skip("+")) Skip("-");
      if (SkipDigits() == 0) return Error("expected a digit");
    }
    const std::string_view digits = text_.substr(begin, pos_ - begin);
    const char* const end = digits.data() + digits.size();
    if (is_integer) {
      int64_t value = 0;
      if (std::from_chars(digits.data(), end, value).ec == std::errc()) return Value(value);
      if (digits.size() > kMaxDigits) return Error("integer has more than 4300 digits");
      return Value(Value::BigInt{std::make_shared<const std::string>(digits)});
    }
    double value = 0;
    if (std::from_chars(digits.data(), end, value).ec == std::errc::result_out_of_range) {
      const bool tiny = digits.find("e-") != std::string_view::npos ||
                        digits.find("E-") != std::string_view::npos;
      value = tiny ? 0.0 : std::numeric_limits<double>::infinity();
      if (digits[0] == '-') value = -value;
    }
    return Value(value);
  }

  const std::string_view text_;
  const JsonOptions& options_;
  size_t pos_ = 0;
};

std::string JsonString(std::string_view text, bool ensure_ascii) {
  std::string out = "\"";
  for (size_t pos = 0; pos < text.size();) {
    const char c = text[pos];
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80 && ensure_ascii) {
      const std::string_view character = CharacterAt(text, pos);
      const char32_t code = DecodeCharacter(character);
      if (code >= 0x10000) {
        out += absl::StrFormat("\\u%04x\\u%04x", 0xD800 + ((code - 0x10000) >> 10),
                               0xDC00 + ((code - 0x10000) & 0x3FF));
      } else {
        out += absl::StrFormat("\\u%04x", static_cast<uint32_t>(code));
      }
      pos += character.size();
      continue;
    }
    ++pos;
    constexpr std::string_view kEscaped = "\"\\\n\r\t\f\b";
    constexpr std::string_view kLetters = "\"\\nrtfb";
    const size_t escaped = kEscaped.find(c);
    if (escaped != std::string_view::npos) {
      out.push_back('\\');
      out.push_back(kLetters[escaped]);
    } else if (byte < 0x20 || (byte == 0x7F && ensure_ascii)) {
      out += absl::StrFormat("\\u%04x", static_cast<uint32_t>(byte));
    } else {
      out.push_back(c);
    }
  }
  out.push_back('"');
  return out;
}

class JsonWriter {
 public:
  JsonWriter(Runtime& runtime, const JsonFormat& format, Text& out)
      : runtime_(runtime), format_(format), out_(out) {}

  absl::Status Write(const Value& value, size_t level) {
    RETURN_IF_ERROR(runtime_.Step());
    RETURN_IF_ERROR(runtime_.Allocate(8));
    switch (value.kind()) {
      case Value::Kind::kNone:
        out_.Append("null");
        return absl::OkStatus();
      case Value::Kind::kBool:
        out_.Append(value.boolean() ? "true" : "false");
        return absl::OkStatus();
      case Value::Kind::kInt:
      case Value::Kind::kBigInt:
        return runtime_.AppendString(value, out_);
      case Value::Kind::kFloat:
        out_.Append(FloatText(value.number()));
        return absl::OkStatus();
      case Value::Kind::kString:
        return WriteString(value.text());
      case Value::Kind::kSequence:
        if (value.sequence().is_view() || value.sequence().type == Sequence::Type::kRange) break;
        return WriteArray(value.items(), level);
      case Value::Kind::kDict:
        return WriteObject(value.dict(), level);
      default:
        break;
    }
    return InvalidArgumentError("Object of type %s is not JSON serializable", value.TypeName());
  }

 private:
  static std::string FloatText(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
    return FloatRepr(value);
  }

  absl::Status WriteString(const Text& text) {
    RETURN_IF_ERROR(runtime_.Allocate(text.size() * 2));
    out_.Append(JsonString(text.view(), format_.ensure_ascii), text.has_untrusted());
    return absl::OkStatus();
  }

  absl::Status NewLine(size_t level) {
    if (!format_.is_indented) return absl::OkStatus();
    RETURN_IF_ERROR(runtime_.Allocate(1 + level * format_.indent.size()));
    out_.Append("\n");
    for (size_t i = 0; i < level; ++i) out_.Append(format_.indent);
    return absl::OkStatus();
  }

  absl::Status Separate(bool first, size_t level) {
    if (!first) {
      RETURN_IF_ERROR(runtime_.Allocate(format_.item_separator.size()));
      out_.Append(format_.item_separator);
    }
    return NewLine(level);
  }

  absl::Status WriteArray(const std::vector<Value>& items, size_t level) {
    if (items.empty()) {
      out_.Append("[]");
      return absl::OkStatus();
    }
    out_.Append("[");
    for (size_t i = 0; i < items.size(); ++i) {
      RETURN_IF_ERROR(Separate(i == 0, level + 1));
      RETURN_IF_ERROR(Write(items[i], level + 1));
    }
    RETURN_IF_ERROR(NewLine(level));
    out_.Append("]");
    return absl::OkStatus();
  }

  absl::Status WriteKey(const Value& key) {
    if (key.is_string()) return WriteString(key.text());
    Text text;
    if (key.kind() == Value::Kind::kFloat) {
      text.Append(FloatText(key.number()));
    } else if (key.is_none()) {
      text.Append("null");
    } else if (key.is_bool()) {
      text.Append(key.boolean() ? "true" : "false");
    } else {
      RETURN_IF_ERROR(runtime_.AppendString(key, text));
    }
    return WriteString(text);
  }

  absl::Status WriteObject(const Dict& dict, size_t level) {
    if (dict.size() == 0) {
      out_.Append("{}");
      return absl::OkStatus();
    }
    std::vector<const Dict::Item*> items;
    items.reserve(dict.size());
    for (const Dict::Item& item : dict.items()) items.push_back(&item);
    if (format_.sort_keys) {
      absl::Status status;
      std::stable_sort(items.begin(), items.end(), [&](const auto* a, const auto* b) {
        if (!status.ok()) return false;
        const auto less = runtime_.Less(a->first, b->first);
        if (!less.ok()) status = less.status();
        return less.ok() && *less;
      });
      RETURN_IF_ERROR(status);
    }
    out_.Append("{");
    for (size_t i = 0; i < items.size(); ++i) {
      RETURN_IF_ERROR(Separate(i == 0, level + 1));
      RETURN_IF_ERROR(WriteKey(items[i]->first));
      RETURN_IF_ERROR(runtime_.Allocate(format_.key_separator.size()));
      out_.Append(format_.key_separator);
      RETURN_IF_ERROR(Write(items[i]->second, level + 1));
    }
    RETURN_IF_ERROR(NewLine(level));
    out_.Append("}");
    return absl::OkStatus();
  }

  Runtime& runtime_;
  const JsonFormat& format_;
  Text& out_;
};

}  // namespace

absl::StatusOr<Value> ParseJson(std::string_view text, const JsonOptions& options) {
  return JsonParser(text, options).Run();
}

absl::Status WriteJson(Runtime& runtime, const Value& value, const JsonFormat& format, Text& out) {
  return JsonWriter(runtime, format, out).Write(value, 0);
}

}  // namespace reticle::tokenizer::jinja
