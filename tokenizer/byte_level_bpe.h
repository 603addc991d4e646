// Byte-level BPE ("gpt2" vocabularies: Llama 3, Qwen 2, GPT-2). Internal to tokenizer/.
#ifndef RETICLE_TOKENIZER_BYTE_LEVEL_BPE_H_
#define RETICLE_TOKENIZER_BYTE_LEVEL_BPE_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tokenizer/bpe_merge.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/vocabulary_tokenizer.h"

namespace reticle::tokenizer {

class ByteLevelBpe final : public VocabularyTokenizer {
 public:
  // Errors as Tokenizer::Create.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(const Vocabulary& vocabulary);

  bool adds_space_prefix() const override { return false; }

 protected:
  uint64_t EncodeSegments(std::string_view text, const Matches& matches,
                          std::vector<TokenId>& out) const override;
  bool MergesToItself(TokenId token) const override;

 private:
  ByteLevelBpe(PreTokenizerScheme scheme, size_t merges) : scheme_(scheme), merges_(merges) {}
  absl::Status Init(const Vocabulary& vocabulary);
  absl::Status AddMerges(const std::vector<std::string_view>& merges);

  const PreTokenizerScheme scheme_;
  MergeTable merges_;
  std::array<TokenId, 256> byte_tokens_;
};

}  // namespace reticle::tokenizer

#endif  // RETICLE_TOKENIZER_BYTE_LEVEL_BPE_H_
