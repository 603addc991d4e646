#include "scheduler/block_pool.h"

#include <algorithm>
#include <bit>
#include <random>

#include "base/check.h"

namespace reticle::scheduler {
namespace {

// SipHash-2-4 with 128 bits of output (Aumasson and Bernstein, 2012), fed with 64-bit words.
class SipHash {
 public:
  explicit SipHash(const Hash128& key)
      : v0_(key.lo ^ 0x736f6d6570736575ull),
        v1_(key.hi ^ 0x646f72616e646f6dull ^ 0xee),
        v2_(key.lo ^ 0x6c7967656e657261ull),
        v3_(key.hi ^ 0x7465646279746573ull) {}

  void Add(uint64_t word) {
    v3_ ^= word;
    Round();
    Round();
    v0_ ^= word;
    ++words_;
  }

  Hash128 Finish() {
    Add((words_ * 8) << 56);
    v2_ ^= 0xee;
    for (int i = 0; i < 4; ++i) Round();
    const uint64_t lo = v0_ ^ v1_ ^ v2_ ^ v3_;
    v1_ ^= 0xdd;
    for (int i = 0; i < 4; ++i) Round();
    return {lo, v0_ ^ v1_ ^ v2_ ^ v3_};
  }

 private:
  void Round() {
    v0_ += v1_;
    v2_ += v3_;
    v1_ = std::rotl(v1_, 13) ^ v0_;
    v3_ = std::rotl(v3_, 16) ^ v2_;
    v0_ = std::rotl(v0_, 32);
    v2_ += v1_;
    v0_ += v3_;
    v1_ = std::rotl(v1_, 17) ^ v2_;
    v3_ = std::rotl(v3_, 21) ^ v0_;
    v2_ = std::rotl(v2_, 32);
  }

  uint64_t v0_, v1_, v2_, v3_;
  uint64_t words_ = 0;
};

Hash128 DrawKey() {
  std::random_device device;
  const auto draw = [&device] { return (uint64_t{device()} << 32) | device(); };
  return {draw(), draw()};
}

}  // namespace

BlockTable& BlockTable::operator=(BlockTable&& other) noexcept {
  if (this == &other) return *this;
  Clear();
  pool_ = std::exchange(other.pool_, nullptr);
  blocks_ = std::move(other.blocks_);
  other.blocks_.clear();
  named_ = std::exchange(other.named_, 0);
  tail_ = other.tail_;
  epoch_ = other.epoch_;
  return *this;
}

void BlockTable::Clear() {
  for (size_t i = blocks_.size(); i > 0; --i) pool_->Release(blocks_[i - 1]);
  blocks_.clear();
  named_ = 0;
  pool_ = nullptr;
}

BlockPool::BlockPool(const Options& options)
    : block_tokens_(options.block_tokens),
      key_(options.key == Hash128() ? DrawKey() : options.key),
      blocks_(options.block_count) {
  RETICLE_CHECK(options.block_count > 0 && options.block_tokens > 0);
  free_.reserve(options.block_count);
  for (uint32_t id = options.block_count; id > 0; --id) free_.push_back(id - 1);
  by_name_.reserve(options.block_count);
  const uint64_t slots = std::max(std::bit_ceil(uint64_t{options.block_count} * 4), kHintWays);
  hint_mask_ = slots - 1;
  hints_ = std::make_unique<std::atomic<uint64_t>[]>(slots);
}

BlockPool::~BlockPool() { RETICLE_CHECK(referenced() == 0); }

Hash128 BlockPool::Root(uint64_t adapter, uint64_t salt) const {
  SipHash hash(key_);
  hash.Add(adapter);
  hash.Add(salt);
  return hash.Finish();
}

Hash128 BlockPool::Chain(const Hash128& parent, std::span<const TokenId> tokens) const {
  SipHash hash(key_);
  hash.Add(parent.lo);
  hash.Add(parent.hi);
  size_t i = 0;
  for (; i + 1 < tokens.size(); i += 2) hash.Add(tokens[i] | (uint64_t{tokens[i + 1]} << 32));
  if (i < tokens.size()) hash.Add(tokens[i]);
  return hash.Finish();
}

void BlockPool::NamePrefix(const Hash128& root, std::span<const TokenId> tokens,
                           uint32_t max_blocks, std::vector<Hash128>* names) const {
  const size_t full = std::min<size_t>(tokens.size() / block_tokens_, max_blocks);
  names->reserve(full);
  for (size_t b = names->size(); b < full; ++b) {
    const Hash128& parent = b == 0 ? root : names->back();
    names->push_back(Chain(parent, tokens.subspan(b * block_tokens_, block_tokens_)));
  }
}

BlockTable BlockPool::NewTable(const Hash128& root) {
  BlockTable table;
  table.pool_ = this;
  table.tail_ = root;
  table.epoch_ = epoch_;
  return table;
}

BlockPool::Match BlockPool::Find(std::span<const Hash128> names) const {
  Match match;
  for (const Hash128& name : names) {
    const auto found = by_name_.find(name);
    if (found == by_name_.end()) break;
    ++match.blocks;
    if (blocks_[found->second].references == 0) ++match.unreferenced;
  }
  return match;
}

uint32_t BlockPool::Acquire(std::span<const Hash128> names, BlockTable* table) {
  RETICLE_CHECK(table->pool_ == this && table->blocks_.empty() && table->epoch_ == epoch_);
  for (const Hash128& name : names) {
    const auto found = by_name_.find(name);
    if (found == by_name_.end()) break;
    const uint32_t id = found->second;
    if (blocks_[id].references++ == 0) Unlink(id);
    table->blocks_.push_back(id);
    table->tail_ = name;
    ++table->named_;
  }
  return table->named_;
}

bool BlockPool::Extend(BlockTable* table, uint32_t count) {
  RETICLE_CHECK(table->pool_ == this);
  if (count > available()) return false;
  for (uint32_t i = 0; i < count; ++i) table->blocks_.push_back(Take());
  return true;
}

void BlockPool::Publish(BlockTable* table, std::span<const TokenId> tokens, uint32_t valid_tokens) {
  if (table->epoch_ != epoch_) return;
  RETICLE_CHECK(table->pool_ == this && valid_tokens <= tokens.size());
  const uint32_t full = valid_tokens / block_tokens_;
  RETICLE_CHECK(full <= table->size());
  while (table->named_ < full) {
    const uint32_t id = table->blocks_[table->named_];
    table->tail_ =
        Chain(table->tail_, tokens.subspan(size_t{table->named_} * block_tokens_, block_tokens_));
    ++table->named_;
    if (by_name_.try_emplace(table->tail_, id).second) {
      blocks_[id].name = table->tail_;
      blocks_[id].named = true;
      ReplaceHint(table->tail_, 0, table->tail_.lo);
    }
  }
}

void BlockPool::ForgetAll() {
  ++epoch_;
  for (uint32_t id = 0; id < total(); ++id) {
    if (!blocks_[id].named) continue;
    Unname(id);
    if (blocks_[id].references == 0) {
      Unlink(id);
      free_.push_back(id);
    }
  }
}

uint32_t BlockPool::MatchHint(const Hash128& root, std::span<const TokenId> tokens) const {
  Hash128 name = root;
  uint32_t matched = 0;
  while (matched + block_tokens_ <= tokens.size()) {
    name = Chain(name, tokens.subspan(matched, block_tokens_));
    if (!HasHint(name)) break;
    matched += block_tokens_;
  }
  return matched;
}

void BlockPool::Release(uint32_t id) {
  Block& block = blocks_[id];
  RETICLE_CHECK(block.references > 0);
  if (--block.references > 0) return;
  if (!block.named) {
    free_.push_back(id);
    return;
  }
  block.older = newest_;
  block.newer = kNone;
  (newest_ == kNone ? oldest_ : blocks_[newest_].newer) = id;
  newest_ = id;
  ++cached_;
}

uint32_t BlockPool::Take() {
  uint32_t id;
  if (!free_.empty()) {
    id = free_.back();
    free_.pop_back();
  } else {
    id = oldest_;
    Unlink(id);
    Unname(id);
  }
  blocks_[id].references = 1;
  return id;
}

void BlockPool::Unlink(uint32_t id) {
  Block& block = blocks_[id];
  (block.older == kNone ? oldest_ : blocks_[block.older].newer) = block.newer;
  (block.newer == kNone ? newest_ : blocks_[block.newer].older) = block.older;
  block.older = block.newer = kNone;
  --cached_;
}

void BlockPool::Unname(uint32_t id) {
  Block& block = blocks_[id];
  by_name_.erase(block.name);
  block.named = false;
  ReplaceHint(block.name, block.name.lo, 0);
}

void BlockPool::ReplaceHint(const Hash128& name, uint64_t from, uint64_t to) {
  std::atomic<uint64_t>* const set = HintSet(name);
  for (uint64_t way = 0; way < kHintWays; ++way) {
    if (set[way].load(std::memory_order_relaxed) == from) {
      set[way].store(to, std::memory_order_relaxed);
      return;
    }
  }
}

bool BlockPool::HasHint(const Hash128& name) const {
  const std::atomic<uint64_t>* const set = HintSet(name);
  for (uint64_t way = 0; way < kHintWays; ++way) {
    if (set[way].load(std::memory_order_relaxed) == name.lo) return true;
  }
  return false;
}

void BlockPool::CheckInvariants() const {
  std::vector<uint8_t> seen(total(), 0);
  for (uint32_t id : free_) {
    RETICLE_CHECK(seen[id]++ == 0);
    RETICLE_CHECK(blocks_[id].references == 0 && !blocks_[id].named);
  }
  uint32_t listed = 0;
  uint32_t previous = kNone;
  for (uint32_t id = oldest_; id != kNone; id = blocks_[id].newer) {
    RETICLE_CHECK(seen[id]++ == 0);
    RETICLE_CHECK(blocks_[id].references == 0 && blocks_[id].named);
    RETICLE_CHECK(blocks_[id].older == previous);
    previous = id;
    ++listed;
  }
  RETICLE_CHECK(previous == newest_ && listed == cached_);
  size_t named = 0;
  for (uint32_t id = 0; id < total(); ++id) {
    const Block& block = blocks_[id];
    RETICLE_CHECK((block.references == 0) == (seen[id] == 1));
    if (!block.named) continue;
    ++named;
    const auto found = by_name_.find(block.name);
    RETICLE_CHECK(found != by_name_.end() && found->second == id);
  }
  RETICLE_CHECK(named == by_name_.size());
}

}  // namespace reticle::scheduler
