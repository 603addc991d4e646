// Attention on every instruction set: against plain double arithmetic, and the same bits however it
// is cut into calls.
#include "backends/kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "backends/kernels/aligned_memory.h"
#include "backends/kernels/kernels.h"
#include "backends/kernels/targets.h"
#include "gtest/gtest.h"

namespace reticle::backends::kernels {
namespace {

constexpr size_t kHeads = 2;
constexpr size_t kLayer = 1;

// Keys, values and queries of one sequence, stored; blocks lie out of order.
struct Sequence {
  Sequence(KvType type, size_t head_dim, size_t group, size_t positions)
      : kv{.type = type, .layers = 2, .kv_heads = kHeads, .head_dim = head_dim, .block_tokens = 32},
        group(group),
        positions(positions),
        keys(positions * kHeads * head_dim),
        values(keys.size()),
        queries(positions * kHeads * group * head_dim) {
    std::mt19937 random(static_cast<uint32_t>(head_dim + positions));
    std::uniform_real_distribution<float> value(-2.0f, 2.0f);
    for (std::vector<float>* part : {&keys, &values, &queries}) {
      for (float& x : *part) x = value(random);
    }
    const uint32_t count = static_cast<uint32_t>((positions + 31) / 32);
    for (uint32_t b = 0; b < count; ++b) blocks.push_back(count - 1 - b);
    kv.run_end = count / kRunBlocks * kRunBlocks;
    memory = *AlignedMemory::Allocate(count * kv.block_bytes());
    // What was never written must not matter.
    std::memset(memory.data(), 0xff, count * kv.block_bytes());
    for (size_t p = 0; p < positions; ++p) {
      for (size_t h = 0; h < kHeads; ++h) {
        const size_t at = (p * kHeads + h) * head_dim;
        WriteKv(kv, memory.data(), blocks.data(), kLayer, h, p, &keys[at], &values[at]);
      }
    }
    scratch.resize(AttentionScratchFloats(kv, 16 * group));
  }

  size_t width() const { return group * kv.head_dim; }
  const float* q(size_t position, size_t head) const {
    return &queries[(position * kHeads + head) * width()];
  }

  // [tokens][group][head_dim]
  std::vector<float> Attend(size_t first, size_t tokens, size_t head) {
    std::vector<float> out(tokens * width());
    AttendTokens(kv, memory.data(), blocks.data(), kLayer, head, first, tokens, q(first, head),
                 kHeads * width(), group, out.data(), width(), scratch.data());
    return out;
  }

  std::vector<double> Expected(size_t position, size_t head, size_t g) const {
    const size_t dim = kv.head_dim;
    const float* query = q(position, head) + g * dim;
    std::vector<double> scores;
    for (size_t p = 0; p <= position; ++p) {
      double sum = 0;
      for (size_t d = 0; d < dim; ++d)
        sum += double{query[d]} * keys[(p * kHeads + head) * dim + d];
      scores.push_back(sum / std::sqrt(static_cast<double>(dim)));
    }
    const double max = *std::max_element(scores.begin(), scores.end());
    std::vector<double> out(dim);
    double total = 0;
    for (size_t p = 0; p <= position; ++p) {
      const double weight = std::exp(scores[p] - max);
      total += weight;
      for (size_t d = 0; d < dim; ++d) out[d] += weight * values[(p * kHeads + head) * dim + d];
    }
    for (double& x : out) x /= total;
    return out;
  }

  KvGeometry kv;
  size_t group;
  size_t positions;
  std::vector<float> keys, values, queries;
  std::vector<uint32_t> blocks;
  AlignedMemory memory;
  std::vector<float> scratch;
};

double Tolerance(KvType type) {
  return type == KvType::kF32 ? 1e-5 : type == KvType::kF16 ? 3e-3 : 4e-2;
}

void CheckValues(KvType type, size_t head_dim, size_t group, size_t position) {
  Sequence sequence(type, head_dim, group, position + 1);
  for (size_t head = 0; head < kHeads; ++head) {
    const std::vector<float> out = sequence.Attend(position, 1, head);
    for (size_t g = 0; g < group; ++g) {
      const std::vector<double> want = sequence.Expected(position, head, g);
      for (size_t d = 0; d < head_dim; ++d) {
        ASSERT_NEAR(out[g * head_dim + d], want[d], Tolerance(type))
            << KernelTarget() << " type " << static_cast<int>(type) << " position " << position;
      }
    }
  }
}

TEST(AttentionTest, IsSoftmaxOfScores) {
  for (const Target& target : SupportedTargets()) {
    const ScopedTarget scoped(target);
    for (const KvType type : {KvType::kF32, KvType::kF16}) {
      CheckValues(type, 48, 3, 0);
      CheckValues(type, 22, 1, 100);
      CheckValues(type, 64, 13, 63);
      CheckValues(type, 40, 4, 2111);
    }
    CheckValues(KvType::kQ8_0, 64, 4, 15);
    CheckValues(KvType::kQ8_0, 96, 7, 200);
    CheckValues(KvType::kQ8_0, 32, 2, 2100);
  }
}

TEST(AttentionTest, TokensTogetherAreTokensAlone) {
  for (const KvType type : {KvType::kF32, KvType::kF16, KvType::kQ8_0}) {
    for (const size_t group : {1u, 4u}) {
      Sequence sequence(type, 32, group, 2060);
      for (const Target& target : SupportedTargets()) {
        const ScopedTarget scoped(target);
        const auto check = [&](size_t first, size_t tokens) {
          const std::vector<float> together = sequence.Attend(first, tokens, 1);
          for (size_t t = 0; t < tokens; ++t) {
            const std::vector<float> alone = sequence.Attend(first + t, 1, 1);
            ASSERT_EQ(std::memcmp(alone.data(), &together[t * sequence.width()],
                                  alone.size() * sizeof(float)),
                      0)
                << KernelTarget() << " type " << static_cast<int>(type) << " " << first << "+" << t;
          }
        };
        for (const size_t first : {0u, 7u, 60u}) {
          for (const size_t tokens : {2u, 5u, 16u}) check(first, tokens);
        }
        check(2045, 6);
      }
    }
  }
}

TEST(AttentionTest, PartsByWhomeverMakeTheWhole) {
  constexpr size_t kPosition = 2 * kAttentionPart + 70;
  for (const KvType type : {KvType::kF16, KvType::kQ8_0}) {
    Sequence sequence(type, 32, 2, kPosition + 1);
    ASSERT_EQ(AttentionParts(kPosition), 3u);
    for (const Target& target : SupportedTargets()) {
      const ScopedTarget scoped(target);
      const size_t floats = AttentionPartFloats(sequence.kv, 2);
      std::vector<float> parts(3 * floats);
      for (const size_t part : {2u, 0u, 1u}) {
        AttendPart(sequence.kv, sequence.memory.data(), sequence.blocks.data(), kLayer, 0,
                   kPosition, part, sequence.q(kPosition, 0), 2, &parts[part * floats],
                   sequence.scratch.data());
      }
      std::vector<float> merged(sequence.width());
      FinishParts(sequence.kv, 3, 2, parts.data(), merged.data());
      EXPECT_EQ(merged, sequence.Attend(kPosition, 1, 0)) << KernelTarget();
    }
  }
}

TEST(KvGeometryTest, EveryTileHasItsPlaceAndRunsKeepHeadsTogether) {
  KvGeometry kv{
      .type = KvType::kQ8_0, .layers = 3, .kv_heads = 2, .head_dim = 64, .block_tokens = 32};
  constexpr uint32_t kBlocks = 2 * kRunBlocks + 5;
  for (const size_t run_end : {size_t{0}, size_t{kRunBlocks}, size_t{2 * kRunBlocks}}) {
    kv.run_end = run_end;
    std::vector<size_t> offsets;
    for (uint32_t block = 0; block < kBlocks; ++block) {
      for (size_t layer = 0; layer < kv.layers; ++layer) {
        for (size_t head = 0; head < kv.kv_heads; ++head) {
          for (const size_t position : {0u, 16u}) {
            offsets.push_back(kv.TileOffset(&block, layer, head, position));
          }
          if (block % kRunBlocks == 0) continue;
          const size_t before = kv.FirstTileOffset(block - 1, layer, head);
          EXPECT_EQ(kv.FirstTileOffset(block, layer, head) - before,
                    block < run_end ? 2 * kv.tile_bytes() : kv.block_bytes());
        }
      }
    }
    std::sort(offsets.begin(), offsets.end());
    for (size_t i = 0; i < offsets.size(); ++i) ASSERT_EQ(offsets[i], i * kv.tile_bytes());
  }
}

}  // namespace
}  // namespace reticle::backends::kernels
