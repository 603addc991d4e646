// Low-rank adapters: life, and that each sequence is computed with its own and no other's.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "backends/conformance/bench.h"

namespace reticle::backends::conformance {
namespace {

int32_t Load(Bench& bench, uint64_t id, int which) {
  std::string path = TheSubject().adapter_paths[which];
  if (path.empty()) path = "adapter " + std::to_string(which);
  return bench.api().adapter_load(bench.device(), id, path.c_str(), 1.0f, nullptr);
}

Request WithAdapter(const Bench& bench, uint64_t adapter, uint32_t salt) {
  Request request;
  request.prompt = MakePrompt(bench.caps(), 9 + salt, salt);
  request.max_tokens = 12;
  request.adapter = adapter;
  return request;
}

TEST(AdapterConformance, LoadingKeepsTheRules) {
  Bench bench;
  ASSERT_TRUE(bench.ok());
  const reticle_device_api& api = bench.api();
  if (!bench.Has(RETICLE_FEATURE_ADAPTERS)) {
    EXPECT_EQ(Load(bench, 1, 0), RETICLE_UNIMPLEMENTED);
    return;
  }
  ASSERT_EQ(Load(bench, 7, 0), RETICLE_OK) << "give two files with --adapter";
  EXPECT_EQ(Load(bench, 7, 1), RETICLE_ALREADY_EXISTS);
  EXPECT_EQ(api.adapter_load(bench.device(), 8, "", 1, nullptr) == RETICLE_OK, false);
  for (uint32_t i = 1; i < bench.caps().max_adapters; ++i) {
    ASSERT_EQ(Load(bench, 100 + i, 1), RETICLE_OK);
  }
  EXPECT_EQ(Load(bench, 9, 0), RETICLE_RESOURCE_EXHAUSTED);
  EXPECT_EQ(api.adapter_unload(bench.device(), 7, nullptr), RETICLE_OK);
  EXPECT_EQ(api.adapter_unload(bench.device(), 7, nullptr), RETICLE_NOT_FOUND);
  EXPECT_EQ(Load(bench, 7, 0), RETICLE_OK);
}

TEST(AdapterConformance, WhatASequenceUsesStaysLoaded) {
  Bench bench;
  ASSERT_TRUE(bench.ok());
  const reticle_device_api& api = bench.api();
  if (!bench.Has(RETICLE_FEATURE_ADAPTERS)) {
    EXPECT_EQ(api.adapter_unload(bench.device(), 1, nullptr), RETICLE_UNIMPLEMENTED);
    return;
  }
  ASSERT_EQ(Load(bench, 1, 0), RETICLE_OK);
  const uint64_t sequence = bench.Start(WithAdapter(bench, 1, 1));
  ASSERT_TRUE(bench.PumpUntil([&] { return bench.IsSpent(sequence); }));
  EXPECT_EQ(api.adapter_unload(bench.device(), 1, nullptr), RETICLE_FAILED_PRECONDITION);
  bench.Finish();
  EXPECT_EQ(api.adapter_unload(bench.device(), 1, nullptr), RETICLE_OK);
}

TEST(AdapterConformance, EachSequenceIsComputedWithItsOwn) {
  Bench bench;
  ASSERT_TRUE(bench.ok());
  const std::vector<uint32_t> before = bench.Run(WithAdapter(bench, 0, 2)).tokens;
  if (!bench.Has(RETICLE_FEATURE_ADAPTERS)) {
    EXPECT_EQ(Load(bench, 1, 0), RETICLE_UNIMPLEMENTED);
    return;
  }
  ASSERT_EQ(Load(bench, 1, 0), RETICLE_OK);
  ASSERT_EQ(Load(bench, 2, 1), RETICLE_OK);
  std::vector<Request> requests;
  std::vector<std::vector<uint32_t>> alone;
  for (const uint64_t adapter : {0, 1, 2, 1, 0, 2}) {
    if (requests.size() == bench.caps().max_sequences) break;
    requests.push_back(WithAdapter(bench, adapter, 2));
    alone.push_back(bench.Run(requests.back()).tokens);
  }
  EXPECT_EQ(alone[0], before);
  // A device that plays a text back takes adapters and says the same.
  if (alone.size() > 2 && !TheSubject().adapter_paths[0].empty()) {
    EXPECT_NE(alone[1], alone[0]);
    EXPECT_NE(alone[2], alone[0]);
    EXPECT_NE(alone[2], alone[1]);
  }
  const std::vector<Output> together = bench.Run(requests);
  for (size_t i = 0; i < requests.size(); ++i) EXPECT_EQ(together[i].tokens, alone[i]) << i;
}

}  // namespace
}  // namespace reticle::backends::conformance
