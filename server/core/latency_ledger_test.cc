#include "server/core/latency_ledger.h"

#include <gtest/gtest.h>

#include <numeric>

#include "server/core/server_probe.h"

namespace reticle::server {
namespace {

class Sums : public ServerProbe {
 public:
  void OnTokensHandedOver(const AddedLatency& added) override {
    ++calls;
    tokens += added.tokens;
    total_ns += added.total_ns;
    for (size_t i = 0; i < kLatencyStages; ++i) stage_ns[i] += added.stage_ns[i];
    for (size_t i = 0; i < AddedLatency::kBuckets; ++i) buckets[i] += added.buckets[i];
  }
  int calls = 0;
  uint64_t tokens = 0;
  int64_t total_ns = 0;
  std::array<int64_t, kLatencyStages> stage_ns{};
  std::array<uint64_t, AddedLatency::kBuckets> buckets{};
};

TEST(AddedLatency, BucketsCoverEveryValueOnce) {
  size_t last = 0;
  for (int64_t ns = 0; ns < int64_t{1} << 36; ns = ns < 4096 ? ns + 1 : ns + ns / 97) {
    const size_t bucket = AddedLatency::Bucket(ns);
    ASSERT_GE(bucket, last);
    ASSERT_LE(bucket, last + 1);
    ASSERT_LT(bucket, AddedLatency::kBuckets);
    if (bucket + 1 < AddedLatency::kBuckets) {
      ASSERT_LT(ns, AddedLatency::UpperBound(bucket));
    }
    if (bucket > 0) {
      ASSERT_GE(ns, AddedLatency::UpperBound(bucket - 1));
    }
    last = bucket;
  }
  EXPECT_EQ(last, AddedLatency::kBuckets - 1);
}

TEST(LatencyLedger, StagesAddUpToTheWhole) {
  Sums sums;
  LatencyLedger ledger;
  // On the device at 100 and 160, polled at 200, told at 250, taken at 300, framed at 340, handed
  // over at 400.
  ledger.OnTaken(100, 200, 250, 300);
  ledger.OnTaken(160, 200, 250, 300);
  ledger.OnFramed(340);
  ledger.OnHandedOver(400, sums);
  ledger.Flush(sums);
  EXPECT_EQ(sums.tokens, 2u);
  EXPECT_EQ(sums.total_ns, 300 + 240);
  EXPECT_EQ(sums.stage_ns[0], 100 + 40);
  EXPECT_EQ(sums.stage_ns[1], 2 * 50);
  EXPECT_EQ(sums.stage_ns[2], 2 * 50);
  EXPECT_EQ(sums.stage_ns[3], 2 * 40);
  EXPECT_EQ(sums.stage_ns[4], 2 * 60);
  EXPECT_EQ(sums.buckets[0], 2u);
}

TEST(LatencyLedger, ATokenThatNobodyWasToldOfWaitedForTheThread) {
  Sums sums;
  LatencyLedger ledger;
  ledger.OnTaken(100, 200, /*woken_ns=*/0, 300);
  ledger.OnTaken(100, 200, /*woken_ns=*/9000, 300);  // the wake-up was of later tokens
  ledger.OnHandedOver(300, sums);
  ledger.Flush(sums);
  EXPECT_EQ(sums.stage_ns[1], 0 + 100);
  EXPECT_EQ(sums.stage_ns[2], 100 + 0);
  EXPECT_EQ(std::accumulate(sums.stage_ns.begin(), sums.stage_ns.end(), int64_t{0}), sums.total_ns);
}

TEST(LatencyLedger, WhatIsNotHandedOverIsNotCounted) {
  Sums sums;
  {
    LatencyLedger ledger;
    ledger.OnTaken(0, 1, 1, 2);
    ledger.OnFramed(3);
    ledger.Flush(sums);
  }
  EXPECT_EQ(sums.calls, 0);
}

TEST(LatencyLedger, AClientFarBehindIsCountedToo) {
  Sums sums;
  LatencyLedger ledger;
  constexpr int64_t kTokens = 50'000;
  for (int64_t i = 0; i < kTokens; ++i) ledger.OnTaken(i, i, i, i);
  ledger.OnFramed(kTokens);
  ledger.OnHandedOver(2 * kTokens, sums);
  ledger.Flush(sums);
  EXPECT_EQ(sums.tokens, static_cast<uint64_t>(kTokens));
  EXPECT_EQ(sums.total_ns, 2 * kTokens * kTokens - kTokens * (kTokens - 1) / 2);
  EXPECT_EQ(std::accumulate(sums.stage_ns.begin(), sums.stage_ns.end(), int64_t{0}), sums.total_ns);
  EXPECT_EQ(std::accumulate(sums.buckets.begin(), sums.buckets.end(), uint64_t{0}), sums.tokens);
}

TEST(LatencyLedger, TellsInBulk) {
  Sums sums;
  LatencyLedger ledger;
  constexpr int kTokens = 100'000;
  for (int i = 0; i < kTokens; ++i) {
    const int64_t now = 1'000'000'000 + i * 100;
    ledger.OnTaken(now, now, now, now);
    ledger.OnFramed(now);
    ledger.OnHandedOver(now, sums);
  }
  ledger.Flush(sums);
  EXPECT_EQ(sums.tokens, static_cast<uint64_t>(kTokens));
  EXPECT_LE(sums.calls, kTokens / 1000);
}

}  // namespace
}  // namespace reticle::server
