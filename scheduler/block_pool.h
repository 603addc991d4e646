// The pool of KV blocks of one host-paged device: reference counts, and a prefix cache of full
// blocks under hash-chained names.
//
// A block is in exactly one of three states:
//   referenced  by one or more BlockTables (live sequences);
//   cached      by no table, but its content has a name: the next prompt that begins so takes it;
//               the least recently used one is evicted when a block is needed;
//   free        neither.
// The name of a full block is a keyed 128-bit hash (SipHash-2-4) of its parent's name and its
// tokens, so it stands for the whole prefix, and whoever does not know the process's key cannot
// make two prefixes collide. Blocks are named (published) as they fill, also while their sequence
// still runs; a named block is never written again.
//
// Thread-safety: engine thread only, but for MatchHint.
#ifndef RETICLE_SCHEDULER_BLOCK_POOL_H_
#define RETICLE_SCHEDULER_BLOCK_POOL_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/ids.h"

namespace reticle::scheduler {

struct Hash128 {
  uint64_t lo = 0;
  uint64_t hi = 0;
  friend bool operator==(const Hash128&, const Hash128&) = default;
  template <typename H>
  friend H AbslHashValue(H state, const Hash128& hash) {
    return H::combine(std::move(state), hash.lo);
  }
};

class BlockPool;

// The blocks of one sequence in order of position. Move-only; gives its references back when it is
// destroyed, the last block first, so that the tail of a prefix is evicted before its beginning.
// The pool must outlive it.
class BlockTable {
 public:
  BlockTable() = default;
  BlockTable(BlockTable&& other) noexcept { *this = std::move(other); }
  BlockTable& operator=(BlockTable&& other) noexcept;
  ~BlockTable() { Clear(); }

  uint32_t size() const { return static_cast<uint32_t>(blocks_.size()); }
  // As the device ABI wants it: block_ids()[p / block_tokens] holds position p.
  std::span<const uint32_t> block_ids() const { return blocks_; }
  void Clear();

 private:
  friend class BlockPool;
  BlockPool* pool_ = nullptr;
  std::vector<uint32_t> blocks_;
  uint32_t named_ = 0;  // leading blocks whose name is known
  Hash128 tail_;        // the name of block named_ - 1, or the root
  uint64_t epoch_ = 0;
};

class BlockPool {
 public:
  struct Options {
    uint32_t block_count = 0;   // at least 1
    uint32_t block_tokens = 0;  // at least 1
    // The key of the hash: {0, 0} draws one from the system.
    Hash128 key = {};
  };
  struct Match {
    uint32_t blocks = 0;
    uint32_t unreferenced = 0;  // of these, counted in available() until they are taken
  };

  explicit BlockPool(const Options& options);
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;
  ~BlockPool();

  uint32_t total() const { return static_cast<uint32_t>(blocks_.size()); }
  uint32_t block_tokens() const { return block_tokens_; }
  // Blocks that Extend can hand out: free ones and cached ones.
  uint32_t available() const { return static_cast<uint32_t>(free_.size()) + cached_; }
  uint32_t referenced() const { return total() - available(); }
  uint32_t cached() const { return cached_; }

  // The name of the empty prefix. Sequences share blocks only under the same adapter and salt.
  Hash128 Root(uint64_t adapter, uint64_t salt) const;
  // Appends the names of the full blocks of `tokens` to `names`, going on after those that are
  // there, up to `max_blocks` names in all.
  void NamePrefix(const Hash128& root, std::span<const TokenId> tokens, uint32_t max_blocks,
                  std::vector<Hash128>* names) const;

  // An empty table whose blocks will be named after `root`.
  BlockTable NewTable(const Hash128& root);
  // The leading `names` that have a block.
  Match Find(std::span<const Hash128> names) const;
  // References the leading `names` that have a block; returns how many. `table` must be empty.
  uint32_t Acquire(std::span<const Hash128> names, BlockTable* table);
  // Appends `count` blocks of unspecified content, or none and returns false.
  bool Extend(BlockTable* table, uint32_t count);
  // Tells that the device has written the positions below `valid_tokens` with `tokens` (those of
  // the sequence from position 0): names the blocks that are now full. A block whose name another
  // block has already stays private.
  void Publish(BlockTable* table, std::span<const TokenId> tokens, uint32_t valid_tokens);
  // Forgets all names, as the content is lost (device reset). Tables made before never publish
  // again.
  void ForgetAll();

  // Any thread: about how many tokens of `tokens` have named blocks. Sees changes late, and now and
  // then misses a block.
  uint32_t MatchHint(const Hash128& root, std::span<const TokenId> tokens) const;

  // Aborts if the pool's books do not agree with each other.
  void CheckInvariants() const;

 private:
  friend class BlockTable;
  static constexpr uint32_t kNone = UINT32_MAX;
  static constexpr uint64_t kHintWays = 8;
  struct Block {
    Hash128 name;
    uint32_t references = 0;
    uint32_t older = kNone;  // neighbours in the list of cached blocks
    uint32_t newer = kNone;
    bool named = false;
  };

  Hash128 Chain(const Hash128& parent, std::span<const TokenId> tokens) const;
  void Release(uint32_t id);
  uint32_t Take();
  void Unlink(uint32_t id);
  void Unname(uint32_t id);
  std::atomic<uint64_t>* HintSet(const Hash128& name) const {
    return &hints_[name.hi & hint_mask_ & ~(kHintWays - 1)];
  }
  void ReplaceHint(const Hash128& name, uint64_t from, uint64_t to);
  bool HasHint(const Hash128& name) const;

  const uint32_t block_tokens_;
  Hash128 key_;
  std::vector<Block> blocks_;
  std::vector<uint32_t> free_;
  uint32_t oldest_ = kNone;
  uint32_t newest_ = kNone;
  uint32_t cached_ = 0;
  uint64_t epoch_ = 1;
  absl::flat_hash_map<Hash128, uint32_t> by_name_;
  uint64_t hint_mask_ = 0;
  // What MatchHint reads: sets of kHintWays entries, each the name.lo of a named block or 0. A full
  // set drops a name (with a quarter of the entries in use: 2 names in 10,000).
  std::unique_ptr<std::atomic<uint64_t>[]> hints_;
};

}  // namespace reticle::scheduler

#endif  // RETICLE_SCHEDULER_BLOCK_POOL_H_
