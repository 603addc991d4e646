#include "tokenizer/tokenizer.h"

#include "base/status.h"
#include "tokenizer/byte_level_bpe.h"
#include "tokenizer/sentencepiece_bpe.h"
#include "tokenizer/vocabulary.h"

namespace reticle::tokenizer {

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Create(const models::GgufFile& file) {
  ASSIGN_OR_RETURN(const Vocabulary vocabulary, ReadVocabulary(file));
  return Create(vocabulary);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Create(const Vocabulary& vocabulary) {
  if (vocabulary.model == "gpt2") return ByteLevelBpe::Create(vocabulary);
  if (vocabulary.model == "llama") return SentencePieceBpe::Create(vocabulary);
  return UnimplementedError("tokenizer.ggml.model is \"%s\"; \"gpt2\" and \"llama\" are supported",
                            Abbreviated(vocabulary.model));
}

std::vector<TokenId> Tokenizer::Encode(std::string_view text, const EncodeOptions& options) const {
  std::vector<TokenId> tokens;
  Encode(text, options, tokens);
  return tokens;
}

}  // namespace reticle::tokenizer
