// KV memory of one device as the engine sees it, in units: blocks of a host-paged device, single
// positions of a device that owns its memory.
#ifndef RETICLE_SCHEDULER_KV_MEMORY_H_
#define RETICLE_SCHEDULER_KV_MEMORY_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>

#include "backends/abi/reticle_device.h"
#include "base/check.h"
#include "scheduler/block_pool.h"

namespace reticle::scheduler {

class KvMemory;

// What one sequence holds. Move-only; gives it back when it is destroyed.
class KvLease {
 public:
  KvLease() = default;
  KvLease(KvLease&& other) noexcept { *this = std::move(other); }
  inline KvLease& operator=(KvLease&& other) noexcept;
  ~KvLease() { Release(); }

  inline uint32_t units() const;
  // Host-paged devices only; else empty.
  BlockTable& table() { return table_; }
  const BlockTable& table() const { return table_; }
  inline void Release();

 private:
  friend class KvMemory;
  KvMemory* memory_ = nullptr;
  BlockTable table_;
  uint32_t counted_ = 0;
};

// Thread-safety: engine thread only.
class KvMemory {
 public:
  explicit KvMemory(const reticle_capabilities& capabilities) {
    if (capabilities.kv_mode == RETICLE_KV_HOST_PAGED) {
      pool_ = std::make_unique<BlockPool>(
          BlockPool::Options{.block_count = capabilities.kv_block_count,
                             .block_tokens = capabilities.kv_block_tokens});
    } else {
      counted_total_ =
          static_cast<uint32_t>(std::min<uint64_t>(capabilities.kv_token_capacity, UINT32_MAX));
    }
  }

  // Null for a device that owns its memory.
  BlockPool* pool() const { return pool_.get(); }
  uint32_t unit_tokens() const { return pool_ ? pool_->block_tokens() : 1; }
  uint32_t total() const { return pool_ ? pool_->total() : counted_total_; }
  uint32_t free() const { return pool_ ? pool_->available() : counted_total_ - counted_used_; }
  uint32_t used() const { return total() - free(); }

  // Holds nothing yet; blocks will be named after `root`.
  KvLease NewLease(const Hash128& root) {
    KvLease lease;
    lease.memory_ = this;
    if (pool_) lease.table_ = pool_->NewTable(root);
    return lease;
  }
  // All or nothing.
  bool Extend(KvLease* lease, uint32_t units) {
    if (pool_) return pool_->Extend(&lease->table_, units);
    if (units > free()) return false;
    counted_used_ += units;
    lease->counted_ += units;
    return true;
  }
  void CheckInvariants() const {
    if (pool_) pool_->CheckInvariants();
    RETICLE_CHECK(counted_used_ <= counted_total_);
  }

 private:
  friend class KvLease;
  std::unique_ptr<BlockPool> pool_;
  uint32_t counted_total_ = 0;
  uint32_t counted_used_ = 0;
};

KvLease& KvLease::operator=(KvLease&& other) noexcept {
  if (this == &other) return *this;
  Release();
  memory_ = std::exchange(other.memory_, nullptr);
  table_ = std::move(other.table_);
  counted_ = std::exchange(other.counted_, 0);
  return *this;
}

uint32_t KvLease::units() const { return table_.size() + counted_; }

void KvLease::Release() {
  table_.Clear();
  if (memory_ != nullptr) memory_->counted_used_ -= counted_;
  counted_ = 0;
  memory_ = nullptr;
}

}  // namespace reticle::scheduler

#endif  // RETICLE_SCHEDULER_KV_MEMORY_H_
