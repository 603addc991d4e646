// Small vocabularies and texts for the tests and benchmarks of tokenizer/.
#ifndef RETICLE_TOKENIZER_TESTING_H_
#define RETICLE_TOKENIZER_TESTING_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"
#include "tokenizer/vocabulary.h"

namespace reticle::tokenizer {

// A Vocabulary that owns its texts. Movable; views stay good.
class TestVocabulary {
 public:
  // 256 byte tokens (ids 0 to 255), the tokens that `merges` merges learnt from `corpus` make, and
  // the control tokens <|begin|> and <|end|>.
  static TestVocabulary ByteLevel(std::string_view pre, std::string_view corpus, size_t merges);
  // <unk>, <s>, </s>, 256 byte tokens, the characters of `corpus`, and `merges` learnt tokens with
  // falling scores.
  static TestVocabulary SentencePiece(std::string_view corpus, size_t merges);

  // Appends a token and returns its id; the score counts for SentencePiece only.
  TokenId Add(std::string_view token, TokenType type, float score = 0);
  void AddMerge(std::string_view left, std::string_view right);
  // Keeps `text` for as long as the vocabulary lives.
  std::string_view Own(std::string text);

  // Fails the process when the metadata are refused.
  std::unique_ptr<Tokenizer> Build() const;
  // Id of the token with this raw text; it must exist.
  TokenId Id(std::string_view token) const;

  Vocabulary v;

 private:
  std::deque<std::string> owned_;
};

// `bytes` in the printable form of byte-level vocabularies.
std::string MapBytes(std::string_view bytes);

// Original sentences in more than a dozen scripts.
std::span<const std::string_view> Sentences();
// All of them, joined by line breaks.
std::string Corpus();

// UTF-8 of a random mix: letters, marks, digits, spaces and symbols of many scripts.
std::string RandomText(std::mt19937& random, size_t characters);
std::string RandomBytes(std::mt19937& random, size_t bytes);

}  // namespace reticle::tokenizer

#endif  // RETICLE_TOKENIZER_TESTING_H_
