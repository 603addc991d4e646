// A hash index from the bytes of tokens to their ids.
#ifndef RETICLE_TOKENIZER_TOKEN_INDEX_H_
#define RETICLE_TOKENIZER_TOKEN_INDEX_H_

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/hash/hash.h"
#include "absl/strings/string_view.h"
#include "base/ids.h"

namespace reticle::tokenizer {

// Open addressing over slots of eight bytes; the texts stay with the owner, who passes a callable
// `text_of(TokenId) -> std::string_view` that gives equal answers for ever. Build once, then only
// read (thread-safe).
class TokenIndex {
 public:
  static constexpr TokenId kNone = UINT32_MAX;

  TokenIndex() : TokenIndex(0) {}
  // `tokens`: how many will be inserted.
  explicit TokenIndex(size_t tokens)
      : slots_(std::bit_ceil(std::max<size_t>(2 * tokens, 16)), Slot{0, kNone}) {}

  // Inserts `token` unless an equal text is there; returns the token that is there in the end.
  template <typename TextOf>
  TokenId Insert(TokenId token, const TextOf& text_of) {
    Slot& slot = slots_[Locate(text_of(token), text_of)];
    if (slot.token == kNone) slot = {Hash(text_of(token)), token};
    return slot.token;
  }

  // The token of exactly these bytes, or kNone.
  template <typename TextOf>
  TokenId Find(std::string_view text, const TextOf& text_of) const {
    return slots_[Locate(text, text_of)].token;
  }

 private:
  struct Slot {
    uint32_t hash;
    TokenId token;
  };

  static uint32_t Hash(std::string_view text) {
    return static_cast<uint32_t>(
        absl::Hash<absl::string_view>()(absl::string_view(text.data(), text.size())));
  }
  template <typename TextOf>
  size_t Locate(std::string_view text, const TextOf& text_of) const {
    const uint32_t hash = Hash(text);
    const size_t mask = slots_.size() - 1;
    for (size_t i = hash & mask;; i = (i + 1) & mask) {
      const Slot& slot = slots_[i];
      if (slot.token == kNone || (slot.hash == hash && text_of(slot.token) == text)) return i;
    }
  }

  std::vector<Slot> slots_;
};

}  // namespace reticle::tokenizer

#endif  // RETICLE_TOKENIZER_TOKEN_INDEX_H_
