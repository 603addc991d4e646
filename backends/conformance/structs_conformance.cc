// Structs of hosts that are older (smaller structs) or newer (larger ones) than the driver.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#include "backends/conformance/bench.h"

namespace reticle::backends::conformance {
namespace {

constexpr unsigned char kCanary = 0xA5;
constexpr size_t kExtra = 96;

// Memory for a T of `room` bytes with canaries behind it.
template <typename T>
class Room {
 public:
  explicit Room(size_t room) : room_(room), words_((room + kExtra) / 8 + 2, 0) {
    std::memset(words_.data(), kCanary, words_.size() * 8);
    get()->struct_size = room;
  }
  T* get() { return reinterpret_cast<T*>(words_.data()); }
  // True if nothing from byte `from` on was written.
  bool IsUntouchedFrom(size_t from) const {
    const auto* bytes = reinterpret_cast<const unsigned char*>(words_.data());
    return std::all_of(bytes + from, bytes + words_.size() * 8,
                       [](unsigned char byte) { return byte == kCanary; });
  }
  size_t room() const { return room_; }

 private:
  size_t room_;
  std::vector<uint64_t> words_;
};

class StructsConformance : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(bench_.ok()); }

  // Fills rooms of several sizes and checks that no byte is written behind what struct_size says.
  template <typename T, typename Fill>
  void CheckFilled(std::initializer_list<size_t> rooms, Fill fill) {
    for (const size_t size : rooms) {
      SCOPED_TRACE(size);
      Room<T> room(size);
      ASSERT_EQ(fill(room.get()), RETICLE_OK);
      EXPECT_LE(room.get()->struct_size, size);
      EXPECT_GE(room.get()->struct_size, std::min(size, sizeof(size_t)));
      EXPECT_TRUE(room.IsUntouchedFrom(std::min(size, room.get()->struct_size)));
    }
  }

  Request Short() {
    Request request;
    request.prompt = MakePrompt(bench_.caps(), 6, 1);
    request.max_tokens = 1;
    return request;
  }

  Bench bench_;
};

TEST_F(StructsConformance, OutputStructsAreFilledNoFurtherThanTheyReach) {
  CheckFilled<reticle_capabilities>(
      {offsetof(reticle_capabilities, features), sizeof(reticle_capabilities),
       sizeof(reticle_capabilities) + kExtra},
      [&](auto* caps) { return bench_.api().describe(bench_.device(), caps, nullptr); });
  CheckFilled<reticle_stats>(
      {offsetof(reticle_stats, steps), sizeof(reticle_stats), sizeof(reticle_stats) + kExtra},
      [&](auto* stats) { return bench_.api().stats(bench_.device(), stats, nullptr); });
  CheckFilled<reticle_health>(
      {offsetof(reticle_health, reason), sizeof(reticle_health), sizeof(reticle_health) + kExtra},
      [&](auto* health) { return bench_.api().health(bench_.device(), health, nullptr); });
}

TEST_F(StructsConformance, ErrorsAreCutToTheirRoomOrLeftOut) {
  const reticle_device_api& api = bench_.api();
  EXPECT_EQ(api.cancel(bench_.device(), 999999, nullptr), RETICLE_NOT_FOUND);
  for (const size_t size : {offsetof(reticle_error, message) + 5, sizeof(reticle_error),
                            sizeof(reticle_error) + kExtra}) {
    SCOPED_TRACE(size);
    Room<reticle_error> room(size);
    EXPECT_EQ(api.cancel(bench_.device(), 999999, room.get()), RETICLE_NOT_FOUND);
    EXPECT_EQ(room.get()->code, RETICLE_NOT_FOUND);
    const size_t text = std::min(size, sizeof(reticle_error)) - offsetof(reticle_error, message);
    EXPECT_NE(std::memchr(room.get()->message, '\0', text), nullptr) << "no end of the message";
    EXPECT_TRUE(room.IsUntouchedFrom(std::min(size, sizeof(reticle_error))));
  }
}

TEST_F(StructsConformance, WorkOfANewerHostIsReadWithItsStride) {
  const std::vector<uint32_t> expected = bench_.Run(Short()).tokens;
  const Request request = Short();
  constexpr size_t kStride = sizeof(reticle_work) + kExtra;
  std::vector<uint64_t> memory(2 * kStride / 8);
  std::memset(memory.data(), kCanary, memory.size() * 8);
  std::vector<uint64_t> params_memory((sizeof(reticle_sampling) + kExtra) / 8);
  std::memset(params_memory.data(), kCanary, params_memory.size() * 8);
  reticle_sampling params = request.params;
  params.struct_size = sizeof(reticle_sampling) + kExtra;
  params.prompt_tokens = 6;
  std::memcpy(params_memory.data(), &params, sizeof(params));
  std::vector<std::vector<uint32_t>> blocks;
  std::vector<uint64_t> ids;
  for (size_t i = 0; i < 2; ++i) {
    blocks.push_back(bench_.TakeBlocks(7));
    ids.push_back(bench_.NewId());
    reticle_work work = bench_.Prefill(ids[i], request.prompt, blocks[i]);
    work.struct_size = kStride;
    work.decode_credits = 1;
    work.sampling = reinterpret_cast<const reticle_sampling*>(params_memory.data());
    std::memcpy(reinterpret_cast<char*>(memory.data()) + i * kStride, &work, sizeof(work));
    bench_.Adopt(ids[i], 6, 1);
  }
  size_t accepted = 0;
  reticle_error error{};
  error.struct_size = sizeof(error);
  const size_t count = std::min(2u, bench_.caps().max_sequences);
  ASSERT_EQ(
      bench_.api().submit(bench_.device(), reinterpret_cast<const reticle_work*>(memory.data()),
                          kStride, count, &accepted, &error),
      RETICLE_OK)
      << error.message;
  ASSERT_EQ(accepted, count);
  for (size_t i = 0; i < count; ++i) {
    ASSERT_TRUE(bench_.PumpUntil([&] { return bench_.OutputOf(ids[i]).tokens.size() == 1; }));
    EXPECT_EQ(bench_.OutputOf(ids[i]).tokens, expected);
    bench_.Cancel(ids[i]);
    ASSERT_TRUE(bench_.PumpUntil([&] { return bench_.IsEnded(ids[i]); }));
  }
}

TEST_F(StructsConformance, WhatAnOlderHostDoesNotHaveCountsAsZero) {
  const std::vector<uint32_t> expected = bench_.Run(Short()).tokens;
  const Request request = Short();
  const std::vector<uint32_t> blocks = bench_.TakeBlocks(7);
  // The host knows nothing of token_mask and what follows, nor of logit_bias and what follows;
  // garbage lies where a newer struct would have them.
  reticle_sampling params;
  std::memset(static_cast<void*>(&params), kCanary, sizeof(params));
  std::memcpy(static_cast<void*>(&params), &request.params, offsetof(reticle_sampling, logit_bias));
  params.struct_size = offsetof(reticle_sampling, logit_bias);
  params.prompt_tokens = 6;
  reticle_work work;
  std::memset(static_cast<void*>(&work), kCanary, sizeof(work));
  const uint64_t id = bench_.NewId();
  const reticle_work whole = bench_.Prefill(id, request.prompt, blocks);
  std::memcpy(static_cast<void*>(&work), &whole, offsetof(reticle_work, token_mask));
  work.struct_size = offsetof(reticle_work, token_mask);
  work.decode_credits = 1;
  work.sampling = &params;
  size_t accepted = 0;
  reticle_error error{};
  error.struct_size = sizeof(error);
  ASSERT_EQ(bench_.api().submit(bench_.device(), &work, offsetof(reticle_work, token_mask), 1,
                                &accepted, &error),
            RETICLE_OK)
      << error.message;
  bench_.Adopt(id, 6, 1);
  ASSERT_TRUE(bench_.PumpUntil([&] { return bench_.OutputOf(id).tokens.size() == 1; }));
  EXPECT_EQ(bench_.OutputOf(id).tokens, expected);
  bench_.Finish();
}

TEST_F(StructsConformance, CompletionsAreWrittenAtTheHostsStride) {
  for (const size_t stride : {offsetof(reticle_completion, logprob), sizeof(reticle_completion),
                              sizeof(reticle_completion) + kExtra}) {
    SCOPED_TRACE(stride);
    Bench bench;
    ASSERT_TRUE(bench.ok());
    const Request request = Short();
    const std::vector<uint32_t> expected = bench_.Run(request).tokens;
    const std::vector<uint32_t> blocks = bench.TakeBlocks(7);
    reticle_sampling params = request.params;
    params.prompt_tokens = 6;
    reticle_work work = bench.Prefill(7, request.prompt, blocks);
    work.decode_credits = 1;
    work.sampling = &params;
    ASSERT_EQ(bench.Submit(work), RETICLE_OK) << bench.last_message();
    constexpr size_t kCapacity = 8;
    size_t seen = 0;
    const auto start = std::chrono::steady_clock::now();
    while (seen < 2) {
      ASSERT_LT(std::chrono::steady_clock::now() - start,
                std::chrono::seconds(TheSubject().patience_s));
      std::vector<unsigned char> memory(kCapacity * stride + kExtra, kCanary);
      size_t count = 0;
      ASSERT_EQ(
          bench.api().poll(bench.device(), reinterpret_cast<reticle_completion*>(memory.data()),
                           stride, kCapacity, &count, nullptr),
          RETICLE_OK);
      for (size_t i = 0; i < kCapacity; ++i) {
        const unsigned char* at = memory.data() + i * stride;
        size_t filled = 0;
        if (i < count) {
          reticle_completion completion{};
          std::memcpy(static_cast<void*>(&completion), at, std::min(stride, sizeof(completion)));
          filled = completion.struct_size;
          ASSERT_LE(filled, stride);
          EXPECT_EQ(completion.sequence, 7u);
          EXPECT_EQ(completion.kind, seen == 0 ? uint32_t{RETICLE_COMPLETION_PREFILL}
                                               : uint32_t{RETICLE_COMPLETION_TOKEN});
          if (seen == 1) {
            EXPECT_EQ(completion.token, expected[0]);
          }
          ++seen;
        }
        EXPECT_TRUE(std::all_of(at + filled, at + stride,
                                [](unsigned char byte) { return byte == kCanary; }));
      }
      EXPECT_EQ(memory.back(), kCanary);
    }
  }
}

}  // namespace
}  // namespace reticle::backends::conformance
