#include "scheduler/request.h"

namespace reticle::scheduler {

uint64_t ChoiceSeed(uint64_t seed, uint32_t index) {
  if (index == 0) return seed;
  // SplitMix64 (Steele, Lea and Flood, 2014).
  uint64_t z = seed + index * 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

}  // namespace reticle::scheduler
