// Cuts text into the pieces that byte-level BPE merges within. Each scheme equals a regular
// expression published with its models (given at PreTokenizerKind) but is scanned by hand in one
// pass.
#ifndef RETICLE_TOKENIZER_PRETOKENIZER_H_
#define RETICLE_TOKENIZER_PRETOKENIZER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "tokenizer/unicode.h"

namespace reticle::tokenizer {

enum class PreTokenizerKind {
  // (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*
  // |\s*[\r\n]+|\s+(?!\S)|\s+
  kLlama3,
  // As kLlama3 with \p{N} in place of \p{N}{1,3}.
  kQwen2,
  // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  kGpt2,
  // First \p{N}, then kGpt2 within what lies between.
  kSingleDigitsThenGpt2,
  // What GGUF readers use when a file names no scheme: first [\p{P}\$\+<=>\^~\|]+, then kGpt2,
  // then \p{N}+, then [0-9][0-9][0-9], each within the pieces of the one before.
  kUnnamed,
};

struct PreTokenizerScheme {
  PreTokenizerKind kind;
  // A piece that is a token as a whole is taken as it is, whatever the merges would give.
  bool ignore_merges;
};

// The scheme that tokenizer.ggml.pre names ("llama-bpe", "gpt-2", "qwen2", ...; empty when the key
// is absent), or nullopt for an unknown name.
std::optional<PreTokenizerScheme> FindPreTokenizer(std::string_view name);

// Iterates over the pieces of one text. The pieces are never empty and concatenate to the text.
// Ill-formed UTF-8 counts as a character that is neither letter, number nor space.
//
//   PreTokens pieces(kind, text);
//   while (pieces.Next(piece)) ...
class PreTokens {
 public:
  // `text` must outlive this.
  PreTokens(PreTokenizerKind kind, std::string_view text);

  // The next piece, or false at the end.
  bool Next(std::string_view& piece);

  // Characters looked at so far; at most a small multiple of the text's length.
  uint64_t characters_scanned() const { return scanned_; }

 private:
  struct Char {
    uint8_t klass;
    uint8_t size;
    uint32_t code_point;
  };
  // The character at `p`, which must be before `end`.
  Char At(const char* p);
  bool Is(const char* p, const char* end, uint8_t mask) { return p < end && (At(p).klass & mask); }
  // The end of the run of characters of a class in `mask`, or of neither letters, numbers nor
  // spaces, that starts at `p`.
  const char* SkipRun(const char* p, const char* end, uint8_t mask);
  const char* SkipOther(const char* p, const char* end);

  const char* NextLlama3(const char* p, const char* end, int max_digits);
  const char* NextGpt2(const char* p, const char* end);
  const char* NextSpaces(const char* p, const char* end, bool newlines_first);
  // The two-step schemes: stretches of isolated characters and of what lies between them.
  const char* NextInStretch(const char* p);
  const char* NextDigits(const char* p);
  bool IsIsolated(const Char& c) const;

  const PreTokenizerKind kind_;
  const CharClasses& classes_;
  const char* position_;
  const char* const end_;
  const char* stretch_end_;  // of the stretch that position_ is in
  const char* digits_end_;   // of the run of numbers that position_ is in
  uint64_t scanned_ = 0;
};

}  // namespace reticle::tokenizer

#endif  // RETICLE_TOKENIZER_PRETOKENIZER_H_
