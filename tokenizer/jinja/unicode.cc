#include "tokenizer/jinja/unicode.h"

#include <unicode/ucasemap.h>
#include <unicode/uchar.h>

#include <algorithm>

#include "base/check.h"

namespace reticle::tokenizer::jinja {
namespace {

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

char AsciiUpper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; }
char AsciiLower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

const UCaseMap* RootCaseMap() {
  static const UCaseMap* const map = [] {
    UErrorCode error = U_ZERO_ERROR;
    UCaseMap* opened = ucasemap_open("", 0, &error);
    RETICLE_CHECK(U_SUCCESS(error));
    return opened;
  }();
  return map;
}

using CaseFunction = int32_t (*)(const UCaseMap*, char*, int32_t, const char*, int32_t,
                                 UErrorCode*);

std::string MapCase(CaseFunction function, std::string_view text) {
  std::string out(text.size() + 16, '\0');
  for (;;) {
    UErrorCode error = U_ZERO_ERROR;
    const int32_t size = function(RootCaseMap(), out.data(), static_cast<int32_t>(out.size()),
                                  text.data(), static_cast<int32_t>(text.size()), &error);
    if (error == U_BUFFER_OVERFLOW_ERROR) {
      out.resize(static_cast<size_t>(size) + 1);
      continue;
    }
    if (U_FAILURE(error)) return std::string(text);
    out.resize(static_cast<size_t>(size));
    return out;
  }
}

// The title case of one character: ICU's simple mapping, and the full one for sharp s and its like.
void AppendTitleCharacter(std::string_view character, std::string& out) {
  const char32_t c = DecodeCharacter(character);
  if (c < 0x80) {
    out.push_back(AsciiUpper(static_cast<char>(c)));
    return;
  }
  const char32_t title = static_cast<char32_t>(u_totitle(static_cast<UChar32>(c)));
  if (title != c) {
    AppendUtf8(title, out);
    return;
  }
  const std::string upper = ToUpper(character);
  if (CountCharacters(upper) == 1) {
    out.append(character);
    return;
  }
  const size_t first = SkipCharacters(upper, 0, 1);
  out.append(upper, 0, first);
  out.append(ToLower(std::string_view(upper).substr(first)));
}

}  // namespace

size_t CountCharacters(std::string_view text) {
  size_t count = 0;
  for (const char c : text) count += IsContinuation(c) ? 0 : 1;
  return !text.empty() && IsContinuation(text[0]) ? count + 1 : count;
}

size_t SkipCharacters(std::string_view text, size_t pos, size_t count) {
  for (; count > 0 && pos < text.size(); --count) {
    do {
      ++pos;
    } while (pos < text.size() && IsContinuation(text[pos]));
  }
  return pos;
}

size_t SkipCharactersBack(std::string_view text, size_t pos, size_t count) {
  for (; count > 0; --count) {
    if (pos == 0) return std::string_view::npos;
    do {
      --pos;
    } while (pos > 0 && IsContinuation(text[pos]));
  }
  return pos;
}

std::string_view CharacterAt(std::string_view text, size_t pos) {
  return text.substr(pos, SkipCharacters(text, pos, 1) - pos);
}

char32_t DecodeCharacter(std::string_view character) {
  constexpr char32_t kInvalid = 0xFFFD;
  if (character.empty()) return kInvalid;
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(character[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return character.size() == 1 ? lead : kInvalid;
  size_t size = 0;
  char32_t code = 0;
  if (lead >= 0xC2 && lead <= 0xDF) {
    size = 2;
    code = lead & 0x1F;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    size = 3;
    code = lead & 0x0F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    size = 4;
    code = lead & 0x07;
  }
  if (size == 0 || character.size() != size) return kInvalid;
  for (size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return kInvalid;
    code = (code << 6) | (byte(i) & 0x3F);
  }
  if (size == 3 && (code < 0x800 || (code >= 0xD800 && code <= 0xDFFF))) return kInvalid;
  if (size == 4 && (code < 0x10000 || code > 0x10FFFF)) return kInvalid;
  return code;
}

void AppendUtf8(char32_t code_point, std::string& out) {
  if (code_point > 0x10FFFF || (code_point >= 0xD800 && code_point <= 0xDFFF)) code_point = 0xFFFD;
  const auto put = [&out](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | (code_point >> 6));
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | (code_point >> 12));
    put(0x80 | ((code_point >> 6) & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | (code_point >> 18));
    put(0x80 | ((code_point >> 12) & 0x3F));
    put(0x80 | ((code_point >> 6) & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

bool IsValidUtf8(std::string_view text) {
  size_t pos = 0;
  while (pos < text.size()) {
    if (static_cast<unsigned char>(text[pos]) < 0x80) {
      ++pos;
      continue;
    }
    const std::string_view character = CharacterAt(text, pos);
    const char32_t code = DecodeCharacter(character);
    if (code == 0xFFFD && character != "\xEF\xBF\xBD") return false;
    pos += character.size();
  }
  return true;
}

bool IsSpace(char32_t c) {
  if (c < 0x80) return c == 32 || (c >= 9 && c <= 13) || (c >= 28 && c <= 31);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool IsAlphabetic(char32_t c) {
  return (U_GET_GC_MASK(static_cast<UChar32>(c)) & U_GC_L_MASK) != 0;
}

bool IsDecimal(char32_t c) { return u_charType(static_cast<UChar32>(c)) == U_DECIMAL_DIGIT_NUMBER; }

bool IsDigit(char32_t c) {
  const int32_t type = u_getIntPropertyValue(static_cast<UChar32>(c), UCHAR_NUMERIC_TYPE);
  return type == U_NT_DECIMAL || type == U_NT_DIGIT;
}

bool IsNumeric(char32_t c) {
  return u_getIntPropertyValue(static_cast<UChar32>(c), UCHAR_NUMERIC_TYPE) != U_NT_NONE;
}

bool IsUpper(char32_t c) { return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_UPPERCASE); }
bool IsLower(char32_t c) { return u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_LOWERCASE); }

bool IsCased(char32_t c) {
  return IsUpper(c) || IsLower(c) || u_charType(static_cast<UChar32>(c)) == U_TITLECASE_LETTER;
}

bool IsPrintable(char32_t c) {
  if (c < 0x80) return c >= 32 && c < 127;
  const uint32_t mask = U_GET_GC_MASK(static_cast<UChar32>(c));
  return (mask & (U_GC_C_MASK | U_GC_Z_MASK)) == 0;
}

std::string ToUpper(std::string_view text) {
  if (!IsAscii(text)) return MapCase(ucasemap_utf8ToUpper, text);
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), AsciiUpper);
  return out;
}

std::string ToLower(std::string_view text) {
  if (!IsAscii(text)) return MapCase(ucasemap_utf8ToLower, text);
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), AsciiLower);
  return out;
}

std::string ToTitle(std::string_view text) {
  std::string out;
  bool in_word = false;
  for (size_t pos = 0; pos < text.size();) {
    const std::string_view character = CharacterAt(text, pos);
    if (in_word) {
      out.append(ToLower(character));
    } else {
      AppendTitleCharacter(character, out);
    }
    in_word = IsCased(DecodeCharacter(character));
    pos += character.size();
  }
  return out;
}

std::string Capitalize(std::string_view text) {
  if (text.empty()) return std::string();
  const std::string_view first = CharacterAt(text, 0);
  std::string out;
  AppendTitleCharacter(first, out);
  out.append(ToLower(text.substr(first.size())));
  return out;
}

std::string JinjaTitle(std::string_view text) {
  const auto separates = [](std::string_view character) {
    const char32_t c = DecodeCharacter(character);
    return c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || IsSpace(c);
  };
  std::string out;
  for (size_t pos = 0; pos < text.size();) {
    const std::string_view first = CharacterAt(text, pos);
    if (separates(first)) {
      out.append(first);
      pos += first.size();
      continue;
    }
    size_t end = pos + first.size();
    while (end < text.size() && !separates(CharacterAt(text, end))) {
      end = SkipCharacters(text, end, 1);
    }
    out.append(ToUpper(first));
    out.append(ToLower(text.substr(pos + first.size(), end - pos - first.size())));
    pos = end;
  }
  return out;
}

std::string SwapCase(std::string_view text) {
  std::string out;
  for (size_t pos = 0; pos < text.size();) {
    const std::string_view character = CharacterAt(text, pos);
    const char32_t c = DecodeCharacter(character);
    out.append(IsUpper(c)   ? ToLower(character)
               : IsLower(c) ? ToUpper(character)
                            : std::string(character));
    pos += character.size();
  }
  return out;
}

}  // namespace reticle::tokenizer::jinja
