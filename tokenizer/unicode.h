// UTF-8 decoding and the character classes that pre-tokenisers use.
#ifndef RETICLE_TOKENIZER_UNICODE_H_
#define RETICLE_TOKENIZER_UNICODE_H_

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace reticle::tokenizer {

// Bits of a character's class. Letter, number and punctuation are Unicode's general categories L, N
// and P; space is the property White_Space, which is what \s means to the regular-expression
// engines of tiktoken (Rust's regex) and Hugging Face (Oniguruma).
enum CharClass : uint8_t {
  kOtherClass = 0,
  kLetter = 1,
  kNumber = 2,
  kSpace = 4,
  kNewline = 8,  // CR and LF; always together with kSpace
  kPunctuation = 16,
};

// What DecodeUtf8 found at the front of a byte string.
struct Utf8Char {
  uint32_t code_point = 0;  // meaningful when valid
  uint8_t size = 0;         // bytes: of the character, or of the maximal subpart when not valid
  bool valid = false;
  bool incomplete = false;  // not valid only because the bytes end: a prefix of a character
};

// Decodes the first character of [begin, end), which must not be empty. For ill-formed input `size`
// is the maximal subpart that Unicode (section 3.9) and the WHATWG replace by one U+FFFD.
Utf8Char DecodeUtf8(const char* begin, const char* end);

// The UTF-8 form of U+FFFD, the replacement character.
inline constexpr std::string_view kReplacementUtf8 = "\xEF\xBF\xBD";

// The classes of all code points. Immutable, thread-safe.
class CharClasses {
 public:
  // Built at the first call (under a millisecond); lives for ever.
  static const CharClasses& Get();
  // Unicode version of the tables, for example "15.0.0".
  static std::string_view unicode_version();

  // kOtherClass for numbers above U+10FFFF.
  uint8_t Of(uint32_t code_point) const {
    if (code_point > 0x10FFFF) return kOtherClass;
    return pages_[size_t{page_of_[code_point >> 8]} * 256 + (code_point & 0xFF)];
  }
  // The classes of U+0000 to U+007F.
  const uint8_t* ascii() const { return pages_.data(); }

 private:
  CharClasses();
  std::vector<uint8_t> page_of_;  // by code_point >> 8
  std::vector<uint8_t> pages_;    // distinct pages of 256 classes
};

}  // namespace reticle::tokenizer

#endif  // RETICLE_TOKENIZER_UNICODE_H_
