// The merging step that both BPE families share: pairs of adjacent symbols are joined in the order
// of their rank, leftmost first among equals, until no pair has a rule.
#ifndef RETICLE_TOKENIZER_BPE_MERGE_H_
#define RETICLE_TOKENIZER_BPE_MERGE_H_

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/hash/hash.h"

namespace reticle::tokenizer {

// An index of a token, or of a character that only tokens are made of.
using SymbolId = uint32_t;

// Merge rules by pair. Build once, then only read (thread-safe).
class MergeTable {
 public:
  static constexpr uint32_t kNoRank = UINT32_MAX;
  struct Rule {
    uint32_t rank;  // kNoRank: the pair does not merge
    SymbolId merged;
  };

  // `rules`: how many will be inserted.
  explicit MergeTable(size_t rules);

  // Adds a rule with rank < kNoRank. False, changing nothing, when the pair has one already.
  bool Insert(SymbolId left, SymbolId right, Rule rule);
  Rule Find(SymbolId left, SymbolId right) const {
    const uint64_t key = Key(left, right);
    for (size_t i = Slot(key);; i = (i + 1) & mask_) {
      if (slots_[i].key == key) return slots_[i].rule;
      if (slots_[i].key == kEmpty) return {kNoRank, 0};
    }
  }

 private:
  struct Entry {
    uint64_t key;
    Rule rule;
  };
  static constexpr uint64_t kEmpty = UINT64_MAX;
  static uint64_t Key(SymbolId left, SymbolId right) { return uint64_t{left} << 32 | right; }
  // Seeded per process, so that no file can be made to collide.
  size_t Slot(uint64_t key) const { return absl::Hash<uint64_t>()(key) & mask_; }

  size_t mask_;
  std::vector<Entry> slots_;  // open addressing, at most half full
};

// The last pair that offered each unused symbol, so that it can be taken apart again.
using SplitMap = absl::flat_hash_map<SymbolId, std::pair<SymbolId, SymbolId>>;

// Buffers that are reused from piece to piece, and a count of the work done. Not thread-safe.
class Merger {
 public:
  // `table` must outlive this.
  explicit Merger(const MergeTable& table) : table_(table) {}

  // Merges `symbols` in place. Time is n log n; memory 28 bytes a symbol.
  void Merge(std::vector<SymbolId>& symbols);
  // As Merge; `splits` receives the pair of every symbol above that is set in `unused`.
  void MergeTracked(std::vector<SymbolId>& symbols, const std::vector<bool>& unused,
                    SplitMap& splits);

  // Rule look-ups and queue operations since construction: what tests of linearity count.
  uint64_t operations() const { return operations_; }

 private:
  struct Node {
    SymbolId symbol;
    SymbolId merged;
    uint32_t rank;  // of the pair with the next node; kNoRank for none, and for absorbed nodes
    uint32_t previous;
    uint32_t next;
  };

  void MergeShort(std::vector<SymbolId>& symbols);
  template <typename OnRule>
  void MergeLong(std::vector<SymbolId>& symbols, const OnRule& on_rule);

  const MergeTable& table_;
  std::vector<Node> nodes_;
  std::vector<uint64_t> queue_;  // heap of rank << 32 | node, smallest first
  uint64_t operations_ = 0;
};

}  // namespace reticle::tokenizer

#endif  // RETICLE_TOKENIZER_BPE_MERGE_H_
