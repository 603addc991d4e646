#include "tokenizer/jinja/lexer.h"

#include <charconv>
#include <cstring>
#include <system_error>
#include <utility>

#include "base/status.h"
#include "tokenizer/jinja/unicode.h"

namespace reticle::tokenizer::jinja {
namespace {

constexpr size_t kNpos = std::string_view::npos;

bool IsDigitByte(char c) { return c >= '0' && c <= '9'; }
bool IsNameByte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || IsDigitByte(c) ||
         static_cast<unsigned char>(c) >= 0x80;
}

std::string NormalizeNewlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out.push_back(source[i]);
    } else {
      out.push_back('\n');
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

// How many bytes of white space begin at `pos`.
size_t SpacesAt(std::string_view text, size_t pos) {
  size_t end = pos;
  while (end < text.size()) {
    const std::string_view character = CharacterAt(text, end);
    if (!IsSpace(DecodeCharacter(character))) break;
    end += character.size();
  }
  return end - pos;
}

std::string_view StripRight(std::string_view text) {
  while (!text.empty()) {
    const size_t last = SkipCharactersBack(text, text.size(), 1);
    if (!IsSpace(DecodeCharacter(text.substr(last)))) break;
    text = text.substr(0, last);
  }
  return text;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)), text_(source_) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (pos_ < text_.size()) RETURN_IF_ERROR(LexRoot());
    Emit(TokenType::kEnd, pos_);
    return std::move(tokens_);
  }

 private:
  Position PositionOf(size_t pos) {
    // Tokens come in order, so that lines are counted once; errors may look back.
    if (pos < counted_) {
      counted_ = line_start_ = 0;
      line_ = 1;
    }
    for (; counted_ < pos; ++counted_) {
      if (text_[counted_] == '\n') {
        ++line_;
        line_start_ = counted_ + 1;
      }
    }
    return {line_, static_cast<uint32_t>(pos - line_start_ + 1)};
  }

  Token& Emit(TokenType type, size_t pos, std::string text = std::string()) {
    Token token;
    token.type = type;
    token.position = PositionOf(pos);
    token.text = std::move(text);
    tokens_.push_back(std::move(token));
    return tokens_.back();
  }

  absl::Status Error(size_t pos, std::string_view what) {
    return SyntaxError(PositionOf(pos), what);
  }

  bool At(size_t pos, std::string_view what) const {
    return text_.substr(pos, what.size()) == what;
  }

  // After a token that ends at `pos`.
  void Advance(size_t pos) {
    pos_ = pos;
    line_starting_ = pos > 0 && text_[pos - 1] == '\n';
  }

  // Where a tag ends whose delimiter (two bytes) begins at `pos`, with what the sign and
  // trim_blocks strip after it.
  size_t EndOfTag(size_t pos, char sign, bool trims) const {
    const size_t end = pos + 2;
    if (sign == '-') return end + SpacesAt(text_, end);
    return trims && sign != '+' && At(end, "\n") ? end + 1 : end;
  }

  // Data before a tag with the given sign.
  void EmitData(size_t begin, size_t end, char sign, bool lstrip) {
    std::string_view data = text_.substr(begin, end - begin);
    if (sign == '-') {
      data = StripRight(data);
    } else if (sign != '+' && lstrip) {
      const size_t newline = data.rfind('\n');
      const size_t line = newline == kNpos ? 0 : newline + 1;
      if ((line > 0 || line_starting_) && line + SpacesAt(data, line) == data.size()) {
        data = data.substr(0, line);
      }
    }
    if (!data.empty()) Emit(TokenType::kData, begin, std::string(data));
  }

  static char SignAt(std::string_view text, size_t pos) {
    return pos < text.size() && (text[pos] == '-' || text[pos] == '+') ? text[pos] : '\0';
  }

  // The end of `{% raw %}` at `pos`, or kNpos.
  size_t MatchRawBegin(size_t pos) const {
    pos += 2;
    if (SignAt(text_, pos) != '\0') ++pos;
    pos += SpacesAt(text_, pos);
    if (!At(pos, "raw")) return kNpos;
    pos += 3;
    pos += SpacesAt(text_, pos);
    if (At(pos, "-%}")) return pos + 3 + SpacesAt(text_, pos + 3);
    return At(pos, "%}") ? pos + 2 : kNpos;
  }

  absl::Status LexRoot() {
    size_t tag = pos_;
    for (;; ++tag) {
      tag = text_.find('{', tag);
      if (tag == kNpos) {
        Emit(TokenType::kData, pos_, std::string(text_.substr(pos_)));
        pos_ = text_.size();
        return absl::OkStatus();
      }
      if (At(tag, "{%") || At(tag, "{{") || At(tag, "{#")) break;
    }
    const char kind = text_[tag + 1];
    const char sign = SignAt(text_, tag + 2);
    EmitData(pos_, tag, sign, kind != '{');
    const size_t inside = tag + 2 + (sign == '\0' ? 0 : 1);
    if (kind == '#') return LexComment(tag, inside);
    if (kind == '%') {
      const size_t raw = MatchRawBegin(tag);
      if (raw != kNpos) return LexRaw(tag, raw);
    }
    Emit(kind == '{' ? TokenType::kVariableBegin : TokenType::kBlockBegin, tag);
    Advance(inside);
    return LexInside(kind == '{' ? "}}" : "%}", tag);
  }

  absl::Status LexComment(size_t tag, size_t inside) {
    const size_t close = text_.find("#}", inside);
    if (close == kNpos) return Error(tag, "comment is not closed");
    Advance(EndOfTag(close, close > inside ? SignAt(text_, close - 1) : '\0', true));
    return absl::OkStatus();
  }

  absl::Status LexRaw(size_t tag, size_t begin) {
    Advance(begin);
    for (size_t at = text_.find("{%", begin); at != kNpos; at = text_.find("{%", at + 1)) {
      size_t pos = at + 2;
      const char sign = SignAt(text_, pos);
      if (sign != '\0') ++pos;
      pos += SpacesAt(text_, pos);
      if (!At(pos, "endraw")) continue;
      pos += 6;
      pos += SpacesAt(text_, pos);
      const char end_sign = SignAt(text_, pos);
      if (end_sign != '\0') ++pos;
      if (!At(pos, "%}")) continue;
      EmitData(begin, at, sign, true);
      Advance(EndOfTag(pos, end_sign, true));
      return absl::OkStatus();
    }
    return Error(tag, "raw block is not closed");
  }

  absl::Status LexInside(std::string_view close, size_t tag) {
    std::string open;  // the closing bracket that each open one waits for
    const bool is_block = close[0] == '%';
    while (pos_ < text_.size()) {
      if (open.empty()) {
        const bool has_sign = text_[pos_] == '-' || (is_block && text_[pos_] == '+');
        if (At(pos_ + (has_sign ? 1 : 0), close)) {
          Emit(is_block ? TokenType::kBlockEnd : TokenType::kVariableEnd, pos_);
          const char sign = has_sign ? text_[pos_] : '\0';
          Advance(EndOfTag(pos_ + (has_sign ? 1 : 0), sign, is_block));
          return absl::OkStatus();
        }
      }
      const size_t spaces = SpacesAt(text_, pos_);
      if (spaces > 0) {
        Advance(pos_ + spaces);
        continue;
      }
      const char c = text_[pos_];
      if (IsDigitByte(c)) {
        RETURN_IF_ERROR(LexNumber());
      } else if (IsNameByte(c)) {
        size_t end = pos_;
        while (end < text_.size() && IsNameByte(text_[end])) ++end;
        Emit(TokenType::kName, pos_, std::string(text_.substr(pos_, end - pos_)));
        Advance(end);
      } else if (c == '\'' || c == '"') {
        RETURN_IF_ERROR(LexString());
      } else {
        RETURN_IF_ERROR(LexOperator(open));
      }
    }
    return Error(tag, is_block ? "tag is not closed" : "print statement is not closed");
  }

  // The end of digits (of the given base) with single underscores between them, from `pos`, which
  // holds a digit.
  size_t EndOfDigits(size_t pos, int base) const {
    const auto is_digit = [base](char c) {
      if (base == 16 && ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'))) return true;
      return c >= '0' && c < '0' + (base < 10 ? base : 10);
    };
    size_t end = pos;
    while (end < text_.size()) {
      if (is_digit(text_[end])) {
        ++end;
      } else if (text_[end] == '_' && end + 1 < text_.size() && is_digit(text_[end + 1])) {
        end += 2;
      } else {
        break;
      }
    }
    return end;
  }

  bool DigitAt(size_t pos) const { return pos < text_.size() && IsDigitByte(text_[pos]); }

  static std::string WithoutUnderscores(std::string_view digits) {
    std::string out;
    for (const char c : digits) {
      if (c != '_') out.push_back(c);
    }
    return out;
  }

  absl::Status LexNumber() {
    size_t end = EndOfDigits(pos_, 10);
    bool is_float = false;
    const bool after_dot = pos_ > 0 && text_[pos_ - 1] == '.';
    if (!after_dot) {
      if (At(end, ".") && DigitAt(end + 1)) {
        is_float = true;
        end = EndOfDigits(end + 1, 10);
      }
      if (At(end, "e") || At(end, "E")) {
        size_t exponent = end + 1;
        if (At(exponent, "+") || At(exponent, "-")) ++exponent;
        if (DigitAt(exponent)) {
          is_float = true;
          end = EndOfDigits(exponent, 10);
        }
      }
    }
    if (is_float) {
      const std::string digits = WithoutUnderscores(text_.substr(pos_, end - pos_));
      double value = 0;
      const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), value);
      if (parsed.ec != std::errc()) return Error(pos_, "number is out of range");
      Emit(TokenType::kFloat, pos_).number = value;
      Advance(end);
      return absl::OkStatus();
    }
    int base = 10;
    size_t begin = pos_;
    if (text_[pos_] == '0' && pos_ + 2 < text_.size()) {
      const char mark = static_cast<char>(text_[pos_ + 1] | 0x20);
      const int candidate = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 10;
      const size_t digit = pos_ + 2 + (text_[pos_ + 2] == '_' ? 1 : 0);
      if (candidate != 10 && digit < text_.size() && EndOfDigits(digit, candidate) > digit) {
        base = candidate;
        begin = digit;
      }
    }
    if (base != 10) {
      end = EndOfDigits(begin, base);
    } else if (text_[pos_] == '0') {
      end = pos_ + 1;
      while (At(end, "0") || At(end, "_0")) end += text_[end] == '_' ? 2 : 1;
    }
    const std::string digits = WithoutUnderscores(text_.substr(begin, end - begin));
    int64_t value = 0;
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
    if (parsed.ec != std::errc()) return Error(pos_, "integer does not fit in 64 bits");
    Emit(TokenType::kInteger, pos_).integer = value;
    Advance(end);
    return absl::OkStatus();
  }

  // A hexadecimal escape of `count` digits whose first digit is at `pos`.
  absl::StatusOr<char32_t> HexEscape(size_t pos, size_t count) {
    const std::string_view digits = text_.substr(pos, count);
    uint32_t code = 0;
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
    if (digits.size() != count || parsed.ptr != digits.data() + count) {
      return Error(pos, "truncated escape in a string");
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) {
      return Error(pos, "escape in a string is not a character");
    }
    return static_cast<char32_t>(code);
  }

  absl::Status LexString() {
    const char quote = text_[pos_];
    std::string out;
    size_t pos = pos_ + 1;
    for (;; ++pos) {
      if (pos >= text_.size()) return Error(pos_, "string is not closed");
      const char c = text_[pos];
      if (c == quote) break;
      if (c != '\\') {
        out.push_back(c);
        continue;
      }
      if (++pos >= text_.size()) return Error(pos_, "string is not closed");
      const char escape = text_[pos];
      constexpr std::string_view kSimple = "\\'\"abfnrtv";
      constexpr std::string_view kMeaning = "\\'\"\a\b\f\n\r\t\v";
      const size_t simple = kSimple.find(escape);
      if (simple != kNpos) {
        out.push_back(kMeaning[simple]);
      } else if (escape == '\n') {
        continue;
      } else if (escape >= '0' && escape <= '7') {
        char32_t code = 0;
        size_t digits = 0;
        while (digits < 3 && pos + digits < text_.size() && text_[pos + digits] >= '0' &&
               text_[pos + digits] <= '7') {
          code = code * 8 + static_cast<char32_t>(text_[pos + digits] - '0');
          ++digits;
        }
        AppendUtf8(code, out);
        pos += digits - 1;
      } else if (escape == 'x' || escape == 'u' || escape == 'U') {
        const size_t count = escape == 'x' ? 2 : escape == 'u' ? 4 : 8;
        ASSIGN_OR_RETURN(const char32_t code, HexEscape(pos + 1, count));
        AppendUtf8(code, out);
        pos += count;
      } else if (escape == 'N') {
        return Error(pos, "\\N escapes are not supported");
      } else {
        out.push_back('\\');
        out.push_back(escape);
      }
    }
    Emit(TokenType::kString, pos_, std::move(out));
    Advance(pos + 1);
    return absl::OkStatus();
  }

  absl::Status LexOperator(std::string& open) {
    static constexpr std::string_view kOperators[] = {
        "**", "//", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    for (const std::string_view candidate : kOperators) {
      if (!At(pos_, candidate)) continue;
      const char c = candidate[0];
      if (c == '(' || c == '[' || c == '{') {
        open.push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
      } else if (c == ')' || c == ']' || c == '}') {
        if (open.empty()) return Error(pos_, absl::StrFormat("unexpected '%c'", c));
        if (open.back() != c) {
          return Error(pos_, absl::StrFormat("unexpected '%c', expected '%c'", c, open.back()));
        }
        open.pop_back();
      }
      Emit(TokenType::kOperator, pos_, std::string(candidate));
      Advance(pos_ + candidate.size());
      return absl::OkStatus();
    }
    return Error(pos_,
                 absl::StrFormat("unexpected character %s", absl::StrFormat("'%c'", text_[pos_])));
  }

  const std::string source_;
  const std::string_view text_;
  std::vector<Token> tokens_;
  size_t pos_ = 0;
  bool line_starting_ = true;
  size_t counted_ = 0;
  uint32_t line_ = 1;
  size_t line_start_ = 0;
};

}  // namespace

absl::Status SyntaxError(Position position, std::string_view what) {
  return InvalidArgumentError("line %d, column %d: %s", position.line, position.column, what);
}

absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source) {
  if (!IsValidUtf8(source)) return InvalidArgumentError("template is not valid UTF-8");
  return Lexer(NormalizeNewlines(source)).Run();
}

}  // namespace reticle::tokenizer::jinja
