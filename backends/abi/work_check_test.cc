#include "backends/abi/work_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace reticle::backends {
namespace {

using ::testing::HasSubstr;

class WorkCheckTest : public ::testing::Test {
 protected:
  WorkCheckTest() {
    caps_.vocab_size = 50;
    caps_.context_limit = 64;
    caps_.kv_mode = RETICLE_KV_HOST_PAGED;
    caps_.kv_block_tokens = 4;
    caps_.kv_block_count = 20;
    caps_.max_prefill_chunk = 32;
    caps_.max_decode_credits = 8;
    caps_.features = ~0ull;
    caps_.max_logprobs = 5;
    params_.struct_size = sizeof(params_);
    work_.struct_size = sizeof(work_);
    work_.tokens = tokens_.data();
    work_.token_count = 6;
    work_.decode_credits = 1;
    work_.kv_blocks = blocks_.data();
    work_.kv_block_count = 2;
  }
  std::string Check() { return CheckWork(work_, sampling_, sequence_, caps_).ToString(); }
  // A live sequence that holds `credits` behind `position`.
  void Live(uint32_t position, uint32_t credits, bool has_sampled) {
    sequence_.state = SequenceView::State::kAlive;
    sequence_.next_position = position;
    sequence_.credits = credits;
    sequence_.has_sampled = has_sampled;
    sequence_.has_sampling = true;
    sequence_.kv_block_count = 2;
    sampling_ = nullptr;
  }
  void TopUp(uint32_t credits) {
    work_.token_count = 0;
    work_.tokens = nullptr;
    work_.decode_credits = credits;
    work_.kv_blocks = nullptr;
    work_.kv_block_count = 0;
  }

  reticle_capabilities caps_{};
  reticle_sampling params_{};
  const reticle_sampling* sampling_ = &params_;
  SequenceView sequence_;
  reticle_work work_{};
  std::vector<uint32_t> tokens_ = std::vector<uint32_t>(64, 7);
  std::vector<uint32_t> blocks_ = {3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18};
};

TEST_F(WorkCheckTest, TheBlockTableReachesAsFarAsTheSequenceWillFeed) {
  EXPECT_EQ(Check(), "OK");
  work_.decode_credits = 3;  // feeds 6 + 2 of its own
  EXPECT_EQ(Check(), "OK");
  work_.decode_credits = 4;
  EXPECT_THAT(Check(), HasSubstr("holds 8 positions; the work needs 9"));
  work_.kv_block_count = 3;
  EXPECT_EQ(Check(), "OK");
}

TEST_F(WorkCheckTest, CreditsPastTheContextLimitNeedNoBlocks) {
  caps_.max_decode_credits = 1000;
  work_.decode_credits = 1000;
  work_.kv_block_count = 16;
  EXPECT_EQ(FedWhenSpent(work_, sequence_, 64), 63u);
  EXPECT_EQ(Check(), "OK");
}

TEST_F(WorkCheckTest, TopUpsCountWhatIsHeld) {
  TopUp(2);
  Live(6, 1, false);  // computing: samples at 6, feeds 6 and 7 then
  EXPECT_EQ(FedWhenSpent(work_, sequence_, 64), 8u);
  EXPECT_EQ(Check(), "OK");
  Live(6, 1, true);
  EXPECT_EQ(FedWhenSpent(work_, sequence_, 64), 9u);
  EXPECT_THAT(Check(), HasSubstr("needs 9"));
  Live(6, 0, true);
  EXPECT_EQ(Check(), "OK");
  Live(6, 0, false);
  EXPECT_THAT(Check(), HasSubstr("sampled no token"));
  Live(6, 7, true);
  EXPECT_THAT(Check(), HasSubstr("holds 7; together at most 8"));
  TopUp(0);
  EXPECT_THAT(Check(), HasSubstr("both 0"));
}

TEST_F(WorkCheckTest, AHeldCreditForbidsTokensParametersAndMasks) {
  Live(6, 2, true);
  work_.position = 6;
  EXPECT_THAT(Check(), HasSubstr("holds 2 credits; it must be 0"));
  TopUp(1);
  sampling_ = &params_;
  EXPECT_THAT(Check(), HasSubstr("sampling comes with a token_count of 0"));
  sampling_ = nullptr;
  const std::vector<uint32_t> mask = {1, 0};
  work_.token_mask = mask.data();
  EXPECT_THAT(Check(), HasSubstr("token_mask"));
  Live(6, 0, true);
  EXPECT_EQ(Check(), "OK");
}

TEST_F(WorkCheckTest, ASequenceThatIsNotAliveTakesNoCredits) {
  TopUp(1);
  EXPECT_THAT(Check(), HasSubstr("NOT_FOUND"));
  work_.token_count = 6;
  work_.tokens = tokens_.data();
  sequence_.state = SequenceView::State::kEnded;
  EXPECT_THAT(Check(), HasSubstr("NOT_FOUND"));
}

TEST_F(WorkCheckTest, OnlyPagedSequencesBeginBehindAPrefix) {
  work_.position = 2;
  EXPECT_EQ(Check(), "OK");
  caps_.kv_mode = RETICLE_KV_DEVICE_SLOTS;
  EXPECT_THAT(Check(), HasSubstr("position is 2; it must be 0"));
  work_.position = 0;
  EXPECT_THAT(Check(), HasSubstr("kv_blocks must be NULL"));
  work_.kv_blocks = nullptr;
  work_.kv_block_count = 0;
  EXPECT_EQ(Check(), "OK");
}

TEST_F(WorkCheckTest, AMaskNeedsABitWithinTheVocabulary) {
  std::vector<uint32_t> mask = {0, 1u << 18};  // token 50
  work_.token_mask = mask.data();
  EXPECT_THAT(Check(), HasSubstr("allows none"));
  mask[1] = 1u << 17;
  EXPECT_EQ(Check(), "OK");
  work_.decode_credits = 2;
  EXPECT_THAT(Check(), HasSubstr("token_mask with decode_credits 2"));
}

TEST_F(WorkCheckTest, TheFirstSampledTokenNeedsAPosition) {
  work_.token_count = 32;
  work_.position = 32;
  work_.kv_block_count = 16;
  EXPECT_THAT(Check(), HasSubstr("+ 1 sampled token passes the context limit of 64"));
  work_.decode_credits = 0;
  EXPECT_EQ(Check(), "OK");
  work_.position = 33;
  EXPECT_THAT(Check(), HasSubstr("context limit"));
  work_.position = UINT32_MAX;
  EXPECT_THAT(Check(), HasSubstr("context limit"));
}

TEST_F(WorkCheckTest, TheAdapterStays) {
  work_.adapter = 3;
  EXPECT_EQ(Check(), "OK");
  Live(0, 0, false);
  EXPECT_THAT(Check(), HasSubstr("adapter is 3; the sequence began with 0"));
  caps_.features = 0;
  EXPECT_THAT(Check(), HasSubstr("UNIMPLEMENTED"));
}

}  // namespace
}  // namespace reticle::backends
