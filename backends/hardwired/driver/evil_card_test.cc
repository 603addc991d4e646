// A card process that lies with right check words, and spoils rings and registers: the driver may
// lose the device, but what it hands on makes sense, nothing crashes, and each sequence ends once.
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <map>

#include "backends/hardwired/driver/device_test_util.h"

namespace reticle::backends::hardwired {
namespace {

constexpr int kSeeds = 48;
constexpr int kPolls = 600;

class EvilCardTest : public ::testing::Test {
 protected:
  static constexpr uint32_t kPrompt = 8;

  void Open(int seed) {
    ASSERT_EQ(setenv("EVIL_CARD_SEED", std::to_string(seed).c_str(), 1), 0);
    auto device = OpenCard({{"compute", "synthetic"},
                            {"card", "process"},
                            {"card_program", EVIL_CARD},
                            {"watchdog_ms", "50"}});
    ASSERT_TRUE(device.ok()) << device.status();
    device_ = *std::move(device);
    caps_ = device_->capabilities();
    ends_.clear();
    tokens_.clear();
    next_id_ = 0;
  }

  bool Begin() {
    const std::vector<uint32_t> prompt(kPrompt, 3);
    const reticle_sampling sampling = GreedySampling();
    reticle_work work{};
    work.struct_size = sizeof(work);
    work.sequence = ++next_id_;
    work.tag = next_id_;
    work.tokens = prompt.data();
    work.token_count = kPrompt;
    work.decode_credits = 16;
    work.sampling = &sampling;
    work.next_token = RETICLE_NO_TOKEN;
    absl::Status refusal;
    if (device_->Submit({&work, 1}, &refusal) != 1) return false;
    ends_[next_id_] = 0;
    return true;
  }

  // Until the card has said something.
  void Sleep() const {
    pollfd fd{caps_.event_fd, POLLIN, 0};
    constexpr int kPatienceMs = 10;
    if (poll(&fd, 1, kPatienceMs) <= 0) return;
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t taken = read(caps_.event_fd, &count, sizeof(count));
  }

  // False when the device is lost.
  bool Poll() {
    const auto count = device_->Poll(completions_);
    if (!count.ok()) return false;
    for (size_t i = 0; i < *count; ++i) Check(completions_[i]);
    return true;
  }

  void Check(const reticle_completion& completion) {
    const auto end = ends_.find(completion.sequence);
    ASSERT_NE(end, ends_.end());
    EXPECT_EQ(end->second, 0) << "something came behind the end of " << completion.sequence;
    EXPECT_LT(completion.token, caps_.vocab_size);
    EXPECT_LE(completion.finish, uint32_t{RETICLE_FINISH_ERROR});
    EXPECT_LE(completion.top_count, caps_.max_logprobs);
    for (uint32_t i = 0; i < completion.top_count; ++i) {
      EXPECT_LT(completion.top[i].token, caps_.vocab_size);
      EXPECT_FALSE(std::isnan(completion.top[i].logprob));
    }
    EXPECT_FALSE(std::isnan(completion.logprob));
    if (completion.message != nullptr) {
      for (const char* c = completion.message; *c != '\0'; ++c) {
        EXPECT_TRUE(*c >= ' ' && *c <= '~') << static_cast<int>(*c);
      }
    }
    if (completion.kind == RETICLE_COMPLETION_TOKEN) {
      EXPECT_EQ(completion.position, kPrompt + tokens_[completion.sequence]++);
    }
    if (completion.finish != RETICLE_FINISH_NONE) ++end->second;
  }

  std::unique_ptr<Device> device_;
  reticle_capabilities caps_{};
  std::vector<reticle_completion> completions_ = std::vector<reticle_completion>(64);
  std::map<uint64_t, int> ends_;
  std::map<uint64_t, uint32_t> tokens_;
  uint64_t next_id_ = 0;
};

TEST_F(EvilCardTest, NothingThatACardSaysIsBelieved) {
  int losses = 0;
  uint64_t tokens = 0;
  for (int seed = 1; seed <= kSeeds && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Open(seed);
    bool works = true;
    for (int i = 0; i < kPolls && works; ++i) {
      if (i % 20 == 0) works = Begin();
      if (i % 50 == 0) device_->Cancel(1 + next_id_ / 2).IgnoreError();
      EXPECT_TRUE(device_->Stats().ok());
      EXPECT_TRUE(device_->Health().ok());
      if (works && !device_->Arm()) Sleep();
      works = works && Poll();
    }
    losses += works ? 0 : 1;
    if (!device_->Reset().ok()) continue;  // the next one lies while it is started
    while (Poll() &&
           std::any_of(ends_.begin(), ends_.end(), [](auto e) { return e.second == 0; })) {
    }
    for (const auto& [id, ends] : ends_) EXPECT_LE(ends, 1) << id;
    for (const auto& [id, count] : tokens_) tokens += count;
  }
  // It was worth it: many cards were found out, and not before they had said something true.
  EXPECT_GT(losses, kSeeds / 3);
  EXPECT_GT(tokens, uint64_t{kSeeds});
}

}  // namespace
}  // namespace reticle::backends::hardwired
