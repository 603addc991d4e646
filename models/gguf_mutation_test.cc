// Damaged files: whatever is done to a valid file, the reader answers with a Status or with a file
// that is safe to read. Run under the asan preset too; gguf_fuzz.cc searches further.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "models/gguf.h"
#include "models/gguf_exercise.h"

namespace reticle::models {
namespace {

using Bytes = std::vector<std::byte>;

// One to four random changes: bytes, numbers that matter, insertions, deletions, moves, truncation.
void Mutate(std::mt19937& random, Bytes& bytes) {
  const auto below = [&random](size_t limit) { return limit == 0 ? 0 : random() % limit; };
  const uint64_t interesting[] = {0,
                                  1,
                                  4,
                                  8,
                                  9,
                                  31,
                                  32,
                                  0x7f,
                                  0xff,
                                  0xffff,
                                  uint64_t{1} << 31,
                                  (uint64_t{1} << 32) - 1,
                                  uint64_t{1} << 32,
                                  uint64_t{1} << 61,
                                  (uint64_t{1} << 62) + 1,
                                  uint64_t{1} << 63,
                                  ~uint64_t{0},
                                  ~uint64_t{0} - 31};
  for (size_t changes = 1 + below(4); changes > 0; --changes) {
    const size_t at = below(bytes.size());
    switch (below(7)) {
      case 0:
        if (!bytes.empty()) bytes[at] ^= static_cast<std::byte>(1u << below(8));
        break;
      case 1:
        if (!bytes.empty()) bytes[at] = static_cast<std::byte>(random());
        break;
      case 2: {
        const uint64_t value = interesting[below(std::size(interesting))];
        const size_t width = below(2) == 0 ? 4 : 8;
        if (bytes.size() >= width) {
          std::memcpy(bytes.data() + below(bytes.size() - width + 1), &value, width);
        }
        break;
      }
      case 3:
        bytes.resize(at);
        break;
      case 4:
        bytes.insert(bytes.begin() + static_cast<ptrdiff_t>(at), 1 + below(16),
                     static_cast<std::byte>(random()));
        break;
      case 5: {
        const size_t end = std::min(bytes.size(), at + 1 + below(16));
        bytes.erase(bytes.begin() + static_cast<ptrdiff_t>(at),
                    bytes.begin() + static_cast<ptrdiff_t>(end));
        break;
      }
      default: {
        const size_t size = std::min(bytes.size() - at, below(64));
        const size_t to = below(bytes.size() - size + 1);
        std::memmove(bytes.data() + to, bytes.data() + at, size);
        break;
      }
    }
  }
}

void Attack(const Bytes& valid, uint32_t seed, int rounds) {
  ASSERT_TRUE(ExerciseGguf(valid));
  std::mt19937 random(seed);
  int accepted = 0;
  for (int i = 0; i < rounds; ++i) {
    Bytes bytes = valid;
    Mutate(random, bytes);
    // An exact allocation, so that a sanitizer sees the first byte beyond it.
    bytes.shrink_to_fit();
    accepted += ExerciseGguf(bytes) ? 1 : 0;
  }
  // Both outcomes must occur, or the mutations test nothing.
  EXPECT_GT(accepted, rounds / 100);
  EXPECT_LT(accepted, rounds - rounds / 100);
}

TEST(GgufMutationTest, DamagedModels) { Attack(SampleTinyLlama(), 1, 20000); }
TEST(GgufMutationTest, DamagedMetadata) { Attack(SampleOfEveryValueType(), 2, 40000); }

TEST(GgufMutationTest, EveryTruncationThatCutsATensorIsRefused) {
  for (const Bytes& valid : {SampleTinyLlama(), SampleOfEveryValueType()}) {
    const auto file = GgufFile::Parse(valid).value();
    size_t needed = 0;
    for (const GgufTensor& tensor : file->tensors()) {
      needed = std::max<size_t>(needed, tensor.file_offset + tensor.data.size());
    }
    for (size_t size = 0; size < valid.size(); ++size) {
      Bytes bytes(valid.begin(), valid.begin() + static_cast<ptrdiff_t>(size));
      bytes.shrink_to_fit();
      ASSERT_EQ(ExerciseGguf(bytes), size >= needed) << size;
    }
  }
}

}  // namespace
}  // namespace reticle::models
