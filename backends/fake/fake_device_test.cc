#include "backends/fake/fake_device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <numeric>
#include <vector>

#include "backends/abi/device.h"
#include "backends/fake/fake_content.h"

namespace reticle::backends::fake {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

using Options = std::vector<std::pair<std::string, std::string>>;

reticle_sampling Params(uint32_t prompt_tokens) {
  reticle_sampling params{};
  params.struct_size = sizeof(params);
  params.temperature = 1;
  params.top_p = 1;
  params.repetition_penalty = 1;
  params.seed = 17;
  params.prompt_tokens = prompt_tokens;
  return params;
}

class FakeDeviceTest : public ::testing::Test {
 protected:
  void Open(Options options) {
    DeviceConfig config;
    config.options = std::move(options);
    auto device = Device::Open(*Driver::FromApi(FakeDeviceApi()), config);
    ASSERT_TRUE(device.ok()) << device.status();
    device_ = *std::move(device);
  }

  // Feeds `tokens` of a sequence from `position` on, with `credits` after them.
  absl::Status Feed(uint64_t sequence, uint32_t position, const std::vector<uint32_t>& tokens,
                    uint32_t credits, const std::vector<uint32_t>& blocks,
                    const reticle_sampling* params) {
    reticle_work work{};
    work.struct_size = sizeof(work);
    work.sequence = sequence;
    work.position = position;
    work.tokens = tokens.data();
    work.token_count = static_cast<uint32_t>(tokens.size());
    work.decode_credits = credits;
    work.kv_blocks = blocks.empty() ? nullptr : blocks.data();
    work.kv_block_count = static_cast<uint32_t>(blocks.size());
    work.sampling = params;
    absl::Status refusal;
    device_->Submit({&work, 1}, &refusal);
    return refusal;
  }

  std::vector<reticle_completion> Poll(size_t capacity = 100) {
    std::vector<reticle_completion> completions(capacity);
    const auto count = device_->Poll(completions);
    EXPECT_TRUE(count.ok()) << count.status();
    completions.resize(count.ok() ? *count : 0);
    return completions;
  }

  std::vector<uint32_t> PollTokens() {
    std::vector<uint32_t> tokens;
    for (const reticle_completion& completion : Poll()) {
      if (completion.kind == RETICLE_COMPLETION_TOKEN) tokens.push_back(completion.token);
    }
    return tokens;
  }

  std::unique_ptr<Device> device_;
  const std::vector<uint32_t> prompt_ = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3};
};

TEST_F(FakeDeviceTest, SaysWhatTheContentFunctionExpects) {
  for (const char* mode : {"paged", "slots"}) {
    Open({{"mode", mode}, {"block_tokens", "4"}});
    const reticle_sampling params = Params(10);
    const std::vector<uint32_t> blocks = mode == std::string("paged")
                                             ? std::vector<uint32_t>{7, 3, 9, 1, 0, 2, 8}
                                             : std::vector<uint32_t>{};
    ASSERT_TRUE(Feed(1, 0, prompt_, 16, blocks, &params).ok());
    EXPECT_EQ(PollTokens(), ExpectedTokens(FakeContent{}, prompt_, params, 16)) << mode;
  }
}

TEST_F(FakeDeviceTest, OutputDependsOnEveryTokenPositionAndSeed) {
  const reticle_sampling params = Params(10);
  const FakeContent content;
  const auto base = ExpectedTokens(content, prompt_, params, 8);
  for (size_t i = 0; i < prompt_.size(); ++i) {
    std::vector<uint32_t> changed = prompt_;
    ++changed[i];
    EXPECT_NE(ExpectedTokens(content, changed, params, 8), base);
  }
  reticle_sampling other_seed = params;
  other_seed.seed = 18;
  EXPECT_NE(ExpectedTokens(content, prompt_, other_seed, 8), base);
  EXPECT_NE(ExpectedTokens(content, prompt_, params, 8, /*adapter_key=*/1), base);
}

TEST_F(FakeDeviceTest, ACachedPrefixServesAnotherSequence) {
  Open({{"block_tokens", "4"}});
  const reticle_sampling params = Params(10);
  ASSERT_TRUE(Feed(1, 0, prompt_, 1, {0, 1, 2}, &params).ok());
  Poll();
  ASSERT_TRUE(Feed(2, 8, {5, 3}, 4, {0, 1, 3, 4}, &params).ok());
  EXPECT_EQ(PollTokens(), ExpectedTokens(FakeContent{}, prompt_, params, 4));
}

TEST_F(FakeDeviceTest, AWrongPrefixBlockChangesTheOutputAlthoughItsTokensAreTheSame) {
  Open({{"block_tokens", "4"}});
  const reticle_sampling params = Params(10);
  const std::vector<uint32_t> other = {9, 9, 9, 9, 5, 9, 2, 6, 5, 3};  // same second block
  ASSERT_TRUE(Feed(1, 0, prompt_, 1, {0, 1, 2}, &params).ok());
  ASSERT_TRUE(Feed(2, 0, other, 1, {10, 11, 12}, &params).ok());
  Poll();
  ASSERT_TRUE(Feed(3, 8, {5, 3}, 4, {0, 11, 3, 4}, &params).ok());
  EXPECT_NE(PollTokens(), ExpectedTokens(FakeContent{}, prompt_, params, 4));
}

TEST_F(FakeDeviceTest, ABlockWrittenByTwoSequencesChangesTheOutput) {
  Open({{"block_tokens", "4"}});
  const reticle_sampling params = Params(10);
  ASSERT_TRUE(Feed(1, 0, prompt_, 4, {0, 1, 2, 3}, &params).ok());
  ASSERT_TRUE(Feed(2, 0, {8, 8, 8, 8, 8, 8, 8, 8, 8, 8}, 4, {5, 1, 6, 7}, &params).ok());
  std::vector<uint32_t> tokens;
  for (const reticle_completion& completion : Poll()) {
    if (completion.sequence == 1 && completion.kind == RETICLE_COMPLETION_TOKEN) {
      tokens.push_back(completion.token);
    }
  }
  EXPECT_NE(tokens, ExpectedTokens(FakeContent{}, prompt_, params, 4));
}

TEST_F(FakeDeviceTest, AScriptIsFollowedAndThenStops) {
  for (const char* content : {"logits", "fast"}) {
    Open({{"script", "11,12,13"}, {"mode", "slots"}, {"content", content}});
    const uint32_t stop = 99;
    reticle_sampling params = Params(10);
    params.stop_ids = &stop;
    params.stop_id_count = 1;
    ASSERT_TRUE(Feed(1, 0, prompt_, 10, {}, &params).ok());
    EXPECT_THAT(PollTokens(), ElementsAre(11, 12, 13, 99)) << content;
    params.stop_id_count = 0;
    ASSERT_TRUE(Feed(2, 0, prompt_, 5, {}, &params).ok());
    EXPECT_THAT(PollTokens(), ElementsAre(11, 12, 13, 11, 12)) << content;
  }
}

TEST_F(FakeDeviceTest, FastContentIsAFunctionToo) {
  Open({{"mode", "slots"}, {"content", "fast"}, {"vocab", "1000"}});
  const FakeContent content{.vocab_size = 1000, .fast = true, .script = {}};
  const reticle_sampling params = Params(10);
  ASSERT_TRUE(Feed(1, 0, prompt_, 20, {}, &params).ok());
  EXPECT_EQ(PollTokens(), ExpectedTokens(content, prompt_, params, 20));
}

TEST_F(FakeDeviceTest, SlotsRunOutAsAnErrorOfTheSequence) {
  Open({{"mode", "slots"}, {"blocks", "3"}, {"block_tokens", "4"}});
  const reticle_sampling params = Params(10);
  ASSERT_TRUE(Feed(1, 0, prompt_, 10, {}, &params).ok());
  EXPECT_EQ(Feed(2, 0, prompt_, 10, {}, &params).code(), absl::StatusCode::kResourceExhausted);
  const auto completions = Poll();
  ASSERT_THAT(completions, SizeIs(5));  // prefill, tokens at 10, 11, 12 and the end
  EXPECT_EQ(completions.back().finish, uint32_t{RETICLE_FINISH_ERROR});
  EXPECT_EQ(completions.back().status, RETICLE_RESOURCE_EXHAUSTED);
  EXPECT_THAT(completions.back().message, HasSubstr("12"));
}

TEST_F(FakeDeviceTest, InjectedFaultsStrikeOnce) {
  Open({{"mode", "slots"}, {"fail_submit", "1"}, {"refuse_every", "2"}, {"error_token", "3"}});
  const reticle_sampling params = Params(10);
  EXPECT_EQ(Feed(1, 0, prompt_, 4, {}, &params).code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(Feed(1, 0, prompt_, 4, {}, &params).ok());
  EXPECT_EQ(Feed(2, 0, prompt_, 4, {}, &params).code(), absl::StatusCode::kResourceExhausted);
  const auto completions = Poll();
  ASSERT_THAT(completions, SizeIs(4));
  EXPECT_EQ(completions.back().status, RETICLE_INTERNAL);
  EXPECT_TRUE(Feed(3, 0, prompt_, 4, {}, &params).ok());
}

TEST_F(FakeDeviceTest, HangsAndIsLostUntilReset) {
  for (const char* fault : {"hang_step", "lost_step"}) {
    Open({{"mode", "slots"}, {fault, "3"}});
    const reticle_sampling params = Params(10);
    ASSERT_TRUE(Feed(1, 0, prompt_, 9, {}, &params).ok());
    std::vector<reticle_completion> completions(100);
    const auto count = device_->Poll(completions);
    if (fault == std::string("hang_step")) {
      ASSERT_TRUE(count.ok());
      EXPECT_EQ(*count, 3u);
      EXPECT_THAT(Poll(), IsEmpty());
    } else {
      EXPECT_EQ(count.status().code(), absl::StatusCode::kUnavailable);
      EXPECT_EQ(Feed(2, 0, prompt_, 9, {}, &params).code(), absl::StatusCode::kUnavailable);
    }
    EXPECT_EQ(device_->Health()->state, uint32_t{RETICLE_HEALTH_FAILED});
    ASSERT_TRUE(device_->Reset().ok());
    EXPECT_EQ(device_->Health()->state, uint32_t{RETICLE_HEALTH_READY});
    const auto after = Poll();
    ASSERT_FALSE(after.empty());
    EXPECT_EQ(after.back().status, RETICLE_ABORTED);
    ASSERT_TRUE(Feed(3, 0, prompt_, 9, {}, &params).ok());
    EXPECT_EQ(PollTokens(), ExpectedTokens(FakeContent{}, prompt_, params, 9));
  }
}

TEST_F(FakeDeviceTest, ATestReachesADeviceByItsName) {
  Open({{"mode", "slots"}, {"name", "by-name"}});
  const auto control = FindFakeDevice("by-name");
  ASSERT_NE(control, nullptr);
  EXPECT_EQ(FindFakeDevice("nobody"), nullptr);
  const reticle_sampling params = Params(10);
  control->RefuseItems(1);
  EXPECT_FALSE(Feed(1, 0, prompt_, 2, {}, &params).ok());
  EXPECT_TRUE(Feed(1, 0, prompt_, 2, {}, &params).ok());
  EXPECT_EQ(control->live_sequences(), 1u);
  Poll();
  EXPECT_EQ(control->tokens_fed(), 11u);
  control->FailNextToken();
  EXPECT_TRUE(Feed(2, 0, prompt_, 2, {}, &params).ok());
  EXPECT_EQ(Poll().back().status, RETICLE_INTERNAL);
  control->Hang();
  EXPECT_TRUE(Feed(3, 0, prompt_, 2, {}, &params).ok());
  EXPECT_THAT(Poll(), IsEmpty());
  ASSERT_TRUE(device_->Reset().ok());
  Poll();
  control->Lose();
  EXPECT_EQ(device_->Health()->state, uint32_t{RETICLE_HEALTH_FAILED});
}

TEST_F(FakeDeviceTest, AStepTakesItsTimeAndTheDescriptorTellsItsEnd) {
  Open({{"mode", "slots"}, {"step_ns", "3000000"}});
  const reticle_sampling params = Params(10);
  ASSERT_TRUE(Feed(1, 0, prompt_, 1, {}, &params).ok());
  EXPECT_THAT(Poll(), IsEmpty());
  ASSERT_FALSE(device_->Arm());
  pollfd descriptor{device_->capabilities().event_fd, POLLIN, 0};
  ASSERT_EQ(poll(&descriptor, 1, 10'000), 1);
  uint64_t events = 0;
  ASSERT_EQ(read(descriptor.fd, &events, sizeof(events)), 8);
  const auto completions = Poll();
  ASSERT_THAT(completions, SizeIs(2));
  EXPECT_EQ(completions.back().busy_ns, 3'000'000u);
}

TEST_F(FakeDeviceTest, ACancelWakesAnArmedHostBeforeTheStepEnds) {
  Open({{"mode", "slots"}, {"step_ns", "50000000000"}});
  const reticle_sampling params = Params(10);
  ASSERT_TRUE(Feed(1, 0, prompt_, 1, {}, &params).ok());
  ASSERT_FALSE(device_->Arm());
  ASSERT_TRUE(device_->Cancel(1).ok());
  pollfd descriptor{device_->capabilities().event_fd, POLLIN, 0};
  ASSERT_EQ(poll(&descriptor, 1, 10'000), 1);
  ASSERT_THAT(Poll(), SizeIs(1));
}

TEST_F(FakeDeviceTest, RefusesOptionsThatItCannotHonour) {
  const Driver driver = *Driver::FromApi(FakeDeviceApi());
  const auto refusal = [&](Options options) {
    DeviceConfig config;
    config.options = std::move(options);
    return Device::Open(driver, config).status();
  };
  EXPECT_THAT(std::string(refusal({{"colour", "red"}}).message()), HasSubstr("colour"));
  EXPECT_THAT(std::string(refusal({{"vocab", "-1"}}).message()), HasSubstr("vocab is '-1'"));
  EXPECT_THAT(std::string(refusal({{"vocab", "1"}}).message()), HasSubstr("2 .. "));
  EXPECT_THAT(std::string(refusal({{"mode", "both"}}).message()), HasSubstr("paged or slots"));
  EXPECT_THAT(std::string(refusal({{"script", "1,x"}}).message()), HasSubstr("'x'"));
  EXPECT_THAT(std::string(refusal({{"script", "300"}}).message()), HasSubstr("256"));
  EXPECT_EQ(refusal({{"fail_open", "1"}}).code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace reticle::backends::fake
