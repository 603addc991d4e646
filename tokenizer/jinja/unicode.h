// What Python's str knows about characters, over UTF-8. A character begins at every byte that is
// not a continuation byte, so invalid UTF-8 is harmless: it only counts oddly.
#ifndef RETICLE_TOKENIZER_JINJA_UNICODE_H_
#define RETICLE_TOKENIZER_JINJA_UNICODE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace reticle::tokenizer::jinja {

inline bool IsContinuation(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

size_t CountCharacters(std::string_view text);
// The byte position `count` characters after `pos`; text.size() when there are fewer.
size_t SkipCharacters(std::string_view text, size_t pos, size_t count);
// The byte position `count` characters before `pos`; npos when there are fewer.
size_t SkipCharactersBack(std::string_view text, size_t pos, size_t count);
// The bytes of the character at `pos`, which must be less than text.size().
std::string_view CharacterAt(std::string_view text, size_t pos);
// The code point of one character; 0xFFFD when it is not valid UTF-8.
char32_t DecodeCharacter(std::string_view character);
// Appends UTF-8. Surrogates and values above 0x10FFFF become U+FFFD.
void AppendUtf8(char32_t code_point, std::string& out);
bool IsValidUtf8(std::string_view text);

bool IsSpace(char32_t c);
bool IsAlphabetic(char32_t c);
bool IsDecimal(char32_t c);  // str.isdecimal
bool IsDigit(char32_t c);    // str.isdigit
bool IsNumeric(char32_t c);  // str.isnumeric
inline bool IsAlphanumeric(char32_t c) { return IsAlphabetic(c) || IsNumeric(c); }
bool IsUpper(char32_t c);
bool IsLower(char32_t c);
bool IsCased(char32_t c);
bool IsPrintable(char32_t c);  // what repr() does not escape

std::string ToUpper(std::string_view text);
std::string ToLower(std::string_view text);
std::string ToTitle(std::string_view text);     // str.title
std::string Capitalize(std::string_view text);  // str.capitalize
std::string JinjaTitle(std::string_view text);  // the filter `title`
std::string SwapCase(std::string_view text);

}  // namespace reticle::tokenizer::jinja

#endif  // RETICLE_TOKENIZER_JINJA_UNICODE_H_
