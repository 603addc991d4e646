// Logits of the CPU backend against the float64 reference of llama_reference.py, on every
// instruction set that this machine has.
#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "backends/kernels/aligned_memory.h"
#include "backends/kernels/forward.h"
#include "backends/kernels/kernels.h"
#include "backends/kernels/kv_cache.h"
#include "backends/kernels/model.h"
#include "backends/kernels/targets.h"
#include "backends/kernels/thread_pool.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/gguf.h"
#include "tests/golden/golden_model.h"

namespace reticle::golden {
namespace {

using backends::kernels::BatchToken;
using backends::kernels::Forward;
using backends::kernels::KvGeometry;
using backends::kernels::KvType;
using backends::kernels::Model;
using backends::kernels::ScopedTarget;
using backends::kernels::SupportedTargets;
using backends::kernels::Target;
using backends::kernels::ThreadPool;

// Logits behind the expected positions, in their order.
std::vector<std::vector<float>> Compute(const GoldenCase& c, KvType kv_type, uint32_t chunk,
                                        int threads) {
  const std::vector<std::byte> bytes = c.Gguf();
  auto file = models::GgufFile::Parse(bytes);
  EXPECT_TRUE(file.ok()) << file.status();
  ThreadPool pool(threads);
  auto model = Model::Load(**file, pool);
  EXPECT_TRUE(model.ok()) << model.status();
  const KvGeometry kv{.type = kv_type,
                      .layers = c.layers,
                      .kv_heads = c.kv_heads,
                      .head_dim = c.head_dim,
                      .block_tokens = 32};
  // Blocks in reverse order: a table that is read wrongly does not pass.
  std::vector<uint32_t> blocks((c.tokens + 31) / 32);
  std::iota(blocks.rbegin(), blocks.rend(), 0u);
  auto memory = backends::kernels::AlignedMemory::Allocate(blocks.size() * kv.block_bytes());
  EXPECT_TRUE(memory.ok());
  auto forward = Forward::Create(**model, pool, kv, memory->data(),
                                 {.max_tokens = chunk, .max_logit_rows = std::min(chunk, 8u)});
  EXPECT_TRUE(forward.ok());

  const std::vector<uint32_t> prompt = c.Prompt();
  std::vector<std::vector<float>> results;
  for (uint32_t start = 0; start < c.tokens; start += chunk) {
    const uint32_t count = std::min(chunk, c.tokens - start);
    std::vector<BatchToken> batch;
    size_t rows = 0;
    for (uint32_t i = start; i < start + count; ++i) {
      const bool wanted = std::any_of(c.expected.begin(), c.expected.end(),
                                      [i](const ExpectedLogits& e) { return e.position == i; });
      batch.push_back({prompt[i], i, blocks.data(), wanted});
      rows += wanted ? 1 : 0;
    }
    (*forward)->Run(batch);
    for (size_t row = 0; row < rows; ++row) {
      const auto logits = (*forward)->logits(row);
      results.emplace_back(logits.begin(), logits.end());
    }
  }
  return results;
}

double RelativeError(const std::vector<float>& actual, const std::vector<float>& expected) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double d = double{actual[i]} - double{expected[i]};
    difference += d * d;
    norm += double{expected[i]} * double{expected[i]};
  }
  return std::sqrt(difference / norm);
}

double WorstError(const GoldenCase& c, const std::vector<std::vector<float>>& logits) {
  EXPECT_EQ(logits.size(), c.expected.size());
  double worst = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    EXPECT_EQ(logits[i].size(), c.expected[i].values.size());
    worst = std::max(worst, RelativeError(logits[i], c.expected[i].values));
  }
  return worst;
}

double Limit(const GoldenCase& c, KvType kv) {
  if (kv == KvType::kQ8_0) return 1e-2;
  switch (c.type) {
    case models::TensorType::kF32:
      // F16 KV rounds keys and values to 11 bits.
      return kv == KvType::kF32 ? 1e-4 : 1e-3;
    case models::TensorType::kF16:
    case models::TensorType::kBF16:
      return 2e-3;
    default:
      return 1e-2;
  }
}

const std::vector<GoldenCase>& Cases() {
  static const auto* cases = new std::vector<GoldenCase>(ReadGoldenCases());
  return *cases;
}

TEST(GoldenTest, LogitsAgreeWithTheReferenceOnEveryTarget) {
  ASSERT_EQ(Cases().size(), 23u);
  for (const Target& target : SupportedTargets()) {
    const ScopedTarget scoped(target);
    for (const GoldenCase& c : Cases()) {
      if (c.tokens > 1000) continue;
      for (const KvType kv : {KvType::kF32, KvType::kF16, KvType::kQ8_0}) {
        if (kv == KvType::kQ8_0 && c.head_dim % 32 != 0) continue;
        const double error = WorstError(c, Compute(c, kv, 16, 1));
        EXPECT_LT(error, Limit(c, kv)) << backends::kernels::KernelTarget() << " " << c.name;
      }
    }
  }
}

TEST(GoldenTest, LogitsAgreeBeyondPosition8192) {
  size_t tested = 0;
  for (const GoldenCase& c : Cases()) {
    if (c.tokens < 8192) continue;
    for (const KvType kv : {KvType::kF16, KvType::kQ8_0}) {
      const double error = WorstError(c, Compute(c, kv, 512, 2));
      EXPECT_LT(error, Limit(c, kv)) << c.name;
      ++tested;
    }
  }
  EXPECT_EQ(tested, 4u);
}

TEST(GoldenTest, BatchesChunksAndThreadsChangeNoBit) {
  for (const Target& target : SupportedTargets()) {
    const ScopedTarget scoped(target);
    for (const GoldenCase& c : Cases()) {
      if (c.tokens > 1000) continue;
      const auto one = Compute(c, KvType::kF16, 1, 1);
      for (const uint32_t chunk : {7u, 64u}) {
        EXPECT_EQ(Compute(c, KvType::kF16, chunk, 1), one) << c.name << " " << chunk;
      }
      EXPECT_EQ(Compute(c, KvType::kF16, 16, 2), one) << c.name;
    }
  }
}

// What kernels.h promises: with fused multiply-add, the vector width does not matter either.
TEST(GoldenTest, TargetsWithFusedMultiplyAddAgreeBitForBit) {
  for (const GoldenCase& c : Cases()) {
    if (c.tokens > 1000) continue;
    std::vector<std::vector<float>> first;
    for (const Target& target : SupportedTargets()) {
      if (!target.fused) continue;
      const ScopedTarget scoped(target);
      const auto logits = Compute(c, KvType::kQ8_0, 16, 1);
      if (first.empty()) first = logits;
      EXPECT_EQ(logits, first) << c.name << " " << backends::kernels::KernelTarget();
    }
  }
}

}  // namespace
}  // namespace reticle::golden
