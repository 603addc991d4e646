// Attention for constant sizes gives the bits of the generic one, on every instruction set.
#include "backends/kernels/attention.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "backends/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/hardwired/etched/attention_test.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// Highway's headers come after foreach_target.h.
#include "backends/hardwired/etched/attention-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace reticle::backends::hardwired::HWY_NAMESPACE {

// The groups and heads of the shapes that decode.cc has kernels for.
void AttendTarget(size_t group, const kernels::KvGeometry& kv, const std::byte* pool,
                  const uint32_t* blocks, size_t position, const float* q, float* out,
                  float* scratch) {
  if (group == 2) return AttendGroup<2, 64>(kv, pool, blocks, 1, 1, position, q, out, scratch);
  if (group == 3) return AttendGroup<3, 128>(kv, pool, blocks, 1, 1, position, q, out, scratch);
  if (kv.head_dim == 64) {
    return AttendGroup<4, 64>(kv, pool, blocks, 1, 1, position, q, out, scratch);
  }
  AttendGroup<4, 128>(kv, pool, blocks, 1, 1, position, q, out, scratch);
}

}  // namespace reticle::backends::hardwired::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace reticle::backends::hardwired {
namespace {

HWY_EXPORT(AttendTarget);

constexpr size_t kPositions = 2128;

struct Heads {
  size_t group;
  size_t dim;
};

class AttentionTest : public testing::TestWithParam<Heads> {};

TEST_P(AttentionTest, GivesTheBitsOfTheGenericOne) {
  const auto [group, dim] = GetParam();
  const kernels::KvGeometry kv{.type = kernels::KvType::kF16,
                               .layers = 2,
                               .kv_heads = 2,
                               .head_dim = dim,
                               .block_tokens = kPositions};
  std::mt19937 random(dim + group);
  std::uniform_real_distribution<float> normal(-2.0f, 2.0f);
  const auto fill = [&](std::vector<float>& values) {
    for (float& value : values) value = normal(random);
  };
  const uint32_t block = 1;
  std::vector<std::byte> pool(2 * kv.block_bytes());
  std::vector<float> key(dim), value(dim);
  for (size_t position = 0; position < kPositions; ++position) {
    fill(key);
    fill(value);
    kernels::WriteKv(kv, pool.data(), &block, 1, 1, position, key.data(), value.data());
  }
  std::vector<float> q(group * dim), want(group * dim), got(group * dim);
  std::vector<float> scratch(kernels::AttentionScratchFloats(kv, group));
  for (const kernels::Target& target : kernels::SupportedTargets()) {
    const kernels::ScopedTarget scoped(target);
    for (const size_t position : {0, 1, 15, 16, 47, 63, 64, 127, 130, 207, 2047, 2048, 2127}) {
      fill(q);
      kernels::AttendTokens(kv, pool.data(), &block, 1, 1, position, 1, q.data(), 0, group,
                            want.data(), 0, scratch.data());
      HWY_DYNAMIC_DISPATCH(AttendTarget)
      (group, kv, pool.data(), &block, position, q.data(), got.data(), scratch.data());
      ASSERT_EQ(got, want) << "target " << target.highway << " position " << position;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, AttentionTest,
                         testing::Values(Heads{2, 64}, Heads{3, 128}, Heads{4, 64}, Heads{4, 128}));

}  // namespace
}  // namespace reticle::backends::hardwired

#endif  // HWY_ONCE
