#include "tokenizer/bpe_merge.h"

#include <algorithm>
#include <bit>
#include <functional>

#include "base/check.h"

namespace reticle::tokenizer {
namespace {

// Up to here a scan for the best pair beats the queue.
constexpr size_t kShort = 24;
constexpr uint32_t kEnd = UINT32_MAX;

}  // namespace

MergeTable::MergeTable(size_t rules) {
  const size_t slots = std::bit_ceil(std::max<size_t>(2 * rules, 16));
  mask_ = slots - 1;
  slots_.resize(slots, {kEmpty, {kNoRank, 0}});
}

bool MergeTable::Insert(SymbolId left, SymbolId right, Rule rule) {
  const uint64_t key = Key(left, right);
  size_t i = Slot(key);
  for (; slots_[i].key != kEmpty; i = (i + 1) & mask_) {
    if (slots_[i].key == key) return false;
  }
  slots_[i] = {key, rule};
  return true;
}

void Merger::Merge(std::vector<SymbolId>& symbols) {
  if (symbols.size() < 2) return;
  if (symbols.size() <= kShort) {
    MergeShort(symbols);
  } else {
    MergeLong(symbols, [](SymbolId, SymbolId, SymbolId) {});
  }
}

void Merger::MergeTracked(std::vector<SymbolId>& symbols, const std::vector<bool>& unused,
                          SplitMap& splits) {
  if (symbols.size() < 2) return;
  MergeLong(symbols, [&](SymbolId left, SymbolId right, SymbolId merged) {
    if (unused[merged]) splits[merged] = {left, right};
  });
}

void Merger::MergeShort(std::vector<SymbolId>& symbols) {
  MergeTable::Rule rules[kShort];
  size_t pairs = symbols.size() - 1;
  for (size_t i = 0; i < pairs; ++i) rules[i] = table_.Find(symbols[i], symbols[i + 1]);
  operations_ += pairs;
  while (pairs > 0) {
    size_t best = 0;
    for (size_t i = 1; i < pairs; ++i) {
      if (rules[i].rank < rules[best].rank) best = i;
    }
    if (rules[best].rank == MergeTable::kNoRank) break;
    symbols[best] = rules[best].merged;
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
    std::copy(rules + best + 1, rules + pairs, rules + best);
    --pairs;
    if (best < pairs) rules[best] = table_.Find(symbols[best], symbols[best + 1]);
    if (best > 0) rules[best - 1] = table_.Find(symbols[best - 1], symbols[best]);
    operations_ += 2;
  }
}

template <typename OnRule>
void Merger::MergeLong(std::vector<SymbolId>& symbols, const OnRule& on_rule) {
  RETICLE_CHECK(symbols.size() < kEnd);
  const auto count = static_cast<uint32_t>(symbols.size());
  nodes_.resize(count);
  queue_.clear();
  const auto offer = [&](uint32_t i) {
    Node& node = nodes_[i];
    node.rank = MergeTable::kNoRank;
    if (node.next == kEnd) return false;
    ++operations_;
    const SymbolId right = nodes_[node.next].symbol;
    const MergeTable::Rule rule = table_.Find(node.symbol, right);
    if (rule.rank == MergeTable::kNoRank) return false;
    node.rank = rule.rank;
    node.merged = rule.merged;
    on_rule(node.symbol, right, rule.merged);
    queue_.push_back(uint64_t{rule.rank} << 32 | i);
    return true;
  };
  for (uint32_t i = 0; i < count; ++i) {
    nodes_[i] = {symbols[i], 0, 0, i == 0 ? kEnd : i - 1, i + 1 == count ? kEnd : i + 1};
  }
  for (uint32_t i = 0; i < count; ++i) offer(i);
  std::make_heap(queue_.begin(), queue_.end(), std::greater<>());

  while (!queue_.empty()) {
    std::pop_heap(queue_.begin(), queue_.end(), std::greater<>());
    const uint64_t entry = queue_.back();
    queue_.pop_back();
    ++operations_;
    const auto i = static_cast<uint32_t>(entry);
    Node& node = nodes_[i];
    // A pair that changed since it was queued has another rank: ranks are those of one exact pair
    // or, where pairs share a rank, the changed pair was queued under the same entry.
    if (node.rank != entry >> 32) continue;
    Node& absorbed = nodes_[node.next];
    node.symbol = node.merged;
    node.next = absorbed.next;
    absorbed.rank = MergeTable::kNoRank;
    if (node.next != kEnd) nodes_[node.next].previous = i;
    if (offer(i)) std::push_heap(queue_.begin(), queue_.end(), std::greater<>());
    if (node.previous != kEnd && offer(node.previous)) {
      std::push_heap(queue_.begin(), queue_.end(), std::greater<>());
    }
  }

  size_t size = 0;
  for (uint32_t i = 0; i != kEnd; i = nodes_[i].next) symbols[size++] = nodes_[i].symbol;
  symbols.resize(size);
}

}  // namespace reticle::tokenizer
