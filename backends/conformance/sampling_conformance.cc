// Sampling parameters are honoured, in the order of the ABI, or refused by name.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "backends/conformance/bench.h"

namespace reticle::backends::conformance {
namespace {

constexpr float kHuge = 1e4f;

class SamplingConformance : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(bench_.ok()); }

  Request Greedy(uint32_t max_tokens, uint32_t salt = 1) {
    Request request;
    request.prompt = MakePrompt(bench_.caps(), 9, salt);
    request.max_tokens = max_tokens;
    return request;
  }

  Request Random(uint64_t seed, uint32_t max_tokens) {
    Request request = Greedy(max_tokens);
    request.params.temperature = 1;
    request.params.top_k = bench_.caps().max_top_k;
    request.params.seed = seed;
    return request;
  }

  // True when the device offers it; else checks that `request` is refused as it should be.
  bool OffersOrRefuses(uint64_t feature, Request request) {
    if (bench_.Has(feature)) return true;
    const std::vector<uint32_t> blocks = bench_.TakeBlocks(request.prompt.size() + 1);
    reticle_work work = bench_.Prefill(bench_.NewId(), request.prompt, blocks);
    request.params.stop_ids = request.stop_ids.data();
    request.params.stop_id_count = static_cast<uint32_t>(request.stop_ids.size());
    request.params.logit_bias = request.logit_bias.data();
    request.params.logit_bias_count = static_cast<uint32_t>(request.logit_bias.size());
    request.params.history = request.prompt.data();
    request.params.history_count = static_cast<uint32_t>(request.prompt.size());
    work.sampling = &request.params;
    work.decode_credits = 1;
    if (!request.masks.empty()) work.token_mask = request.masks[0].data();
    if (request.prompt_logprobs.has_value()) work.flags = RETICLE_WORK_PROMPT_LOGPROBS;
    EXPECT_EQ(bench_.Submit(work), RETICLE_UNIMPLEMENTED) << bench_.last_message();
    EXPECT_EQ(bench_.LiveByStats(), 0u);
    bench_.ReleaseBlocks(blocks);
    return false;
  }

  std::vector<uint32_t> MaskOf(const std::vector<uint32_t>& tokens, bool allowed) {
    std::vector<uint32_t> mask((bench_.caps().vocab_size + 31) / 32, allowed ? 0 : ~0u);
    for (const uint32_t token : tokens) mask[token / 32] ^= 1u << (token % 32);
    return mask;
  }

  Bench bench_;
};

TEST_F(SamplingConformance, GreedyDoesNotDependOnTheSeed) {
  Request request = Greedy(10);
  const Output first = bench_.Run(request);
  request.params.seed = ~0ull;
  EXPECT_EQ(bench_.Run(request).tokens, first.tokens);
}

TEST_F(SamplingConformance, SeedsGiveTheirOwnTokens) {
  if (!OffersOrRefuses(RETICLE_FEATURE_TEMPERATURE, Random(1, 1))) return;
  std::set<std::vector<uint32_t>> seen;
  for (uint64_t seed = 0; seed < 6; ++seed) {
    Request request = Random(seed << 40, 16);
    request.params.temperature = 1.5f;
    const Output output = bench_.Run(request);
    EXPECT_EQ(bench_.Run(request).tokens, output.tokens);
    seen.insert(output.tokens);
  }
  EXPECT_GE(seen.size(), 2u) << "the seed has no effect";
}

// Draws of one position with many seeds: the share of the likeliest token, and that of the listed
// ones together, against the probabilities that the device reports for them.
TEST_F(SamplingConformance, FirstTokensFollowTheReportedProbabilities) {
  if (!OffersOrRefuses(RETICLE_FEATURE_TEMPERATURE, Random(1, 1))) return;
  Request greedy = Greedy(1);
  greedy.params.logprobs = std::max(1u, bench_.caps().max_logprobs);
  if (!OffersOrRefuses(RETICLE_FEATURE_LOGPROBS, greedy)) return;
  if (bench_.caps().max_top_k != 0) return;  // its distribution is cut, so the shares differ
  const Output likeliest = bench_.Run(greedy);
  ASSERT_EQ(likeliest.scored.size(), 1u);
  double listed = 0;
  for (const reticle_token_logprob& entry : likeliest.scored[0].top) {
    listed += std::exp(static_cast<double>(entry.logprob));
  }
  const double first = std::exp(static_cast<double>(likeliest.scored[0].logprob));
  constexpr int kDraws = 300;
  int first_hits = 0;
  int listed_hits = 0;
  std::vector<Request> requests;
  for (int i = 0; i < kDraws; ++i) {
    requests.push_back(Random(i, 1));
    requests.back().params.logprobs = 1;
    if (requests.size() < std::min(bench_.caps().max_sequences, 16u) && i + 1 < kDraws) continue;
    for (const Output& output : bench_.Run(requests)) {
      ASSERT_EQ(output.scored.size(), 1u);
      first_hits += output.scored[0].rank == 1 ? 1 : 0;
      listed_hits += output.scored[0].rank < greedy.params.logprobs ? 1 : 0;
    }
    requests.clear();
  }
  const auto expect_share = [](int hits, double probability) {
    const double bounded = std::min(probability, 1.0);
    const double sigma = std::sqrt(bounded * (1 - bounded) / kDraws);
    EXPECT_NEAR(static_cast<double>(hits) / kDraws, bounded, 5 * sigma + 1e-3);
  };
  expect_share(first_hits, first);
  if (greedy.params.logprobs > 1) expect_share(listed_hits, listed);
}

TEST_F(SamplingConformance, TheNarrowestChoicesAreGreedy) {
  if (!OffersOrRefuses(RETICLE_FEATURE_TEMPERATURE, Random(1, 1))) return;
  const Output greedy = bench_.Run(Greedy(8));
  Request top_k = Random(5, 8);
  top_k.params.temperature = 2;
  top_k.params.top_k = 1;
  EXPECT_EQ(bench_.Run(top_k).tokens, greedy.tokens) << "top_k 1";
  Request cold = Random(5, 8);
  cold.params.temperature = 1e-6f;
  EXPECT_EQ(bench_.Run(cold).tokens, greedy.tokens) << "temperature 1e-6";
  Request top_p = Random(5, 8);
  top_p.params.temperature = 2;
  top_p.params.top_p = 1e-6f;
  if (OffersOrRefuses(RETICLE_FEATURE_TOP_P, top_p)) {
    EXPECT_EQ(bench_.Run(top_p).tokens, greedy.tokens) << "top_p 1e-6";
  }
  Request min_p = Random(5, 8);
  min_p.params.temperature = 2;
  min_p.params.min_p = 1;
  if (OffersOrRefuses(RETICLE_FEATURE_MIN_P, min_p)) {
    EXPECT_EQ(bench_.Run(min_p).tokens, greedy.tokens) << "min_p 1";
  }
}

TEST_F(SamplingConformance, AStopIdEndsTheSequence) {
  const Output plain = bench_.Run(Greedy(8));
  ASSERT_EQ(plain.tokens.size(), 8u);
  if (bench_.caps().max_stop_ids == 0) return;
  for (const uint32_t at : {0u, 5u}) {
    Request request = Greedy(8);
    request.stop_ids = {plain.tokens[at]};
    const auto first = std::find(plain.tokens.begin(), plain.tokens.end(), plain.tokens[at]);
    const Output stopped = bench_.Run(request);
    EXPECT_EQ(stopped.tokens, std::vector<uint32_t>(plain.tokens.begin(), first + 1));
    EXPECT_EQ(stopped.finish, uint32_t{RETICLE_FINISH_STOP_ID});
  }
  EXPECT_EQ(bench_.LiveByStats(), 0u);
}

TEST_F(SamplingConformance, StopIdsWaitForMinTokens) {
  if (bench_.caps().max_stop_ids == 0) return;
  const Output plain = bench_.Run(Greedy(1));
  Request request = Greedy(6);
  request.stop_ids = {plain.tokens[0]};
  request.params.min_tokens = 4;
  if (!OffersOrRefuses(RETICLE_FEATURE_MIN_TOKENS, request)) return;
  // With a bias the stop id comes as soon as it may.
  const bool biased = bench_.Has(RETICLE_FEATURE_LOGIT_BIAS);
  if (biased) request.logit_bias = {{request.stop_ids[0], kHuge}};
  const Output waited = bench_.Run(request);
  ASSERT_GE(waited.tokens.size(), 4u);
  for (uint32_t i = 0; i < 4; ++i) EXPECT_NE(waited.tokens[i], request.stop_ids[0]) << i;
  if (biased) {
    EXPECT_EQ(waited.tokens.size(), 5u);
    EXPECT_EQ(waited.finish, uint32_t{RETICLE_FINISH_STOP_ID});
  }
  // min_tokens counts output: a prompt that holds two output tokens already needs two more.
  Request resumed = request;
  resumed.params.prompt_tokens = 9;
  resumed.prompt.insert(resumed.prompt.end(), waited.tokens.begin(), waited.tokens.begin() + 2);
  resumed.max_tokens = 4;
  EXPECT_EQ(bench_.Run(resumed).tokens,
            std::vector<uint32_t>(waited.tokens.begin() + 2, waited.tokens.end()));
}

TEST_F(SamplingConformance, LogitBiasDecides) {
  const uint32_t favourite = bench_.caps().vocab_size / 2;
  Request request = Greedy(3);
  request.logit_bias = {{favourite, kHuge}};
  if (!OffersOrRefuses(RETICLE_FEATURE_LOGIT_BIAS, request)) return;
  EXPECT_EQ(bench_.Run(request).tokens, std::vector<uint32_t>(3, favourite));
  const Output plain = bench_.Run(Greedy(1));
  request.logit_bias = {{plain.tokens[0], -kHuge}, {favourite, 0}};
  EXPECT_NE(bench_.Run(request).tokens[0], plain.tokens[0]);
}

TEST_F(SamplingConformance, AMaskAllowsOnlyItsTokens) {
  const Output plain = bench_.Run(Greedy(4));
  const uint32_t last = bench_.caps().vocab_size - 1;
  Request request = Greedy(4);
  request.masks = {MaskOf({1}, true), MaskOf({last}, true), MaskOf({0, last}, true),
                   MaskOf({}, false)};
  if (!OffersOrRefuses(RETICLE_FEATURE_TOKEN_MASK, request)) return;
  const Output masked = bench_.Run(request);
  ASSERT_EQ(masked.tokens.size(), 4u);
  EXPECT_EQ(masked.tokens[0], 1u);
  EXPECT_EQ(masked.tokens[1], last);
  EXPECT_TRUE(masked.tokens[2] == 0 || masked.tokens[2] == last);
  Request without = Greedy(1);
  without.masks = {MaskOf({plain.tokens[0]}, false)};
  EXPECT_NE(bench_.Run(without).tokens[0], plain.tokens[0]);
  // A mask holds for one token: the next is free again.
  Request first_only = Greedy(2);
  first_only.masks = {MaskOf({plain.tokens[0]}, true), MaskOf({}, false)};
  EXPECT_EQ(bench_.Run(first_only).tokens[1], plain.tokens[1]);
}

TEST_F(SamplingConformance, PenaltiesForbidWhatWasSaid) {
  for (const bool presence : {true, false}) {
    const uint32_t tokens = std::min(12u, bench_.caps().vocab_size);
    Request request = Greedy(tokens);
    (presence ? request.params.presence_penalty : request.params.frequency_penalty) = kHuge;
    if (!OffersOrRefuses(RETICLE_FEATURE_PENALTIES, request)) return;
    const Output output = bench_.Run(request);
    const std::set<uint32_t> distinct(output.tokens.begin(), output.tokens.end());
    EXPECT_EQ(distinct.size(), tokens) << "a token came twice";
    // A token of the prompt is no output: a bonus for what was said (a negative penalty) does not
    // reach it, and the first token is what it is without.
    Request bonus = Greedy(4);
    (presence ? bonus.params.presence_penalty : bonus.params.frequency_penalty) = -kHuge;
    const Output repeated = bench_.Run(bonus);
    const uint32_t first = bench_.Run(Greedy(1)).tokens[0];
    EXPECT_EQ(repeated.tokens, std::vector<uint32_t>(4, first));
  }
}

TEST_F(SamplingConformance, RepetitionPenaltyReachesThePrompt) {
  // A penalty below 1 favours what was said when its logit is positive, one above when it is
  // negative; whichever the model's logits are, one of the two must change something.
  Request request = Greedy(6);
  request.params.repetition_penalty = 50;
  if (!OffersOrRefuses(RETICLE_FEATURE_PENALTIES, request)) return;
  const Output plain = bench_.Run(Greedy(6));
  const Output above = bench_.Run(request);
  request.params.repetition_penalty = 0.02f;
  const Output below = bench_.Run(request);
  EXPECT_TRUE(above.tokens != plain.tokens || below.tokens != plain.tokens);
}

TEST_F(SamplingConformance, LogprobsAreThoseOfTheModel) {
  Request request = Greedy(5);
  request.params.logprobs = std::max(1u, std::min(6u, bench_.caps().max_logprobs));
  if (!OffersOrRefuses(RETICLE_FEATURE_LOGPROBS, request)) return;
  const Output plain = bench_.Run(request);
  ASSERT_EQ(plain.scored.size(), 5u);
  for (const Scored& scored : plain.scored) EXPECT_EQ(scored.rank, 1u);
  if (request.params.logprobs < 3 || !bench_.Has(RETICLE_FEATURE_LOGIT_BIAS)) return;
  ASSERT_GE(plain.scored[0].top.size(), 2u);
  // With the likeliest token pushed away, the second is chosen and still reported as the second.
  const std::vector<reticle_token_logprob>& top = plain.scored[0].top;
  request.logit_bias = {{top[0].token, -kHuge}};
  const Output second = bench_.Run(request);
  EXPECT_EQ(second.tokens[0], top[1].token);
  EXPECT_EQ(second.scored[0].rank, 2u);
  EXPECT_NEAR(second.scored[0].logprob, top[1].logprob, 1e-4);
  // Without a list, logprob and rank are there all the same.
  request.params.logprobs = 1;
  const Output bare = bench_.Run(request);
  EXPECT_NEAR(bare.scored[0].logprob, top[1].logprob, 1e-4);
  EXPECT_TRUE(bare.scored[0].top.empty());
}

TEST_F(SamplingConformance, PromptLogprobsEqualThoseOfDecoding) {
  Request request = Greedy(0);
  request.prompt_logprobs = bench_.caps().max_logprobs >= 3 ? 2 : 0;
  if (!OffersOrRefuses(RETICLE_FEATURE_PROMPT_LOGPROBS, request)) return;
  if (!bench_.Has(RETICLE_FEATURE_LOGPROBS)) return;
  Request decode = Greedy(6);
  decode.params.logprobs = *request.prompt_logprobs + 1;
  const Output decoded = bench_.Run(decode);
  request.prompt.insert(request.prompt.end(), decoded.tokens.begin(), decoded.tokens.end());
  for (const uint32_t chunk : {0u, 1u, 4u}) {
    request.chunk = chunk;
    const Output output = bench_.Run(request);
    ASSERT_EQ(output.prompt_scored.size(), request.prompt.size() - 1) << "chunk " << chunk;
    for (size_t i = 0; i < output.prompt_scored.size(); ++i) {
      const Scored& scored = output.prompt_scored[i];
      EXPECT_EQ(scored.position, i + 1);
      EXPECT_EQ(scored.token, request.prompt[i + 1]);
      if (i + 1 < 9) continue;
      const Scored& expected = decoded.scored[i + 1 - 9];
      EXPECT_NEAR(scored.logprob, expected.logprob, 1e-3);
      EXPECT_EQ(scored.rank, expected.rank);
      ASSERT_EQ(scored.top.size(), expected.top.size());
    }
  }
}

TEST_F(SamplingConformance, NoTokenLeftIsAnErrorOfTheSequence) {
  if (!bench_.Has(RETICLE_FEATURE_TOKEN_MASK | RETICLE_FEATURE_MIN_TOKENS)) return;
  if (bench_.caps().max_stop_ids == 0) return;
  Request request = Greedy(2);
  request.stop_ids = {1};
  request.params.min_tokens = 2;
  request.masks = {MaskOf({1}, true)};
  const Output output = bench_.Run(request);
  EXPECT_EQ(output.finish, uint32_t{RETICLE_FINISH_ERROR});
  EXPECT_EQ(output.status, RETICLE_FAILED_PRECONDITION);
  EXPECT_TRUE(output.tokens.empty());
}

}  // namespace
}  // namespace reticle::backends::conformance
