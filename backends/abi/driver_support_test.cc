#include "backends/abi/driver_support.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <string>

namespace reticle::backends {
namespace {

bool IsReadable(int fd) {
  pollfd descriptor{fd, POLLIN, 0};
  return ::poll(&descriptor, 1, 0) == 1;
}

TEST(FillErrorTest, CutsBetweenCharacters) {
  reticle_error error{};
  error.struct_size = offsetof(reticle_error, message) + 6;
  // Two bytes a letter: five bytes of room hold two letters.
  EXPECT_EQ(FillError(&error, RETICLE_ABORTED, "\u00e4\u00f6\u00fc"), RETICLE_ABORTED);
  EXPECT_STREQ(error.message, "\u00e4\u00f6");
  EXPECT_EQ(error.code, RETICLE_ABORTED);
  error.struct_size = sizeof(error);
  FillError(&error, RETICLE_ABORTED, std::string(900, 'x'));
  EXPECT_EQ(std::string(error.message), std::string(499, 'x'));
}

TEST(FillErrorTest, ToleratesNoErrorAndTinyErrors) {
  EXPECT_EQ(FillError(nullptr, RETICLE_INTERNAL, "m"), RETICLE_INTERNAL);
  reticle_error error{};
  error.code = 42;
  error.struct_size = sizeof(size_t);
  EXPECT_EQ(FillError(&error, RETICLE_INTERNAL, "m"), RETICLE_INTERNAL);
  EXPECT_EQ(error.code, 42);
  EXPECT_EQ(FillError(&error, absl::OkStatus()), RETICLE_OK);
}

TEST(WholeStructTest, ReadsNoFurtherThanSizeAndRoom) {
  reticle_work work{};
  work.struct_size = sizeof(work);
  work.adapter = 7;
  reticle_work storage;
  EXPECT_EQ(&WholeStruct(&work, storage), &work);
  EXPECT_EQ(WholeStruct(&work, storage, offsetof(reticle_work, adapter)).adapter, 0u);
  work.struct_size = offsetof(reticle_work, adapter);
  EXPECT_EQ(WholeStruct(&work, storage).adapter, 0u);
}

class CompletionQueueTest : public ::testing::Test {
 protected:
  void Push(uint32_t token, std::vector<reticle_token_logprob> top = {},
            std::string_view message = {}) {
    reticle_completion completion{};
    completion.token = token;
    queue_.Push(completion, top, message);
  }
  std::vector<reticle_completion> Poll(size_t capacity) {
    std::vector<reticle_completion> completions(capacity);
    completions.resize(queue_.Poll(completions.data(), sizeof(reticle_completion), capacity));
    return completions;
  }
  CompletionQueue queue_{/*with_event_fd=*/true};
};

TEST_F(CompletionQueueTest, KeepsOrderThroughGrowthAndPartialPolls) {
  uint32_t pushed = 0;
  uint32_t polled = 0;
  for (int round = 0; round < 200; ++round) {
    for (int i = 0; i < round % 17; ++i) Push(pushed++);
    for (const reticle_completion& completion : Poll(round % 11)) {
      EXPECT_EQ(completion.token, polled++);
    }
    EXPECT_EQ(queue_.size(), pushed - polled);
  }
  for (const reticle_completion& completion : Poll(5000)) EXPECT_EQ(completion.token, polled++);
  EXPECT_EQ(polled, pushed);
  EXPECT_TRUE(queue_.empty());
}

TEST_F(CompletionQueueTest, ListsAndMessagesLiveUntilTheNextPoll) {
  Push(1, {{5, -0.5f}, {6, -1.5f}});
  Push(2, {}, "why");
  const auto first = Poll(10);
  // More arrives, enough to grow the ring, before the host looks.
  for (uint32_t i = 0; i < 300; ++i) Push(i, {{i, 0}}, "another message that is longer");
  ASSERT_EQ(first[0].top_count, 2u);
  EXPECT_EQ(first[0].top[1].token, 6u);
  EXPECT_EQ(first[0].message, nullptr);
  EXPECT_STREQ(first[1].message, "why");
  EXPECT_EQ(first[1].top, nullptr);
  const auto second = Poll(300);
  ASSERT_EQ(second.size(), 300u);
  for (uint32_t i = 0; i < 300; ++i) {
    EXPECT_EQ(second[i].top[0].token, i);
    EXPECT_STREQ(second[i].message, "another message that is longer");
  }
}

TEST_F(CompletionQueueTest, SignalsOnceWhenArmed) {
  Push(1);
  EXPECT_FALSE(IsReadable(queue_.event_fd())) << "nobody asked";
  EXPECT_TRUE(queue_.Arm()) << "one is there";
  Poll(1);
  EXPECT_FALSE(queue_.Arm());
  EXPECT_FALSE(IsReadable(queue_.event_fd()));
  Push(2);
  EXPECT_TRUE(IsReadable(queue_.event_fd()));
  uint64_t events = 0;
  ASSERT_EQ(read(queue_.event_fd(), &events, sizeof(events)), 8);
  Push(3);
  EXPECT_FALSE(IsReadable(queue_.event_fd())) << "one event for one arm";
  Poll(2);
  EXPECT_FALSE(queue_.Arm());
  queue_.Wake();
  EXPECT_TRUE(IsReadable(queue_.event_fd()));
}

TEST(CompletionQueueWithoutEventsTest, IsAlwaysReady) {
  CompletionQueue queue(/*with_event_fd=*/false);
  EXPECT_EQ(queue.event_fd(), -1);
  EXPECT_TRUE(queue.Arm());
}

}  // namespace
}  // namespace reticle::backends
