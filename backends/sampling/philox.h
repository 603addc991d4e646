// The counter-based generator behind every draw: Philox4x32-10 of Salmon, Moraes, Dror and Shaw,
// "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011. It has no state, so the number for one
// position of one seed does not depend on what was drawn before.
#ifndef RETICLE_BACKENDS_SAMPLING_PHILOX_H_
#define RETICLE_BACKENDS_SAMPLING_PHILOX_H_

#include <array>
#include <cstdint>

namespace reticle::backends::sampling {

// The multipliers and key increments are those of section 3.3 and table 2 of the paper.
constexpr std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter,
                                             std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(product0)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

// Uniform in [0, 1) with 53 bits, for the token at `position` under `seed`.
constexpr double UniformAt(uint64_t seed, uint32_t position) {
  const auto words = Philox4x32({position, 0, 0, 0},
                                {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  const uint64_t bits = (uint64_t{words[0]} << 32 | words[1]) >> 11;
  return static_cast<double>(bits) * 0x1p-53;
}

}  // namespace reticle::backends::sampling

#endif  // RETICLE_BACKENDS_SAMPLING_PHILOX_H_
