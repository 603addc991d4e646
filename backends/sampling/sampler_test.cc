#include "backends/sampling/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "backends/sampling/exp.h"
#include "backends/sampling/philox.h"

namespace reticle::backends::sampling {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

reticle_sampling Params() {
  reticle_sampling params{};
  params.struct_size = sizeof(params);
  params.top_p = 1;
  params.repetition_penalty = 1;
  return params;
}

std::vector<float> RandomLogits(std::mt19937& random, size_t vocab_size, float spread) {
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> logits(vocab_size);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

// ---- A reference that follows the words of the ABI header in the plainest way. ----

struct Reference {
  std::vector<float> adjusted;
  std::vector<uint32_t> kept;  // by falling likelihood
};

std::vector<float> ReferenceAdjust(std::vector<float> logits, const reticle_sampling& params,
                                   uint32_t position, const std::vector<uint32_t>& tokens,
                                   const uint32_t* mask) {
  for (uint32_t i = 0; i < params.logit_bias_count; ++i) {
    logits[params.logit_bias[i].token] += params.logit_bias[i].bias;
  }
  for (uint32_t i = 0; mask != nullptr && i < logits.size(); ++i) {
    if ((mask[i / 32] >> (i % 32) & 1) == 0) logits[i] = -kInfinity;
  }
  if (position < params.prompt_tokens + params.min_tokens) {
    for (uint32_t i = 0; i < params.stop_id_count; ++i) logits[params.stop_ids[i]] = -kInfinity;
  }
  if (!HasPenalties(params)) return logits;
  for (uint32_t token : std::set<uint32_t>(tokens.begin(), tokens.end())) {
    const auto count =
        std::count(tokens.begin() + std::min<size_t>(tokens.size(), params.prompt_tokens),
                   tokens.end(), token);
    float& logit = logits[token];
    logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    logit -= params.frequency_penalty * static_cast<float>(count);
    if (count > 0) logit -= params.presence_penalty;
  }
  return logits;
}

std::vector<uint32_t> ReferenceKept(const std::vector<float>& logits,
                                    const reticle_sampling& params) {
  std::vector<uint32_t> order;
  for (uint32_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > -kInfinity) order.push_back(i);
  }
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  });
  if (params.temperature == 0) return {order.front()};
  const auto weight = [&](uint32_t token) {
    return std::exp((static_cast<double>(logits[token]) - logits[order.front()]) /
                    params.temperature);
  };
  if (params.top_k > 0 && params.top_k < order.size()) order.resize(params.top_k);
  double total = 0;
  for (uint32_t token : order) total += weight(token);
  double sum = 0;
  std::vector<uint32_t> kept;
  for (uint32_t token : order) {
    if (params.top_p < 1 && sum >= params.top_p * total) break;
    sum += weight(token);
    kept.push_back(token);
  }
  std::erase_if(kept, [&](uint32_t token) { return weight(token) < params.min_p; });
  return kept;
}

uint32_t ReferenceDraw(const std::vector<float>& logits, std::vector<uint32_t> kept,
                       const reticle_sampling& params, uint32_t position) {
  if (params.temperature == 0) return kept.front();
  const double max = logits[kept.front()];
  std::sort(kept.begin(), kept.end());
  const auto weight = [&](uint32_t token) {
    return std::exp((logits[token] - max) / params.temperature);
  };
  double total = 0;
  for (uint32_t token : kept) total += weight(token);
  double left = UniformAt(params.seed, position) * total;
  for (uint32_t token : kept) {
    left -= weight(token);
    if (left < 0) return token;
  }
  return kept.back();
}

// ---- The generator and exp ----

TEST(PhiloxTest, MatchesKnownAnswersOfRandom123) {
  // kat_vectors of the Random123 distribution, philox4x32 with 10 rounds.
  EXPECT_THAT(Philox4x32({0, 0, 0, 0}, {0, 0}),
              ElementsAre(0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u));
  EXPECT_THAT(Philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
              ElementsAre(0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu));
  EXPECT_THAT(
      Philox4x32({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, {0xa4093822u, 0x299f31d0u}),
      ElementsAre(0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u));
}

TEST(PhiloxTest, UniformsAreInRangeAndSpread) {
  // Squared z-scores of the means of 200 seeds: their average is 1 with standard deviation 0.1.
  double squares = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    double sum = 0;
    for (uint32_t position = 0; position < 3000; ++position) {
      const double uniform = UniformAt(seed, position);
      ASSERT_GE(uniform, 0);
      ASSERT_LT(uniform, 1);
      sum += uniform;
    }
    const double z = (sum / 3000 - 0.5) * std::sqrt(12.0 * 3000);
    squares += z * z;
  }
  EXPECT_NEAR(squares / 200, 1, 0.4);
}

TEST(ExpTest, StaysWithinItsErrorBound) {
  EXPECT_EQ(ExpOfNonPositive(0.0f), 1.0f);
  EXPECT_EQ(ExpOfNonPositive(-87.1f), 0.0f);
  EXPECT_EQ(ExpOfNonPositive(-kInfinity), 0.0f);
  EXPECT_EQ(ExpOfNonPositive(std::nanf("")), 0.0f);
  double worst = 0;
  for (float x = -87; x < 0; x += 0.00137f) {
    const double exact = std::exp(static_cast<double>(x));
    worst = std::max(worst, std::abs(ExpOfNonPositive(x) - exact) / exact);
  }
  EXPECT_LT(worst, 3e-7);
}

// ---- The sampler ----

TEST(SamplerTest, GreedyTakesTheLargestAndTheLowestIdAmongEquals) {
  Sampler sampler(200);
  std::vector<float> logits(200, -1.0f);
  logits[150] = 3;
  logits[70] = 3;
  logits[10] = std::nanf("");
  SequenceSampling sequence;
  sequence.Set(Params());
  EXPECT_EQ(sampler.Sample(logits, sequence, 0)->token, 70u);
}

TEST(SamplerTest, SaysWhenNothingIsLeft) {
  Sampler sampler(40);
  std::vector<float> logits(40, 0.0f);
  const std::vector<uint32_t> mask = {1u << 5, 0};
  const uint32_t stop = 5;
  for (const float temperature : {0.0f, 1.0f}) {
    reticle_sampling params = Params();
    params.temperature = temperature;
    params.stop_ids = &stop;
    params.stop_id_count = 1;
    params.min_tokens = 2;
    SequenceSampling sequence;
    sequence.Set(params);
    EXPECT_EQ(sampler.Sample(logits, sequence, 1, mask.data()).status().code(),
              absl::StatusCode::kFailedPrecondition);
    const auto at_two = sampler.Sample(logits, sequence, 2, mask.data());
    ASSERT_TRUE(at_two.ok());
    EXPECT_EQ(at_two->token, 5u);
    EXPECT_TRUE(at_two->is_stop_id);
  }
  const std::vector<float> not_numbers(40, std::nanf(""));
  SequenceSampling sequence;
  sequence.Set(Params());
  EXPECT_FALSE(sampler.Sample(not_numbers, sequence, 0).ok());
}

// Random parameters against the reference. The drawn token may differ from the reference's only
// where the reference (in double precision throughout) is within rounding of a border.
TEST(SamplerTest, AgreesWithTheReferenceOnRandomParameters) {
  std::mt19937 random(20240607);
  int different = 0;
  constexpr int kCases = 3000;
  for (int i = 0; i < kCases; ++i) {
    const uint32_t vocab_size = std::uniform_int_distribution<uint32_t>(1, 1500)(random);
    const auto pick = [&](uint32_t limit) {
      return std::uniform_int_distribution<uint32_t>(0, limit - 1)(random);
    };
    Sampler sampler(vocab_size);
    std::vector<float> logits = RandomLogits(random, vocab_size,
                                             pick(3) == 0   ? 0.3f
                                             : pick(2) == 0 ? 2.0f
                                                            : 6.0f);
    if (pick(4) == 0) {
      for (float& logit : logits) logit = std::round(logit);  // many equals
    }
    reticle_sampling params = Params();
    params.temperature = pick(4) == 0 ? 0.0f : 0.2f + 0.1f * static_cast<float>(pick(20));
    params.top_k = pick(2) == 0 ? 0 : pick(vocab_size + 5);
    params.top_p = pick(2) == 0 ? 1.0f : 0.02f + 0.07f * static_cast<float>(pick(14));
    params.min_p = pick(3) == 0 ? 0.01f * static_cast<float>(pick(50)) : 0.0f;
    params.seed = random();
    std::vector<uint32_t> tokens(pick(40));
    for (uint32_t& token : tokens) token = pick(vocab_size);
    const uint32_t position = static_cast<uint32_t>(tokens.size());
    params.prompt_tokens = pick(position + 1);
    params.min_tokens = pick(30);
    if (pick(2) == 0) {
      params.repetition_penalty = 1.3f;
      params.frequency_penalty = 0.4f;
      params.presence_penalty = -0.3f;
      params.history = tokens.data();
      params.history_count = position;
    }
    const std::vector<uint32_t> stop_ids = {pick(vocab_size), pick(vocab_size)};
    params.stop_ids = stop_ids.data();
    params.stop_id_count = pick(3);
    const std::vector<reticle_logit_bias> bias = {{pick(vocab_size), 2.5f}};
    params.logit_bias = bias.data();
    params.logit_bias_count = pick(2);
    std::vector<uint32_t> mask((vocab_size + 31) / 32);
    for (uint32_t& word : mask) word = random() | (pick(2) == 0 ? ~0u : 0u);
    const uint32_t* token_mask = pick(2) == 0 ? mask.data() : nullptr;

    SequenceSampling sequence;
    sequence.Set(params);
    const auto sampled = sampler.Sample(logits, sequence, position, token_mask);
    const std::vector<float> adjusted =
        ReferenceAdjust(logits, params, position, tokens, token_mask);
    if (std::all_of(adjusted.begin(), adjusted.end(), [](float x) { return x == -kInfinity; })) {
      EXPECT_FALSE(sampled.ok());
      continue;
    }
    ASSERT_TRUE(sampled.ok()) << sampled.status();
    const std::vector<uint32_t> kept = ReferenceKept(adjusted, params);
    if (sampled->token != ReferenceDraw(adjusted, kept, params, position)) ++different;
    if (params.temperature == 0) {
      ASSERT_EQ(sampled->token, kept.front());
    }
  }
  EXPECT_LE(different, kCases / 300);
}

TEST(SamplerTest, EarlierCallsLeaveNoTrace) {
  std::mt19937 random(8);
  Sampler used(700);
  for (int i = 0; i < 300; ++i) {
    const std::vector<float> logits = RandomLogits(random, 700, i % 2 == 0 ? 0.2f : 4.0f);
    reticle_sampling params = Params();
    params.temperature = i % 5 == 0 ? 0.0f : 1.5f;
    params.top_k = i % 3 == 0 ? 40 : 0;
    params.top_p = i % 4 == 0 ? 1.0f : 0.9f;
    params.logprobs = i % 7;
    params.seed = random();
    SequenceSampling sequence;
    sequence.Set(params);
    Sampler fresh(700);
    const SampledToken expected = *fresh.Sample(logits, sequence, i);
    const SampledToken got = *used.Sample(logits, sequence, i);
    ASSERT_EQ(got.token, expected.token);
    ASSERT_EQ(got.logprob, expected.logprob);
    ASSERT_EQ(got.rank, expected.rank);
  }
}

TEST(SamplerTest, CountsKeptStepByStepEqualThoseOfTheWholeHistory) {
  std::mt19937 random(3);
  constexpr uint32_t kVocab = 50;
  reticle_sampling params = Params();
  params.repetition_penalty = 1.2f;
  params.frequency_penalty = 0.5f;
  params.presence_penalty = 0.25f;
  params.prompt_tokens = 10;
  std::vector<uint32_t> tokens(6, 3);
  params.history = tokens.data();
  params.history_count = static_cast<uint32_t>(tokens.size());
  SequenceSampling stepwise;
  stepwise.Set(params);
  Sampler sampler(kVocab);
  for (int step = 0; step < 100; ++step) {
    const uint32_t position = static_cast<uint32_t>(tokens.size());
    params.history = tokens.data();
    params.history_count = position;
    SequenceSampling whole;
    whole.Set(params);
    const std::vector<float> logits = RandomLogits(random, kVocab, 1);
    const uint32_t token = sampler.Sample(logits, whole, position)->token;
    ASSERT_EQ(sampler.Sample(logits, stepwise, position)->token, token) << position;
    stepwise.Append({&token, 1}, position);
    tokens.push_back(token);
  }
}

// Pearson's chi-square of 20,000 draws against the exact distribution, one row of parameters each.
TEST(SamplerTest, DrawsFollowTheDistribution) {
  std::mt19937 random(11);
  constexpr uint32_t kVocab = 600;
  constexpr int kDraws = 20000;
  Sampler sampler(kVocab);
  struct Row {
    float temperature, top_p, min_p;
    uint32_t top_k;
  };
  for (const Row row : {Row{1, 1, 0, 0}, Row{0.7f, 1, 0, 12}, Row{1, 0.8f, 0, 0},
                        Row{2, 0.97f, 0, 0}, Row{1.5f, 1, 0.05f, 0}, Row{1, 0.9f, 0.02f, 30}}) {
    reticle_sampling params = Params();
    params.temperature = row.temperature;
    params.top_p = row.top_p;
    params.min_p = row.min_p;
    params.top_k = row.top_k;
    params.seed = 99;
    const std::vector<float> logits = RandomLogits(random, kVocab, 2);
    SequenceSampling sequence;
    sequence.Set(params);
    std::map<uint32_t, int> seen;
    for (int i = 0; i < kDraws; ++i) ++seen[sampler.Sample(logits, sequence, i)->token];

    const std::vector<uint32_t> kept = ReferenceKept(logits, params);
    double total = 0;
    for (uint32_t token : kept) total += std::exp(logits[token] / row.temperature);
    double chi_square = 0, rest_expected = 0;
    int cells = 0, rest_seen = 0, counted = 0;
    for (uint32_t token : kept) {
      const double expected = kDraws * std::exp(logits[token] / row.temperature) / total;
      const int got = seen.contains(token) ? seen[token] : 0;
      counted += got;
      if (expected < 5) {
        rest_expected += expected;
        rest_seen += got;
        continue;
      }
      chi_square += (got - expected) * (got - expected) / expected;
      ++cells;
    }
    if (rest_expected >= 5) {
      chi_square += (rest_seen - rest_expected) * (rest_seen - rest_expected) / rest_expected;
      ++cells;
    }
    EXPECT_EQ(counted, kDraws) << "a token outside the kept set was drawn";
    // Mean and variance of chi-square with n degrees of freedom are n and 2n; five sigma.
    const double degrees = cells - 1;
    EXPECT_LT(chi_square, degrees + 5 * std::sqrt(2 * degrees) + 5);
  }
}

TEST(SamplerTest, SeedsAndPositionsGiveDifferentTokens) {
  Sampler sampler(1000);
  const std::vector<float> flat(1000, 0.0f);
  std::set<uint32_t> by_seed, by_position;
  for (uint32_t i = 0; i < 200; ++i) {
    reticle_sampling params = Params();
    params.temperature = 1;
    params.seed = uint64_t{i} << 32;  // the upper half of the seed matters too
    SequenceSampling sequence;
    sequence.Set(params);
    by_seed.insert(sampler.Sample(flat, sequence, 5)->token);
    params.seed = 1;
    sequence.Set(params);
    by_position.insert(sampler.Sample(flat, sequence, i)->token);
  }
  EXPECT_GT(by_seed.size(), 150u);
  EXPECT_GT(by_position.size(), 150u);
}

TEST(SamplerTest, ExtremeTemperaturesAndInfiniteLogitsDoNoHarm) {
  Sampler sampler(300);
  std::vector<float> logits(300, 0.0f);
  logits[42] = 1;
  for (const float temperature : {1e-45f, 1e-30f, 1e30f}) {
    reticle_sampling params = Params();
    params.temperature = temperature;
    params.top_p = 0.5f;
    SequenceSampling sequence;
    sequence.Set(params);
    const auto sampled = sampler.Sample(logits, sequence, 0);
    ASSERT_TRUE(sampled.ok());
    if (temperature < 1) {
      EXPECT_EQ(sampled->token, 42u);
    }
  }
  logits[7] = kInfinity;
  logits[8] = -kInfinity;
  reticle_sampling params = Params();
  params.temperature = 1;
  SequenceSampling sequence;
  sequence.Set(params);
  EXPECT_EQ(sampler.Sample(logits, sequence, 0)->token, 7u);
}

TEST(SamplerTest, LogprobsAreThoseOfTheModelBeforeAnyChange) {
  std::mt19937 random(5);
  constexpr uint32_t kVocab = 777;
  Sampler sampler(kVocab);
  const std::vector<float> logits = RandomLogits(random, kVocab, 3);
  double total = 0;
  for (float logit : logits) total += std::exp(static_cast<double>(logit));
  std::vector<uint32_t> order(kVocab);
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(),
            [&](uint32_t a, uint32_t b) { return logits[a] > logits[b]; });

  const std::vector<reticle_logit_bias> bias = {{order[9], 100.0f}};
  reticle_sampling params = Params();
  params.logit_bias = bias.data();
  params.logit_bias_count = 1;
  params.logprobs = 6;
  SequenceSampling sequence;
  sequence.Set(params);
  const auto sampled = sampler.Sample(logits, sequence, 0);
  ASSERT_TRUE(sampled.ok());
  EXPECT_EQ(sampled->token, order[9]);
  EXPECT_EQ(sampled->rank, 10u);
  EXPECT_NEAR(sampled->logprob, logits[order[9]] - std::log(total), 1e-5);
  ASSERT_THAT(sampled->top, SizeIs(5));
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(sampled->top[i].token, order[i]);
    EXPECT_NEAR(sampled->top[i].logprob, logits[order[i]] - std::log(total), 1e-5);
  }
  double sum = 0;
  for (uint32_t token = 0; token < kVocab; ++token) {
    sum += std::exp(static_cast<double>(sampler.Score(logits, token, 0).logprob));
  }
  EXPECT_NEAR(sum, 1, 1e-5);
}

TEST(SamplerTest, RankCountsEqualLogitsOfLowerIds) {
  Sampler sampler(4);
  const std::vector<float> logits = {1, 2, 2, 0};
  EXPECT_EQ(sampler.Score(logits, 2, 4).rank, 2u);
  const SampledToken scored = sampler.Score(logits, 1, 9);
  EXPECT_EQ(scored.rank, 1u);
  ASSERT_THAT(scored.top, SizeIs(4));
  EXPECT_EQ(scored.top[0].token, 1u);
  EXPECT_EQ(scored.top[1].token, 2u);
}

// ---- Validation ----

class ValidateSamplingTest : public ::testing::Test {
 protected:
  ValidateSamplingTest() {
    capabilities_.vocab_size = 100;
    capabilities_.features = ~0ull;
    capabilities_.max_logprobs = 6;
    capabilities_.max_stop_ids = 3;
  }
  void ExpectRefused(absl::StatusCode code, const char* text) {
    const absl::Status status = ValidateSampling(params_, capabilities_);
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(text));
    params_ = Params();
  }
  reticle_capabilities capabilities_{};
  reticle_sampling params_ = Params();
};

TEST_F(ValidateSamplingTest, NamesFieldValueAndLimit) {
  const auto invalid = absl::StatusCode::kInvalidArgument;
  EXPECT_TRUE(ValidateSampling(params_, capabilities_).ok());
  params_.temperature = std::nanf("");
  ExpectRefused(invalid, "temperature is nan");
  params_.temperature = -1;
  ExpectRefused(invalid, "temperature is -1; it must be finite and at least 0");
  params_.temperature = kInfinity;
  ExpectRefused(invalid, "temperature is inf");
  params_.top_p = 0;
  ExpectRefused(invalid, "top_p is 0");
  params_.top_p = 1.5f;
  ExpectRefused(invalid, "top_p is 1.5");
  params_.top_p = std::nanf("");
  ExpectRefused(invalid, "top_p is nan");
  params_.min_p = -0.1f;
  ExpectRefused(invalid, "min_p is -0.1");
  params_.repetition_penalty = 0;
  ExpectRefused(invalid, "repetition_penalty is 0");
  params_.frequency_penalty = kInfinity;
  ExpectRefused(invalid, "frequency_penalty is inf");
  params_.presence_penalty = std::nanf("");
  ExpectRefused(invalid, "presence_penalty is nan");
  params_.presence_penalty = 1;
  ExpectRefused(invalid, "history is NULL");
  params_.logprobs = 7;
  ExpectRefused(invalid, "logprobs is 7; it must be at most 6");
  const uint32_t stop_ids[] = {1, 2, 100, 4};
  params_.stop_ids = stop_ids;
  params_.stop_id_count = 4;
  ExpectRefused(invalid, "stop_id_count is 4; it must be at most 3");
  params_.stop_ids = stop_ids;
  params_.stop_id_count = 3;
  ExpectRefused(invalid, "stop_ids[2] is 100");
  params_.stop_id_count = 1;
  ExpectRefused(invalid, "stop_ids is NULL");
  const uint32_t history[] = {3, 200};
  params_.history = history;
  params_.history_count = 2;
  params_.frequency_penalty = 1;
  ExpectRefused(invalid, "history[1] is 200");
  const reticle_logit_bias twice[] = {{3, 1}, {4, 1}, {3, 2}};
  params_.logit_bias = twice;
  params_.logit_bias_count = 3;
  ExpectRefused(invalid, "logit_bias names token 3 twice");
  const reticle_logit_bias outside[] = {{100, 1}};
  params_.logit_bias = outside;
  params_.logit_bias_count = 1;
  ExpectRefused(invalid, "logit_bias[0].token is 100");
  const reticle_logit_bias infinite[] = {{1, -kInfinity}};
  params_.logit_bias = infinite;
  params_.logit_bias_count = 1;
  ExpectRefused(invalid, "logit_bias[0].bias is -inf");
  params_.logit_bias_count = 101;
  ExpectRefused(invalid, "logit_bias is NULL");
  capabilities_.max_top_k = 64;
  params_.temperature = 1;
  ExpectRefused(invalid, "top_k is 0; this device needs it in 1 .. 64");
}

TEST_F(ValidateSamplingTest, RefusesEachFeatureThatTheDeviceLacks) {
  const auto unimplemented = absl::StatusCode::kUnimplemented;
  capabilities_.features = 0;
  EXPECT_TRUE(ValidateSampling(params_, capabilities_).ok());
  params_.temperature = 1;
  ExpectRefused(unimplemented, "temperature");
  params_.min_tokens = 1;
  ExpectRefused(unimplemented, "min_tokens");
  params_.logprobs = 1;
  ExpectRefused(unimplemented, "logprobs");
  params_.frequency_penalty = 1;
  ExpectRefused(unimplemented, "penalty");
  const reticle_logit_bias bias[] = {{1, 1}};
  params_.logit_bias = bias;
  params_.logit_bias_count = 1;
  ExpectRefused(unimplemented, "logit_bias");
  capabilities_.features = RETICLE_FEATURE_TEMPERATURE;
  params_.temperature = 1;
  params_.top_p = 0.5f;
  ExpectRefused(unimplemented, "top_p");
  params_.temperature = 1;
  params_.min_p = 0.5f;
  ExpectRefused(unimplemented, "min_p");
}

TEST_F(ValidateSamplingTest, AcceptsWhatHasNoEffect) {
  capabilities_.features = 0;
  capabilities_.max_top_k = 8;
  params_.top_p = 0.5f;
  params_.min_p = 0.5f;
  params_.top_k = 99;
  EXPECT_TRUE(ValidateSampling(params_, capabilities_).ok());
}

}  // namespace
}  // namespace reticle::backends::sampling
