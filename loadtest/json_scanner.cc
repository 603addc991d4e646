#include "loadtest/json_scanner.h"

#include <charconv>

namespace reticle::loadtest {
namespace {

constexpr int kMaxDepth = 64;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

void JsonScanner::SkipSpace() {
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c != ' ' && c != '\n' && c != '\r' && c != '\t') return;
    ++at_;
  }
}

bool JsonScanner::AtEnd() {
  SkipSpace();
  return ok_ && at_ == text_.size() && depth_ == 0;
}

char JsonScanner::Peek() {
  SkipSpace();
  return ok_ && at_ < text_.size() ? text_[at_] : '\0';
}

bool JsonScanner::Enter(char bracket) {
  if (Peek() != bracket || depth_ + 1 >= kMaxDepth) return Fail();
  ++at_;
  ++depth_;
  const uint64_t bit = uint64_t{1} << depth_;
  first_ |= bit;
  object_ = bracket == '{' ? object_ | bit : object_ & ~bit;
  return true;
}

bool JsonScanner::NextKey(std::string_view& key) {
  const char c = Peek();
  const uint64_t bit = uint64_t{1} << depth_;
  if (c == '}') {
    ++at_;
    --depth_;
    return false;
  }
  if ((first_ & bit) == 0) {
    if (c != ',') return Fail();
    ++at_;
  }
  first_ &= ~bit;
  if (!String(key)) return false;
  if (Peek() != ':') return Fail();
  ++at_;
  return true;
}

bool JsonScanner::NextElement() {
  const char c = Peek();
  const uint64_t bit = uint64_t{1} << depth_;
  if (c == ']') {
    ++at_;
    --depth_;
    return false;
  }
  if ((first_ & bit) == 0) {
    if (c != ',') return Fail();
    ++at_;
  }
  first_ &= ~bit;
  return Peek() != '\0' ? true : Fail();
}

bool JsonScanner::String(std::string_view& inside) {
  if (Peek() != '"') return Fail();
  const size_t begin = ++at_;
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c == '"') {
      inside = text_.substr(begin, at_ - begin);
      ++at_;
      return true;
    }
    if (static_cast<unsigned char>(c) < 0x20) return Fail();
    at_ += c == '\\' ? 2 : 1;
  }
  at_ = text_.size();
  return Fail();
}

bool JsonScanner::Integer(int64_t& value) {
  Peek();
  if (!ok_) return false;
  const auto parsed = std::from_chars(text_.data() + at_, text_.data() + text_.size(), value);
  if (parsed.ec != std::errc()) return Fail();
  at_ = static_cast<size_t>(parsed.ptr - text_.data());
  return true;
}

bool JsonScanner::Literal(std::string_view word) {
  if (text_.substr(at_, word.size()) != word) return Fail();
  at_ += word.size();
  return true;
}

bool JsonScanner::Number() {
  const auto digits = [&] {
    const size_t begin = at_;
    while (at_ < text_.size() && IsDigit(text_[at_])) ++at_;
    return at_ > begin;
  };
  if (text_[at_] == '-') ++at_;
  if (!digits()) return Fail();
  if (at_ < text_.size() && text_[at_] == '.') {
    ++at_;
    if (!digits()) return Fail();
  }
  if (at_ < text_.size() && (text_[at_] | 0x20) == 'e') {
    ++at_;
    if (at_ < text_.size() && (text_[at_] == '+' || text_[at_] == '-')) ++at_;
    if (!digits()) return Fail();
  }
  return true;
}

bool JsonScanner::Skip() {
  const int base = depth_;
  std::string_view ignored;
  do {
    switch (Peek()) {
      case '{':
        if (!Enter('{')) return false;
        break;
      case '[':
        if (!Enter('[')) return false;
        break;
      case '"':
        if (!String(ignored)) return false;
        break;
      case 't':
        if (!Literal("true")) return false;
        break;
      case 'f':
        if (!Literal("false")) return false;
        break;
      case 'n':
        if (!Literal("null")) return false;
        break;
      case '\0':
        return Fail();
      default:
        if (!Number()) return false;
    }
    // Close what ends here, and go to the next member or element of what does not.
    while (depth_ > base) {
      const bool object = (object_ >> depth_ & 1) != 0;
      if (object ? NextKey(ignored) : NextElement()) break;
      if (!ok_) return false;
    }
  } while (depth_ > base);
  return true;
}

}  // namespace reticle::loadtest
