// What both BPE families share: token texts in one arena, special tokens, identities. Internal to
// tokenizer/.
#ifndef RETICLE_TOKENIZER_VOCABULARY_TOKENIZER_H_
#define RETICLE_TOKENIZER_VOCABULARY_TOKENIZER_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "tokenizer/special_matcher.h"
#include "tokenizer/token_index.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/vocabulary.h"

namespace reticle::tokenizer {

class VocabularyTokenizer : public Tokenizer {
 public:
  void Encode(std::string_view text, const EncodeOptions& options,
              std::vector<TokenId>& out) const final;
  // As Encode; returns a count of the work done (characters scanned, rules looked up, queue
  // operations), with which tests show that it is linear.
  uint64_t EncodeCounted(std::string_view text, const EncodeOptions& options,
                         std::vector<TokenId>& out) const;

  std::string_view TokenBytes(TokenId token) const final;
  std::string_view TokenText(TokenId token) const final;
  std::string Decode(std::span<const TokenId> tokens, bool skip_special) const final;
  uint32_t vocab_size() const final { return static_cast<uint32_t>(types_.size()); }
  bool IsControl(TokenId token) const final;
  bool IsAdded(TokenId token) const final;
  bool IsEndOfGeneration(TokenId token) const final;
  std::span<const TokenId> end_of_generation() const final { return end_of_generation_; }
  std::optional<TokenId> bos() const final { return bos_; }
  std::optional<TokenId> eos() const final { return eos_; }
  std::optional<TokenId> FindToken(std::string_view text) const final;

 protected:
  using Matches = std::vector<SpecialMatcher::Match>;

  // Encodes `text`, in which `matches` are the added tokens; returns the work done.
  virtual uint64_t EncodeSegments(std::string_view text, const Matches& matches,
                                  std::vector<TokenId>& out) const = 0;
  // Whether merging alone, without looking the whole up, makes `token` of its own bytes.
  virtual bool MergesToItself(TokenId token) const = 0;

  // Set-up, in this order. Checks sizes and types and finds duplicates; then every token is added
  // with the bytes that it stands for, `encodable` if plain text may become it; then the rest.
  absl::Status CheckTokens(const Vocabulary& vocabulary);
  void AddToken(std::string_view bytes, bool encodable);
  absl::Status FinishTokens(const Vocabulary& vocabulary, bool add_bos_by_default);

  TokenType type(TokenId token) const { return types_[token]; }
  std::string_view text(TokenId token) const {
    return {arena_.data() + offsets_[token], offsets_[token + 1] - offsets_[token]};
  }
  // The encodable token of exactly these bytes, or TokenIndex::kNone.
  TokenId FindEncodable(std::string_view bytes) const {
    return index_.Find(bytes, [this](TokenId token) { return text(token); });
  }
  // MergesToItself, remembered from call to call.
  bool IsWhole(TokenId token) const;

 private:
  absl::Status FindIdentities(const Vocabulary& vocabulary, bool add_bos_by_default);

  // Constant after creation, IsWhole's memo apart.
  std::string arena_;
  std::vector<uint32_t> offsets_ = {0};
  std::vector<TokenType> types_;
  TokenIndex index_;
  absl::flat_hash_map<std::string, TokenId> added_;  // control, unknown, user-defined
  SpecialMatcher user_defined_matcher_;
  SpecialMatcher added_matcher_;
  std::vector<TokenId> end_of_generation_;  // ascending
  std::optional<TokenId> bos_;
  std::optional<TokenId> eos_;
  bool add_bos_ = false;
  bool add_eos_ = false;
  // 0 not known, 1 no, 2 yes. Writers store what any other would, so relaxed order is enough.
  mutable std::unique_ptr<std::atomic<uint8_t>[]> whole_;
};

}  // namespace reticle::tokenizer

#endif  // RETICLE_TOKENIZER_VOCABULARY_TOKENIZER_H_
