#include "tokenizer/unicode.h"

#include <algorithm>
#include <map>

#include "base/check.h"

namespace reticle::tokenizer {
namespace {

struct CodePointRange {
  uint32_t first;
  uint32_t last;
};

#include "tokenizer/unicode_ranges.inc"

constexpr uint32_t kCodePoints = 0x110000;

template <size_t n>
void Mark(const CodePointRange (&ranges)[n], uint8_t bit, std::vector<uint8_t>& flat) {
  for (const CodePointRange& range : ranges) {
    for (uint32_t c = range.first; c <= range.last; ++c) flat[c] |= bit;
  }
}

}  // namespace

Utf8Char DecodeUtf8(const char* begin, const char* end) {
  const auto byte = [begin](size_t i) { return static_cast<uint8_t>(begin[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {lead, 1, true, false};
  // The second byte's range carries all of well-formedness (Unicode, table 3-7).
  uint8_t low = 0x80;
  uint8_t high = 0xBF;
  size_t size = 0;
  uint32_t code_point = 0;
  if (lead >= 0xC2 && lead <= 0xDF) {
    size = 2;
    code_point = lead & 0x1F;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    size = 3;
    code_point = lead & 0x0F;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    size = 4;
    code_point = lead & 0x07;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {0, 1, false, false};
  }
  const size_t available = static_cast<size_t>(end - begin);
  for (size_t i = 1; i < size; ++i) {
    if (i == available) return {0, static_cast<uint8_t>(i), false, true};
    if (byte(i) < low || byte(i) > high) return {0, static_cast<uint8_t>(i), false, false};
    code_point = code_point << 6 | (byte(i) & 0x3F);
    low = 0x80;
    high = 0xBF;
  }
  return {code_point, static_cast<uint8_t>(size), true, false};
}

const CharClasses& CharClasses::Get() {
  static const CharClasses* const classes = new CharClasses;
  return *classes;
}

std::string_view CharClasses::unicode_version() { return kUnicodeVersion; }

CharClasses::CharClasses() {
  std::vector<uint8_t> flat(kCodePoints, kOtherClass);
  Mark(kLetterRanges, kLetter, flat);
  Mark(kNumberRanges, kNumber, flat);
  Mark(kPunctuationRanges, kPunctuation, flat);
  Mark(kWhiteSpaceRanges, kSpace, flat);
  flat['\r'] |= kNewline;
  flat['\n'] |= kNewline;

  std::map<std::vector<uint8_t>, uint8_t> known;
  for (uint32_t first = 0; first < kCodePoints; first += 256) {
    std::vector<uint8_t> page(flat.begin() + first, flat.begin() + first + 256);
    const auto [it, added] = known.try_emplace(std::move(page), known.size());
    if (added) pages_.insert(pages_.end(), it->first.begin(), it->first.end());
    page_of_.push_back(it->second);
  }
  RETICLE_CHECK(known.size() <= 256);
}

}  // namespace reticle::tokenizer
