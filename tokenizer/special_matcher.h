// Finds the literal texts of added tokens ("<|eot_id|>") in a text.
#ifndef RETICLE_TOKENIZER_SPECIAL_MATCHER_H_
#define RETICLE_TOKENIZER_SPECIAL_MATCHER_H_

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/ids.h"

namespace reticle::tokenizer {

// An Aho-Corasick automaton over the reversed patterns, run from the end of the text: at every
// place it knows the longest pattern that starts there. Time is linear in the text, whatever the
// patterns. Immutable after construction, so thread-safe.
class SpecialMatcher {
 public:
  struct Match {
    size_t begin;  // in bytes
    size_t size;
    TokenId token;
  };

  SpecialMatcher() : SpecialMatcher(std::vector<std::pair<std::string_view, TokenId>>()) {}
  // Patterns must not be empty; of equal ones the first counts. Keeps no view of them.
  explicit SpecialMatcher(const std::vector<std::pair<std::string_view, TokenId>>& patterns);

  // Replaces `matches` by the leftmost-longest matches, which do not overlap, in order.
  void Find(std::string_view text, std::vector<Match>& matches) const;

  bool empty() const { return nodes_.size() == 1; }

 private:
  struct Node {
    uint32_t failure = 0;  // the longest proper suffix that is a node
    uint32_t size = 0;     // bytes of the longest pattern that ends here; 0 for none
    TokenId token = 0;     // that pattern's token
  };
  uint32_t Child(uint32_t node, uint8_t byte) const;

  std::vector<Node> nodes_;  // 0 is the root
  uint32_t root_children_[256] = {};
  absl::flat_hash_map<uint64_t, uint32_t> children_;  // by node << 8 | byte, the root's left out
};

}  // namespace reticle::tokenizer

#endif  // RETICLE_TOKENIZER_SPECIAL_MATCHER_H_
