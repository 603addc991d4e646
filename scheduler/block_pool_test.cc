#include "scheduler/block_pool.h"

#include <algorithm>
#include <deque>
#include <map>
#include <random>
#include <set>

#include "gtest/gtest.h"

namespace reticle::scheduler {
namespace {

constexpr Hash128 kKey = {0x0706050403020100ull, 0x0f0e0d0c0b0a0908ull};

std::vector<Hash128> Names(const BlockPool& pool, const std::vector<TokenId>& tokens,
                           uint64_t adapter = 0, uint64_t salt = 0) {
  std::vector<Hash128> names;
  pool.NamePrefix(pool.Root(adapter, salt), tokens, UINT32_MAX, &names);
  return names;
}

// A table of `tokens`, whose full blocks are published.
BlockTable Filled(BlockPool& pool, const std::vector<TokenId>& tokens) {
  BlockTable table = pool.NewTable(pool.Root(0, 0));
  const uint32_t hits = pool.Acquire(Names(pool, tokens), &table);
  const uint32_t blocks =
      static_cast<uint32_t>((tokens.size() + pool.block_tokens() - 1) / pool.block_tokens());
  EXPECT_TRUE(pool.Extend(&table, blocks - hits));
  pool.Publish(&table, tokens, static_cast<uint32_t>(tokens.size()));
  return table;
}

// `openssl mac -macopt hexkey:000102030405060708090a0b0c0d0e0f -macopt size:16 SIPHASH` over the
// bytes 00 01 .. 0f gives the expected value.
TEST(BlockPoolTest, NamesAreSipHash) {
  BlockPool pool({.block_count = 1, .block_tokens = 1, .key = kKey});
  const Hash128 root = pool.Root(kKey.lo, kKey.hi);
  EXPECT_EQ(root.lo, 0xbb54b067caa4e26eull);
  EXPECT_EQ(root.hi, 0x77052385bf1533fdull);
}

TEST(BlockPoolTest, KeysDrawnFromTheSystemDiffer) {
  BlockPool a({.block_count = 1, .block_tokens = 1});
  BlockPool b({.block_count = 1, .block_tokens = 1});
  EXPECT_FALSE(a.Root(0, 0) == b.Root(0, 0));
}

TEST(BlockPoolTest, ExtendIsAllOrNothing) {
  BlockPool pool({.block_count = 4, .block_tokens = 2, .key = kKey});
  BlockTable table = pool.NewTable(pool.Root(0, 0));
  EXPECT_TRUE(pool.Extend(&table, 3));
  EXPECT_FALSE(pool.Extend(&table, 2));
  EXPECT_EQ(table.size(), 3u);
  EXPECT_TRUE(pool.Extend(&table, 1));
  EXPECT_EQ(pool.available(), 0u);
  table.Clear();
  EXPECT_EQ(pool.available(), 4u);
  pool.CheckInvariants();
}

TEST(BlockPoolTest, SharesFullBlocksBetweenLiveTables) {
  BlockPool pool({.block_count = 8, .block_tokens = 2, .key = kKey});
  BlockTable first = Filled(pool, {1, 2, 3, 4, 5});
  BlockTable second = pool.NewTable(pool.Root(0, 0));
  EXPECT_EQ(pool.Acquire(Names(pool, {1, 2, 3, 4, 9}), &second), 2u);
  EXPECT_EQ(second.block_ids()[0], first.block_ids()[0]);
  EXPECT_EQ(second.block_ids()[1], first.block_ids()[1]);
  EXPECT_EQ(pool.referenced(), 3u);
  first.Clear();
  EXPECT_EQ(pool.referenced(), 2u);
  EXPECT_EQ(pool.cached(), 0u);
  pool.CheckInvariants();
}

TEST(BlockPoolTest, PublishesAsBlocksFill) {
  BlockPool pool({.block_count = 8, .block_tokens = 2, .key = kKey});
  const std::vector<TokenId> tokens = {1, 2, 3, 4, 5, 6};
  BlockTable table = pool.NewTable(pool.Root(0, 0));
  ASSERT_TRUE(pool.Extend(&table, 3));
  EXPECT_EQ(pool.Find(Names(pool, tokens)).blocks, 0u);
  pool.Publish(&table, tokens, 3);
  EXPECT_EQ(pool.Find(Names(pool, tokens)).blocks, 1u);
  pool.Publish(&table, tokens, 6);
  EXPECT_EQ(pool.Find(Names(pool, tokens)).blocks, 3u);
  EXPECT_EQ(pool.MatchHint(pool.Root(0, 0), tokens), 6u);
}

TEST(BlockPoolTest, AdapterAndSaltKeepPrefixesApart) {
  BlockPool pool({.block_count = 8, .block_tokens = 2, .key = kKey});
  BlockTable table = Filled(pool, {1, 2, 3, 4});
  EXPECT_EQ(pool.Find(Names(pool, {1, 2, 3, 4}, 0, 0)).blocks, 2u);
  EXPECT_EQ(pool.Find(Names(pool, {1, 2, 3, 4}, 7, 0)).blocks, 0u);
  EXPECT_EQ(pool.Find(Names(pool, {1, 2, 3, 4}, 0, 7)).blocks, 0u);
}

TEST(BlockPoolTest, EvictsTheLeastRecentlyUsedAndTailsFirst) {
  BlockPool pool({.block_count = 4, .block_tokens = 1, .key = kKey});
  Filled(pool, {1, 2}).Clear();
  Filled(pool, {3, 4}).Clear();
  EXPECT_EQ(pool.cached(), 4u);
  Filled(pool, {1}).Clear();  // uses 1 again: the order of eviction is 2, 4, 3, 1
  BlockTable table = pool.NewTable(pool.Root(0, 0));
  ASSERT_TRUE(pool.Extend(&table, 1));
  EXPECT_EQ(pool.Find(Names(pool, {1, 2})).blocks, 1u);
  EXPECT_EQ(pool.Find(Names(pool, {3, 4})).blocks, 2u);
  ASSERT_TRUE(pool.Extend(&table, 1));
  EXPECT_EQ(pool.Find(Names(pool, {3, 4})).blocks, 1u);
  EXPECT_EQ(pool.MatchHint(pool.Root(0, 0), std::vector<TokenId>{3, 4}), 1u);
  ASSERT_TRUE(pool.Extend(&table, 2));
  EXPECT_EQ(pool.cached(), 0u);
  pool.CheckInvariants();
}

TEST(BlockPoolTest, ForgetAllFreesCachedBlocksAndSilencesOldTables) {
  BlockPool pool({.block_count = 4, .block_tokens = 1, .key = kKey});
  Filled(pool, {7}).Clear();
  BlockTable table = Filled(pool, {1, 2});
  pool.ForgetAll();
  pool.CheckInvariants();
  EXPECT_EQ(pool.cached(), 0u);
  EXPECT_EQ(pool.Find(Names(pool, {1, 2})).blocks, 0u);
  ASSERT_TRUE(pool.Extend(&table, 1));
  pool.Publish(&table, std::vector<TokenId>{1, 2, 3}, 3);
  EXPECT_EQ(pool.Find(Names(pool, {1, 2, 3})).blocks, 0u);
  table.Clear();
  EXPECT_EQ(pool.available(), 4u);
  pool.CheckInvariants();
}

TEST(BlockPoolTest, MovedTableReturnsItsBlocksOnce) {
  BlockPool pool({.block_count = 4, .block_tokens = 1, .key = kKey});
  BlockTable a = pool.NewTable(pool.Root(0, 0));
  ASSERT_TRUE(pool.Extend(&a, 3));
  BlockTable b = std::move(a);
  BlockTable c = pool.NewTable(pool.Root(0, 0));
  ASSERT_TRUE(pool.Extend(&c, 1));
  c = std::move(b);
  EXPECT_EQ(pool.available(), 1u);
  c.Clear();
  EXPECT_EQ(pool.available(), 4u);
}

// The pool as one would write it without a thought for speed: content by its whole prefix.
class NaivePool {
 public:
  NaivePool(uint32_t blocks, uint32_t block_tokens) : block_tokens_(block_tokens) {
    for (uint32_t id = 0; id < blocks; ++id) free_.insert(id);
  }
  size_t available() const { return free_.size() + lru_.size(); }
  const std::deque<uint32_t>& lru() const { return lru_; }

  size_t FindBlocks(const std::vector<TokenId>& tokens) const {
    size_t blocks = 0;
    while ((blocks + 1) * block_tokens_ <= tokens.size() &&
           by_content_.count(Prefix(tokens, blocks + 1)) > 0) {
      ++blocks;
    }
    return blocks;
  }
  uint32_t BlockAt(const std::vector<TokenId>& tokens, size_t index) const {
    return by_content_.at(Prefix(tokens, index + 1));
  }
  void Reference(uint32_t id) {
    if (references_[id]++ == 0) lru_.erase(std::find(lru_.begin(), lru_.end(), id));
  }
  // The pool took `id` for a new block.
  void Took(uint32_t id) {
    if (!free_.empty()) {
      ASSERT_EQ(free_.erase(id), 1u);
    } else {
      ASSERT_EQ(lru_.front(), id);
      lru_.pop_front();
      Forget(id);
    }
    references_[id] = 1;
  }
  void Publish(uint32_t id, const std::vector<TokenId>& tokens, size_t index) {
    const std::vector<TokenId> content = Prefix(tokens, index + 1);
    if (by_content_.emplace(content, id).second) content_[id] = content;
  }
  void Release(uint32_t id) {
    if (--references_[id] > 0) return;
    if (content_.count(id) > 0) {
      lru_.push_back(id);
    } else {
      free_.insert(id);
    }
  }
  void ForgetAll() {
    by_content_.clear();
    content_.clear();
    free_.insert(lru_.begin(), lru_.end());
    lru_.clear();
  }

 private:
  std::vector<TokenId> Prefix(const std::vector<TokenId>& tokens, size_t blocks) const {
    return {tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(blocks * block_tokens_)};
  }
  void Forget(uint32_t id) {
    by_content_.erase(content_.at(id));
    content_.erase(id);
  }

  const size_t block_tokens_;
  std::set<uint32_t> free_;
  std::deque<uint32_t> lru_;
  std::map<uint32_t, uint32_t> references_;
  std::map<uint32_t, std::vector<TokenId>> content_;
  std::map<std::vector<TokenId>, uint32_t> by_content_;
};

TEST(BlockPoolTest, AMillionRandomOperationsAgreeWithTheNaivePool) {
  constexpr uint32_t kBlocks = 24;
  constexpr uint32_t kBlockTokens = 2;
  struct Sequence {
    std::vector<TokenId> tokens;
    BlockTable table;
    uint32_t published = 0;
    bool stale = false;
  };
  BlockPool pool({.block_count = kBlocks, .block_tokens = kBlockTokens, .key = kKey});
  NaivePool naive(kBlocks, kBlockTokens);
  std::vector<Sequence> live;
  std::mt19937 random(20240611);
  const auto draw = [&random](uint32_t n) { return static_cast<uint32_t>(random() % n); };
  uint64_t hits = 0;
  uint64_t hinted = 0;
  uint64_t refusals = 0;

  for (int operation = 0; operation < 1'000'000; ++operation) {
    const uint32_t kind = draw(100);
    if (kind < 30 && live.size() < 10) {
      Sequence made;
      for (uint32_t n = 1 + draw(9); n > 0; --n) made.tokens.push_back(draw(2));
      made.table = pool.NewTable(pool.Root(0, 0));
      const size_t expected = naive.FindBlocks(made.tokens);
      const std::vector<Hash128> names = Names(pool, made.tokens);
      ASSERT_EQ(pool.Find(names).blocks, expected);
      ASSERT_EQ(pool.Acquire(names, &made.table), expected);
      const uint32_t hint = pool.MatchHint(pool.Root(0, 0), made.tokens);
      ASSERT_LE(hint, expected * kBlockTokens);
      hinted += hint / kBlockTokens;
      for (size_t i = 0; i < expected; ++i) {
        ASSERT_EQ(made.table.block_ids()[i], naive.BlockAt(made.tokens, i));
        naive.Reference(made.table.block_ids()[i]);
      }
      made.published = static_cast<uint32_t>(expected);
      hits += expected;
      live.push_back(std::move(made));
    } else if (kind < 55 && !live.empty()) {
      Sequence& sequence = live[draw(static_cast<uint32_t>(live.size()))];
      const uint32_t count = 1 + draw(3);
      const uint32_t before = sequence.table.size();
      const bool fits = naive.available() >= count;
      ASSERT_EQ(pool.Extend(&sequence.table, count), fits);
      refusals += fits ? 0 : 1;
      for (uint32_t i = before; i < sequence.table.size(); ++i) {
        naive.Took(sequence.table.block_ids()[i]);
        if (HasFatalFailure()) return;
      }
      while (sequence.tokens.size() < sequence.table.size() * kBlockTokens) {
        sequence.tokens.push_back(draw(2));
      }
    } else if (kind < 80 && !live.empty()) {
      Sequence& sequence = live[draw(static_cast<uint32_t>(live.size()))];
      const uint32_t limit = std::min<uint32_t>(sequence.table.size() * kBlockTokens,
                                                static_cast<uint32_t>(sequence.tokens.size()));
      const uint32_t valid = draw(limit + 1);
      pool.Publish(&sequence.table, sequence.tokens, valid);
      for (; !sequence.stale && sequence.published < valid / kBlockTokens; ++sequence.published) {
        naive.Publish(sequence.table.block_ids()[sequence.published], sequence.tokens,
                      sequence.published);
      }
    } else if (kind < 99 && !live.empty()) {
      const size_t index = draw(static_cast<uint32_t>(live.size()));
      const std::span<const uint32_t> ids = live[index].table.block_ids();
      for (size_t i = ids.size(); i > 0; --i) naive.Release(ids[i - 1]);
      live[index] = std::move(live.back());
      live.pop_back();
    } else if (draw(200) == 0) {
      pool.ForgetAll();
      naive.ForgetAll();
      for (Sequence& sequence : live) sequence.stale = true;
    }
    ASSERT_EQ(pool.available(), naive.available());
    ASSERT_EQ(pool.cached(), naive.lru().size());
    if (operation % 64 == 0) pool.CheckInvariants();
  }
  EXPECT_GT(hits, 100'000u);
  EXPECT_GT(hinted, hits - hits / 100);
  EXPECT_GT(refusals, 10'000u);
}

}  // namespace
}  // namespace reticle::scheduler
