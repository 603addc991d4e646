// Strong types for the identifiers that cross layers, so that one cannot be passed for another.
#ifndef RETICLE_BASE_IDS_H_
#define RETICLE_BASE_IDS_H_

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>

namespace reticle {

// An integer with a name. Comparable and hashable; arithmetic needs value().
template <typename Tag, typename Int>
class StrongId {
 public:
  using ValueType = Int;
  constexpr StrongId() = default;
  constexpr explicit StrongId(Int value) : value_(value) {}
  constexpr Int value() const { return value_; }
  friend constexpr auto operator<=>(StrongId, StrongId) = default;
  template <typename H>
  friend H AbslHashValue(H state, StrongId id) {
    return H::combine(std::move(state), id.value_);
  }

 private:
  Int value_ = 0;
};

// One sequence (one choice of one request) on its way through the scheduler and a device. Never
// reused.
using SequenceId = StrongId<struct SequenceIdTag, uint64_t>;
// An index into one device's pool of KV blocks.
using BlockId = StrongId<struct BlockIdTag, uint32_t>;

// An index into the vocabulary. Plain, because token arrays cross the C device ABI as uint32_t[].
using TokenId = uint32_t;

}  // namespace reticle

template <typename Tag, typename Int>
struct std::hash<reticle::StrongId<Tag, Int>> {
  size_t operator()(reticle::StrongId<Tag, Int> id) const { return std::hash<Int>()(id.value()); }
};

#endif  // RETICLE_BASE_IDS_H_
