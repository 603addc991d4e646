#include "tokenizer/pretokenizer.h"

#include <utility>

namespace reticle::tokenizer {
namespace {

constexpr uint8_t kNotOther = kLetter | kNumber | kSpace;

struct NamedScheme {
  std::string_view name;
  PreTokenizerScheme scheme;
};

// Names as GGUF converters write them, by the expression that the model's own tokenizer uses.
constexpr NamedScheme kSchemes[] = {
    {"", {PreTokenizerKind::kUnnamed, false}},
    {"default", {PreTokenizerKind::kUnnamed, false}},
    {"llama3", {PreTokenizerKind::kLlama3, true}},
    {"llama-v3", {PreTokenizerKind::kLlama3, true}},
    {"llama-bpe", {PreTokenizerKind::kLlama3, true}},
    {"falcon3", {PreTokenizerKind::kLlama3, true}},
    {"pixtral", {PreTokenizerKind::kLlama3, true}},
    {"dbrx", {PreTokenizerKind::kLlama3, false}},
    {"smaug-bpe", {PreTokenizerKind::kLlama3, false}},
    {"qwen2", {PreTokenizerKind::kQwen2, false}},
    {"deepseek-r1-qwen", {PreTokenizerKind::kQwen2, false}},
    {"megrez", {PreTokenizerKind::kQwen2, false}},
    {"stablelm2", {PreTokenizerKind::kQwen2, false}},
    {"gpt-2", {PreTokenizerKind::kGpt2, false}},
    {"phi-2", {PreTokenizerKind::kGpt2, false}},
    {"mpt", {PreTokenizerKind::kGpt2, false}},
    {"olmo", {PreTokenizerKind::kGpt2, false}},
    {"smollm", {PreTokenizerKind::kSingleDigitsThenGpt2, false}},
    {"starcoder", {PreTokenizerKind::kSingleDigitsThenGpt2, false}},
    {"refact", {PreTokenizerKind::kSingleDigitsThenGpt2, false}},
    {"command-r", {PreTokenizerKind::kSingleDigitsThenGpt2, false}},
    {"codeshell", {PreTokenizerKind::kSingleDigitsThenGpt2, false}},
};

bool IsAsciiDigit(char c) { return c >= '0' && c <= '9'; }

// Length of a contraction ('s 't 're 've 'm 'll 'd) at `p`, which holds an apostrophe; 0 if none.
// Without regard to case U+017F (long s) counts as s too, as Unicode's simple case folding says.
size_t ContractionLength(const char* p, const char* end, bool any_case) {
  const auto letter = [&](size_t i) -> char {
    if (static_cast<size_t>(end - p) <= i) return 0;
    const char c = p[i];
    return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
  };
  const char first = letter(1);
  switch (first) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return 2;
    case 'r':
    case 'v':
      return letter(2) == 'e' ? 3 : 0;
    case 'l':
      return letter(2) == 'l' ? 3 : 0;
    case '\xC5':
      return any_case && letter(2) == '\xBF' ? 3 : 0;
    default:
      return 0;
  }
}

}  // namespace

std::optional<PreTokenizerScheme> FindPreTokenizer(std::string_view name) {
  for (const NamedScheme& named : kSchemes) {
    if (named.name == name) return named.scheme;
  }
  return std::nullopt;
}

PreTokens::PreTokens(PreTokenizerKind kind, std::string_view text)
    : kind_(kind),
      classes_(CharClasses::Get()),
      position_(text.data()),
      end_(text.data() + text.size()),
      stretch_end_(text.data()),
      digits_end_(text.data()) {}

bool PreTokens::Next(std::string_view& piece) {
  const char* const p = position_;
  if (p == end_) return false;
  switch (kind_) {
    case PreTokenizerKind::kLlama3:
      position_ = NextLlama3(p, end_, 3);
      break;
    case PreTokenizerKind::kQwen2:
      position_ = NextLlama3(p, end_, 1);
      break;
    case PreTokenizerKind::kGpt2:
      position_ = NextGpt2(p, end_);
      break;
    case PreTokenizerKind::kSingleDigitsThenGpt2:
    case PreTokenizerKind::kUnnamed:
      position_ = NextInStretch(p);
      break;
  }
  piece = {p, static_cast<size_t>(position_ - p)};
  return true;
}

PreTokens::Char PreTokens::At(const char* p) {
  ++scanned_;
  const auto byte = static_cast<uint8_t>(*p);
  if (byte < 0x80) return {classes_.ascii()[byte], 1, byte};
  const Utf8Char c = DecodeUtf8(p, end_);
  if (!c.valid) return {kOtherClass, c.size, UINT32_MAX};
  return {classes_.Of(c.code_point), c.size, c.code_point};
}

const char* PreTokens::SkipRun(const char* p, const char* end, uint8_t mask) {
  while (p < end) {
    const Char c = At(p);
    if (!(c.klass & mask)) break;
    p += c.size;
  }
  return p;
}

const char* PreTokens::SkipOther(const char* p, const char* end) {
  while (p < end) {
    const Char c = At(p);
    if (c.klass & kNotOther) break;
    p += c.size;
  }
  return p;
}

const char* PreTokens::NextLlama3(const char* p, const char* end, int max_digits) {
  const Char first = At(p);
  const char* const second = p + first.size;
  if (first.klass & kLetter) return SkipRun(second, end, kLetter);
  if (first.code_point == '\'') {
    if (const size_t length = ContractionLength(p, end, true)) return p + length;
  }
  if (first.klass & kNumber) {
    const char* q = second;
    for (int digits = 1; digits < max_digits && Is(q, end, kNumber); ++digits) q += At(q).size;
    return q;
  }
  if (!(first.klass & kNewline) && Is(second, end, kLetter)) return SkipRun(second, end, kLetter);
  const char* other = p;
  if (first.code_point == ' ') other = second;
  const char* const other_end = SkipOther(other, end);
  if (other_end > other) return SkipRun(other_end, end, kNewline);
  return NextSpaces(p, end, true);
}

const char* PreTokens::NextGpt2(const char* p, const char* end) {
  const Char first = At(p);
  if (first.code_point == '\'') {
    if (const size_t length = ContractionLength(p, end, false)) return p + length;
  }
  const char* q = p;
  if (first.code_point == ' ' && p + 1 < end) q = p + 1;
  const uint8_t klass = At(q).klass;
  if (klass & kLetter) return SkipRun(q, end, kLetter);
  if (klass & kNumber) return SkipRun(q, end, kNumber);
  if (!(klass & kSpace)) return SkipOther(q, end);
  return NextSpaces(p, end, false);
}

const char* PreTokens::NextSpaces(const char* p, const char* end, bool newlines_first) {
  const char* after_newline = nullptr;
  const char* last = p;
  const char* q = p;
  while (q < end) {
    const Char c = At(q);
    if (!(c.klass & kSpace)) break;
    last = q;
    q += c.size;
    if (c.klass & kNewline) after_newline = q;
  }
  if (newlines_first && after_newline != nullptr) return after_newline;
  return q == end || last == p ? q : last;
}

bool PreTokens::IsIsolated(const Char& c) const {
  if (kind_ == PreTokenizerKind::kSingleDigitsThenGpt2) return c.klass & kNumber;
  switch (c.code_point) {
    case '$':
    case '+':
    case '<':
    case '=':
    case '>':
    case '^':
    case '~':
    case '|':
      return true;
    default:
      return c.klass & kPunctuation;
  }
}

const char* PreTokens::NextInStretch(const char* p) {
  if (p < digits_end_) return NextDigits(p);
  if (p == stretch_end_) {
    const Char first = At(p);
    const bool isolated = IsIsolated(first);
    const char* q = p + first.size;
    if (isolated && kind_ == PreTokenizerKind::kSingleDigitsThenGpt2) return stretch_end_ = q;
    while (q < end_) {
      const Char c = At(q);
      if (IsIsolated(c) != isolated) break;
      q += c.size;
    }
    stretch_end_ = q;
    if (isolated) return q;
  }
  if (kind_ == PreTokenizerKind::kUnnamed) {
    const Char first = At(p);
    if (first.code_point == ' ' && Is(p + 1, stretch_end_, kNumber)) return p + 1;
    if (first.klass & kNumber) {
      digits_end_ = SkipRun(p, stretch_end_, kNumber);
      return NextDigits(p);
    }
  }
  return NextGpt2(p, stretch_end_);
}

const char* PreTokens::NextDigits(const char* p) {
  const auto is_triple = [this](const char* q) {
    return digits_end_ - q >= 3 && IsAsciiDigit(q[0]) && IsAsciiDigit(q[1]) && IsAsciiDigit(q[2]);
  };
  if (is_triple(p)) return p + 3;
  for (const char* q = p + 1; q < digits_end_; ++q) {
    if (is_triple(q)) return q;
  }
  return digits_end_;
}

}  // namespace reticle::tokenizer
