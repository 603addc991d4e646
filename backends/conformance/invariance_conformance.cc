// Tokens are a function of the model, the tokens before, the parameters, the seed and the position
// alone.
#include <gtest/gtest.h>

#include <set>

#include "backends/conformance/bench.h"

namespace reticle::backends::conformance {
namespace {

class InvarianceConformance : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(bench_.ok()); }

  // A request with everything that the device offers and that could depend on what it must not.
  Request Rich(uint32_t length, uint32_t salt, uint32_t max_tokens) {
    Request request;
    request.prompt = MakePrompt(bench_.caps(), length, salt);
    request.max_tokens = max_tokens;
    request.params.seed = 1000 + salt;
    if (bench_.Has(RETICLE_FEATURE_TEMPERATURE)) {
      request.params.temperature = 1.1f;
      request.params.top_k = bench_.caps().max_top_k;
      if (bench_.Has(RETICLE_FEATURE_TOP_P)) request.params.top_p = 0.97f;
    }
    if (bench_.Has(RETICLE_FEATURE_PENALTIES)) {
      request.params.repetition_penalty = 1.2f;
      request.params.frequency_penalty = 0.7f;
      request.params.presence_penalty = 0.4f;
    }
    if (bench_.Has(RETICLE_FEATURE_LOGPROBS)) {
      request.params.logprobs = std::min(bench_.caps().max_logprobs, 3u);
    }
    return request;
  }

  static void ExpectSame(const Output& got, const Output& expected) {
    EXPECT_EQ(got.tokens, expected.tokens);
    ASSERT_EQ(got.scored.size(), expected.scored.size());
    for (size_t i = 0; i < got.scored.size(); ++i) {
      EXPECT_NEAR(got.scored[i].logprob, expected.scored[i].logprob, 1e-4);
      EXPECT_EQ(got.scored[i].rank, expected.scored[i].rank);
    }
  }

  Bench bench_;
};

TEST_F(InvarianceConformance, TheSameRequestGivesTheSameTokens) {
  const Request request = Rich(13, 1, 10);
  const Output first = bench_.Run(request);
  ASSERT_EQ(first.tokens.size(), 10u);
  ExpectSame(bench_.Run(request), first);
  Bench again;
  ASSERT_TRUE(again.ok());
  ExpectSame(again.Run(request), first);
}

TEST_F(InvarianceConformance, ChunksOfThePromptDoNotMatter) {
  const Output whole = bench_.Run(Rich(23, 2, 8));
  for (const uint32_t chunk : {1u, 2u, 7u, 16u, 22u}) {
    Request request = Rich(23, 2, 8);
    request.chunk = chunk;
    ExpectSame(bench_.Run(request), whole);
  }
}

TEST_F(InvarianceConformance, GrantsOfCreditsDoNotMatter) {
  const Output whole = bench_.Run(Rich(9, 3, 12));
  for (const uint32_t credits : {1u, 2u, 5u}) {
    for (const bool feed_itself : {true, false}) {
      Request request = Rich(9, 3, 12);
      request.credits = credits;
      request.feed_itself = feed_itself;
      ExpectSame(bench_.Run(request), whole);
    }
  }
}

TEST_F(InvarianceConformance, TheBatchDoesNotMatter) {
  const uint32_t count = std::min(bench_.caps().max_sequences, 8u);
  std::vector<Request> requests;
  std::vector<Output> alone;
  for (uint32_t i = 0; i < count; ++i) {
    requests.push_back(Rich(3 + 5 * i, 10 + i, 8));
    alone.push_back(bench_.Run(requests.back()));
  }
  const std::vector<Output> together = bench_.Run(requests);
  for (uint32_t i = 0; i < count; ++i) ExpectSame(together[i], alone[i]);
  std::vector<Request> backwards(requests.rbegin(), requests.rend());
  const std::vector<Output> reversed = bench_.Run(backwards);
  for (uint32_t i = 0; i < count; ++i) ExpectSame(reversed[count - 1 - i], alone[i]);
}

TEST_F(InvarianceConformance, AResumedSequenceGoesOnAsItWould) {
  const Request request = Rich(11, 4, 9);
  const Output whole = bench_.Run(request);
  ASSERT_EQ(whole.tokens.size(), 9u);
  for (const uint32_t done : {1u, 4u}) {
    Request resumed = request;
    resumed.params.prompt_tokens = 11;
    resumed.prompt.insert(resumed.prompt.end(), whole.tokens.begin(), whole.tokens.begin() + done);
    resumed.max_tokens = 9 - done;
    const Output rest = bench_.Run(resumed);
    EXPECT_EQ(rest.tokens, std::vector<uint32_t>(whole.tokens.begin() + done, whole.tokens.end()));
  }
}

TEST_F(InvarianceConformance, WhichBlocksHoldTheKvDoesNotMatter) {
  const Output first = bench_.Run(Rich(40, 5, 6));
  Request request = Rich(40, 5, 6);
  request.reverse_blocks = true;
  ExpectSame(bench_.Run(request), first);
}

TEST_F(InvarianceConformance, APrefixIsSharedOrRefused) {
  if (!bench_.IsPaged()) {
    const std::vector<uint32_t> prompt = MakePrompt(bench_.caps(), 4, 1);
    reticle_work work = bench_.Prefill(bench_.NewId(), prompt, {});
    work.position = 4;
    EXPECT_EQ(bench_.Submit(work), RETICLE_INVALID_ARGUMENT);
    const uint32_t block = 0;
    work.position = 0;
    work.kv_blocks = &block;
    work.kv_block_count = 1;
    EXPECT_EQ(bench_.Submit(work), RETICLE_INVALID_ARGUMENT);
    EXPECT_EQ(bench_.LiveByStats(), 0u);
    return;
  }
  const uint32_t block = bench_.caps().kv_block_tokens;
  Request owner = Rich(2 * block + 3, 6, 8);
  owner.params.logprobs = 0;
  Request branch = owner;
  branch.prompt[2 * block + 1] ^= 1;
  const Output expected_owner = bench_.Run(owner);
  const Output expected_branch = bench_.Run(branch);
  ASSERT_NE(expected_owner.tokens, expected_branch.tokens);

  // The owner is alive and decoding while two others read its blocks.
  const uint64_t owner_id = bench_.Start(owner);
  ASSERT_TRUE(bench_.PumpUntil([&] { return bench_.OutputOf(owner_id).prefills > 0; }));
  const std::vector<uint32_t>& blocks = bench_.BlocksOf(owner_id);
  for (Request* request : {&owner, &branch}) {
    request->prefix_blocks.assign(blocks.begin(), blocks.begin() + 2);
  }
  const std::vector<Output> shared = bench_.Run({owner, branch});
  EXPECT_EQ(shared[0].tokens, expected_owner.tokens);
  EXPECT_EQ(shared[1].tokens, expected_branch.tokens);
  ASSERT_TRUE(bench_.PumpUntil([&] { return bench_.IsSpent(owner_id); }));
  EXPECT_EQ(bench_.OutputOf(owner_id).tokens, expected_owner.tokens);
  bench_.Finish();
}

TEST_F(InvarianceConformance, TheTokensBeforeMatter) {
  std::set<std::vector<uint32_t>> seen;
  for (uint32_t salt = 0; salt < 6; ++salt) seen.insert(bench_.Run(Rich(12, salt, 12)).tokens);
  EXPECT_GE(seen.size(), 3u) << "six prompts and seeds gave almost the same output";
}

}  // namespace
}  // namespace reticle::backends::conformance
