// SentencePiece BPE ("llama" vocabularies: Llama 2, Mistral, TinyLlama). Internal to tokenizer/.
#ifndef RETICLE_TOKENIZER_SENTENCEPIECE_BPE_H_
#define RETICLE_TOKENIZER_SENTENCEPIECE_BPE_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tokenizer/bpe_merge.h"
#include "tokenizer/vocabulary_tokenizer.h"

namespace reticle::tokenizer {

// Inside, a space is a space: U+2581, which the vocabulary writes for it, is replaced in tokens and
// in texts alike (SentencePiece cannot tell the two apart either).
class SentencePieceBpe final : public VocabularyTokenizer {
 public:
  // Errors as Tokenizer::Create.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(const Vocabulary& vocabulary);

  bool adds_space_prefix() const override { return add_space_prefix_; }

 protected:
  uint64_t EncodeSegments(std::string_view text, const Matches& matches,
                          std::vector<TokenId>& out) const override;
  bool MergesToItself(TokenId token) const override;

 private:
  struct Session;

  SentencePieceBpe() = default;
  absl::Status Init(const Vocabulary& vocabulary);
  absl::Status AddTokens(const Vocabulary& vocabulary);
  absl::Status AddMerges(const std::vector<float>& scores);
  // The symbol of one character: its token, or the stand-in of one that only longer tokens hold.
  std::optional<SymbolId> SymbolOf(uint32_t code_point, std::string_view bytes) const;
  std::optional<SymbolId> FindSymbol(std::string_view bytes) const;

  void EncodeNormalized(std::string_view text, Session& session) const;
  void EncodeByMerging(std::string_view word, Session& session) const;
  void FlushSymbols(Session& session) const;
  void EmitBytes(std::string_view bytes, std::vector<TokenId>& out) const;

  // Constant after Create.
  bool add_space_prefix_ = true;
  // No token goes on with a space after something else, so no merge crosses such a place.
  bool words_are_separate_ = true;
  bool has_unused_ = false;
  std::vector<bool> unused_;  // by symbol
  std::array<TokenId, 256> byte_tokens_;
  MergeTable merges_{0};
  absl::flat_hash_map<uint32_t, SymbolId> stand_ins_;  // by code point
  std::vector<std::string> stand_in_bytes_;            // by symbol - vocab_size()
};

}  // namespace reticle::tokenizer

#endif  // RETICLE_TOKENIZER_SENTENCEPIECE_BPE_H_
