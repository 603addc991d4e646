// Work that breaks a rule is refused with the right code and leaves no trace.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "backends/conformance/bench.h"

namespace reticle::backends::conformance {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A good item and what may be spoiled about it.
struct Draft {
  std::vector<uint32_t> tokens;
  std::vector<uint32_t> blocks;
  std::vector<uint32_t> ids;
  std::vector<reticle_logit_bias> bias;
  std::vector<uint32_t> mask;
  reticle_sampling params{};
  reticle_work work{};
};

struct Case {
  const char* name;
  std::function<void(const reticle_capabilities&, Draft&)> spoil;
  uint64_t feature = 0;  // needed for the case to say INVALID_ARGUMENT; else UNIMPLEMENTED
};

const std::vector<Case>& Cases() {
  using Caps = const reticle_capabilities&;
  static const auto* const cases = new std::vector<Case>{
      {"tokens NULL", [](Caps, Draft& d) { d.work.tokens = nullptr; }},
      {"token beyond the vocabulary", [](Caps c, Draft& d) { d.tokens[2] = c.vocab_size; }},
      {"token UINT32_MAX", [](Caps, Draft& d) { d.tokens[0] = UINT32_MAX; }},
      {"position overflows", [](Caps, Draft& d) { d.work.position = UINT32_MAX; }},
      {"position at the context limit",
       [](Caps c, Draft& d) { d.work.position = c.context_limit; }},
      {"unknown flag", [](Caps, Draft& d) { d.work.flags = 1u << 30; }},
      {"credits without parameters", [](Caps, Draft& d) { d.work.sampling = nullptr; }},
      {"credits UINT32_MAX", [](Caps, Draft& d) { d.work.decode_credits = UINT32_MAX; }},
      {"block count without blocks",
       [](Caps, Draft& d) {
         d.work.kv_blocks = nullptr;
         d.work.kv_block_count = 3;
       }},
      {"temperature NaN", [](Caps, Draft& d) { d.params.temperature = kNan; }},
      {"temperature negative", [](Caps, Draft& d) { d.params.temperature = -0.5f; }},
      {"temperature infinite", [](Caps, Draft& d) { d.params.temperature = kInfinity; }},
      {"top_p 0", [](Caps, Draft& d) { d.params.top_p = 0; }},
      {"top_p above 1", [](Caps, Draft& d) { d.params.top_p = 1.01f; }},
      {"top_p NaN", [](Caps, Draft& d) { d.params.top_p = kNan; }},
      {"min_p negative", [](Caps, Draft& d) { d.params.min_p = -0.1f; }},
      {"min_p above 1", [](Caps, Draft& d) { d.params.min_p = 1.5f; }},
      {"repetition_penalty 0", [](Caps, Draft& d) { d.params.repetition_penalty = 0; }},
      {"repetition_penalty NaN", [](Caps, Draft& d) { d.params.repetition_penalty = kNan; }},
      {"frequency_penalty infinite",
       [](Caps, Draft& d) { d.params.frequency_penalty = kInfinity; }},
      {"presence_penalty NaN", [](Caps, Draft& d) { d.params.presence_penalty = kNan; }},
      {"penalty without history", [](Caps, Draft& d) { d.params.presence_penalty = 0.5f; },
       RETICLE_FEATURE_PENALTIES},
      {"history of another length",
       [](Caps, Draft& d) {
         d.params.presence_penalty = 0.5f;
         d.params.history = d.tokens.data();
         d.params.history_count = d.work.token_count - 1;
       },
       RETICLE_FEATURE_PENALTIES},
      {"stop ids NULL", [](Caps, Draft& d) { d.params.stop_id_count = 1; }},
      {"stop id beyond the vocabulary",
       [](Caps c, Draft& d) {
         d.ids = {c.vocab_size};
         d.params.stop_ids = d.ids.data();
         d.params.stop_id_count = 1;
       }},
      {"too many stop ids",
       [](Caps c, Draft& d) {
         d.ids.assign(c.max_stop_ids + 1, 1);
         d.params.stop_ids = d.ids.data();
         d.params.stop_id_count = c.max_stop_ids + 1;
       }},
      {"logit_bias NULL", [](Caps, Draft& d) { d.params.logit_bias_count = 1; },
       RETICLE_FEATURE_LOGIT_BIAS},
      {"logit_bias beyond the vocabulary",
       [](Caps c, Draft& d) {
         d.bias = {{c.vocab_size, 1}};
         d.params.logit_bias = d.bias.data();
         d.params.logit_bias_count = 1;
       },
       RETICLE_FEATURE_LOGIT_BIAS},
      {"logit_bias twice",
       [](Caps, Draft& d) {
         d.bias = {{1, 1}, {0, 1}, {1, 2}};
         d.params.logit_bias = d.bias.data();
         d.params.logit_bias_count = 3;
       },
       RETICLE_FEATURE_LOGIT_BIAS},
      {"logit_bias NaN",
       [](Caps, Draft& d) {
         d.bias = {{1, kNan}};
         d.params.logit_bias = d.bias.data();
         d.params.logit_bias_count = 1;
       },
       RETICLE_FEATURE_LOGIT_BIAS},
      {"too many logprobs", [](Caps c, Draft& d) { d.params.logprobs = c.max_logprobs + 1; },
       RETICLE_FEATURE_LOGPROBS},
      {"mask that allows nothing",
       [](Caps c, Draft& d) {
         d.mask.assign((c.vocab_size + 31) / 32, 0);
         d.work.token_mask = d.mask.data();
       },
       RETICLE_FEATURE_TOKEN_MASK},
      {"mask without a credit",
       [](Caps c, Draft& d) {
         d.mask.assign((c.vocab_size + 31) / 32, ~0u);
         d.work.token_mask = d.mask.data();
         d.work.decode_credits = 0;
       },
       RETICLE_FEATURE_TOKEN_MASK},
      {"too many prompt logprobs",
       [](Caps c, Draft& d) {
         d.work.flags = RETICLE_WORK_PROMPT_LOGPROBS;
         d.work.prompt_logprobs = c.max_logprobs;
       },
       RETICLE_FEATURE_PROMPT_LOGPROBS},
      {"next token beyond the vocabulary",
       [](Caps c, Draft& d) {
         d.work.flags = RETICLE_WORK_PROMPT_LOGPROBS;
         d.work.next_token = c.vocab_size;
       },
       RETICLE_FEATURE_PROMPT_LOGPROBS},
  };
  return *cases;
}

class RefusalConformance : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(bench_.ok());
    request_.prompt = MakePrompt(bench_.caps(), 6, 1);
    request_.max_tokens = 4;
    expected_ = bench_.Run(request_).tokens;
    blocks_ = bench_.TakeBlocks(7);
  }

  void Fill(uint64_t sequence, Draft& draft) {
    draft.tokens = request_.prompt;
    draft.params = request_.params;
    draft.params.prompt_tokens = 6;
    draft.work = bench_.Prefill(sequence, draft.tokens, blocks_);
    draft.work.sampling = &draft.params;
    draft.work.decode_credits = 1;
  }

  Bench bench_;
  Request request_;
  std::vector<uint32_t> expected_;
  std::vector<uint32_t> blocks_;
};

TEST_F(RefusalConformance, BadItemsAreRefusedAndLeaveNoTrace) {
  for (const Case& item : Cases()) {
    SCOPED_TRACE(item.name);
    const uint64_t sequence = bench_.NewId();
    Draft bad;
    Fill(sequence, bad);
    item.spoil(bench_.caps(), bad);
    const int32_t code = bench_.Submit(bad.work);
    if (bench_.Has(item.feature)) {
      EXPECT_TRUE(code == RETICLE_INVALID_ARGUMENT ||
                  (code == RETICLE_UNIMPLEMENTED && item.feature == 0))
          << code << ": " << bench_.last_message();
    } else {
      EXPECT_TRUE(code == RETICLE_UNIMPLEMENTED || code == RETICLE_INVALID_ARGUMENT)
          << code << ": " << bench_.last_message();
    }
    EXPECT_EQ(bench_.LiveByStats(), 0u);
    EXPECT_EQ(bench_.api().cancel(bench_.device(), sequence, nullptr), RETICLE_NOT_FOUND);
    // The id is as new: the good item begins it.
    Draft good;
    Fill(sequence, good);
    ASSERT_EQ(bench_.Submit(good.work), RETICLE_OK) << bench_.last_message();
    bench_.Adopt(sequence, 6, 1);
    ASSERT_TRUE(bench_.PumpUntil([&] { return bench_.OutputOf(sequence).tokens.size() == 1; }));
    EXPECT_EQ(bench_.OutputOf(sequence).tokens[0], expected_[0]);
    bench_.Finish();
  }
  EXPECT_EQ(bench_.Run(request_).tokens, expected_);
}

TEST_F(RefusalConformance, BadBlockTablesAreRefused) {
  if (!bench_.IsPaged()) {
    Draft draft;
    Fill(bench_.NewId(), draft);
    const uint32_t block = 0;
    draft.work.kv_blocks = &block;
    draft.work.kv_block_count = 1;
    EXPECT_EQ(bench_.Submit(draft.work), RETICLE_INVALID_ARGUMENT);
    return;
  }
  Draft beyond;
  Fill(bench_.NewId(), beyond);
  std::vector<uint32_t> wrong = blocks_;
  wrong[0] = bench_.caps().kv_block_count;
  beyond.work.kv_blocks = wrong.data();
  EXPECT_EQ(bench_.Submit(beyond.work), RETICLE_INVALID_ARGUMENT);
  Draft none;
  Fill(bench_.NewId(), none);
  none.work.kv_blocks = nullptr;
  none.work.kv_block_count = 0;
  EXPECT_EQ(bench_.Submit(none.work), RETICLE_INVALID_ARGUMENT);

  const uint32_t size = bench_.caps().kv_block_tokens;
  const std::vector<uint32_t> tokens =
      MakePrompt(bench_.caps(), std::min(size + 1, bench_.caps().max_prefill_chunk), 3);
  if (tokens.size() <= size) return;
  reticle_work shortened = bench_.Prefill(bench_.NewId(), tokens, blocks_);
  shortened.kv_block_count = 1;
  EXPECT_EQ(bench_.Submit(shortened), RETICLE_INVALID_ARGUMENT) << "one block, one token more";
  EXPECT_EQ(bench_.LiveByStats(), 0u);
}

TEST_F(RefusalConformance, TheLongestChunkIsALimit) {
  const uint64_t chunk = bench_.caps().max_prefill_chunk;
  if (chunk + 1 >= bench_.caps().context_limit) return;  // the context is the limit then
  const std::vector<uint32_t> tokens =
      MakePrompt(bench_.caps(), static_cast<uint32_t>(chunk + 1), 3);
  const std::vector<uint32_t> blocks = bench_.TakeBlocks(tokens.size());
  EXPECT_EQ(bench_.Submit(bench_.Prefill(bench_.NewId(), tokens, blocks)),
            RETICLE_INVALID_ARGUMENT);
}

TEST_F(RefusalConformance, ASequenceGoesOnWhereItStands) {
  const uint64_t sequence = bench_.NewId();
  Draft draft;
  Fill(sequence, draft);
  draft.work.token_count = 4;
  draft.work.decode_credits = 0;
  draft.work.sampling = nullptr;
  ASSERT_EQ(bench_.Submit(draft.work), RETICLE_OK) << bench_.last_message();
  bench_.Adopt(sequence, 6, 1);

  Draft next;
  Fill(sequence, next);
  next.work.tokens = request_.prompt.data() + 4;
  next.work.token_count = 2;
  for (const uint32_t wrong : {0u, 3u, 5u}) {
    next.work.position = wrong;
    EXPECT_EQ(bench_.Submit(next.work), RETICLE_INVALID_ARGUMENT) << "position " << wrong;
  }
  reticle_work top_up{};
  top_up.struct_size = sizeof(top_up);
  top_up.sequence = sequence;
  top_up.decode_credits = 1;
  EXPECT_EQ(bench_.Submit(top_up), RETICLE_INVALID_ARGUMENT) << "nothing was sampled yet";
  next.work.position = 4;
  ASSERT_EQ(bench_.Submit(next.work), RETICLE_OK) << bench_.last_message();
  ASSERT_TRUE(bench_.PumpUntil([&] { return bench_.OutputOf(sequence).tokens.size() == 1; }));
  EXPECT_EQ(bench_.OutputOf(sequence).tokens[0], expected_[0]);
  bench_.Finish();
}

TEST_F(RefusalConformance, CreditsAloneBeginNoSequence) {
  reticle_work work{};
  work.struct_size = sizeof(work);
  work.sequence = bench_.NewId();
  work.decode_credits = 1;
  EXPECT_EQ(bench_.Submit(work), RETICLE_NOT_FOUND);
  EXPECT_EQ(bench_.LiveByStats(), 0u);
}

TEST_F(RefusalConformance, ItemsBehindARefusedOneHaveNoEffect) {
  std::vector<Draft> drafts(3);
  std::vector<reticle_work> works;
  for (Draft& draft : drafts) {
    Fill(bench_.NewId(), draft);
    draft.work.decode_credits = 0;
    draft.work.sampling = nullptr;
    works.push_back(draft.work);
  }
  drafts[1].tokens[0] = UINT32_MAX;
  size_t accepted = 99;
  reticle_error error{};
  error.struct_size = sizeof(error);
  EXPECT_EQ(bench_.api().submit(bench_.device(), works.data(), sizeof(reticle_work), works.size(),
                                &accepted, &error),
            RETICLE_INVALID_ARGUMENT);
  EXPECT_EQ(accepted, 1u);
  bench_.Adopt(works[0].sequence, 6, 0);
  EXPECT_EQ(bench_.LiveByStats(), 1u);
  EXPECT_EQ(bench_.api().cancel(bench_.device(), works[2].sequence, nullptr), RETICLE_NOT_FOUND);
  bench_.Finish();
}

TEST_F(RefusalConformance, NothingToSubmitOrToPollIsFine) {
  size_t count = 99;
  EXPECT_EQ(bench_.api().submit(bench_.device(), nullptr, sizeof(reticle_work), 0, &count, nullptr),
            RETICLE_OK);
  EXPECT_EQ(count, 0u);
  count = 99;
  EXPECT_EQ(
      bench_.api().poll(bench_.device(), nullptr, sizeof(reticle_completion), 0, &count, nullptr),
      RETICLE_OK);
  EXPECT_EQ(count, 0u);
}

}  // namespace
}  // namespace reticle::backends::conformance
