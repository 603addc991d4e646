// How devices open, sequences live and end: exactly one end for each, whatever happens.
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <set>

#include "backends/abi/host.h"
#include "backends/conformance/bench.h"

namespace reticle::backends::conformance {
namespace {

Request Simple(const Bench& bench, uint32_t length, uint32_t salt, uint32_t max_tokens) {
  Request request;
  request.prompt = MakePrompt(bench.caps(), length, salt);
  request.max_tokens = max_tokens;
  return request;
}

int32_t TryOpen(const reticle_device_config& config, std::string* message) {
  const reticle_device_api& api = TheSubject().driver.api();
  auto* device = reinterpret_cast<reticle_device*>(1);
  reticle_error error{};
  error.struct_size = sizeof(error);
  const int32_t code = api.open(&HostCallbacks(), &config, &device, &error);
  *message = error.message;
  if (code == RETICLE_OK) {
    api.close(device);
  } else {
    EXPECT_EQ(device, nullptr);
  }
  return code;
}

TEST(LifecycleConformance, DescribeIsConstant) {
  Bench bench;
  ASSERT_TRUE(bench.ok());
  reticle_capabilities again{};
  again.struct_size = sizeof(again);
  bench.Run(Simple(bench, 5, 1, 2));
  ASSERT_EQ(bench.api().describe(bench.device(), &again, nullptr), RETICLE_OK);
  EXPECT_EQ(std::memcmp(&again, &bench.caps(), sizeof(again)), 0);
}

TEST(LifecycleConformance, RefusesToOpenWhatItDoesNotKnow) {
  Bench bench;
  ASSERT_TRUE(bench.ok());
  std::string message;
  reticle_device_config config{};
  config.struct_size = sizeof(config);
  const std::string path = TheSubject().config.model_path;
  config.model_path = path.empty() ? nullptr : path.c_str();
  const reticle_option unknown = {"no-such-option-exists", "1"};
  config.options = &unknown;
  config.option_count = 1;
  EXPECT_EQ(TryOpen(config, &message), RETICLE_INVALID_ARGUMENT);
  EXPECT_NE(message.find(unknown.name), std::string::npos) << message;
  config.option_count = 0;
  config.context_limit = UINT32_MAX;
  EXPECT_EQ(TryOpen(config, &message), RETICLE_INVALID_ARGUMENT);
  EXPECT_NE(message.find("context"), std::string::npos) << message;
}

TEST(LifecycleConformance, HonoursSmallerLimits) {
  Bench bench([](DeviceConfig& config) {
    config.context_limit = 40;
    config.max_sequences = 3;
  });
  ASSERT_TRUE(bench.ok());
  EXPECT_EQ(bench.caps().context_limit, 40u);
  EXPECT_LE(bench.caps().max_sequences, 3u);
}

TEST(LifecycleConformance, GeneratesTheTokensThatWereGranted) {
  Bench bench;
  ASSERT_TRUE(bench.ok());
  const Output output = bench.Run(Simple(bench, 9, 1, 12));
  EXPECT_EQ(output.tokens.size(), 12u);
  EXPECT_EQ(output.finish, uint32_t{RETICLE_FINISH_CANCELLED});
  EXPECT_EQ(bench.LiveByStats(), 0u);
}

TEST(LifecycleConformance, PrefillWithoutCreditsSamplesNothing) {
  Bench bench;
  ASSERT_TRUE(bench.ok());
  Request request = Simple(bench, 12, 2, 0);
  request.chunk = 5;
  const Output output = bench.Run(request);
  EXPECT_EQ(output.prefills, 3u);
  EXPECT_TRUE(output.tokens.empty());
}

TEST(LifecycleConformance, TheContextLimitEndsASequence) {
  Bench bench([](DeviceConfig& config) { config.context_limit = 24; });
  ASSERT_TRUE(bench.ok());
  ASSERT_EQ(bench.caps().context_limit, 24u);
  const Output output = bench.Run(Simple(bench, 10, 3, 100));
  EXPECT_EQ(output.tokens.size(), 14u);
  EXPECT_EQ(output.finish, uint32_t{RETICLE_FINISH_CONTEXT_LIMIT});
  const Output one = bench.Run(Simple(bench, 23, 3, 100));
  EXPECT_EQ(one.tokens.size(), 1u);
  EXPECT_EQ(one.finish, uint32_t{RETICLE_FINISH_CONTEXT_LIMIT});

  const std::vector<uint32_t> full = MakePrompt(bench.caps(), 24, 4);
  const std::vector<uint32_t> blocks = bench.TakeBlocks(24);
  reticle_work work = bench.Prefill(bench.NewId(), full, blocks);
  const Request plain;
  work.sampling = &plain.params;
  work.decode_credits = 1;
  EXPECT_EQ(bench.Submit(work), RETICLE_INVALID_ARGUMENT) << "no position is left for a token";
  Request whole = Simple(bench, 24, 4, 0);
  EXPECT_EQ(bench.Run(whole).finish, uint32_t{RETICLE_FINISH_CANCELLED});
}

TEST(LifecycleConformance, MoreSequencesThanFitAreRefusedUntilOneEnds) {
  Bench bench([](DeviceConfig& config) { config.max_sequences = 3; });
  ASSERT_TRUE(bench.ok());
  std::vector<uint64_t> ids;
  for (uint32_t i = 0; i < bench.caps().max_sequences; ++i) {
    ids.push_back(bench.Start(Simple(bench, 4, i, 0)));
  }
  ASSERT_TRUE(bench.PumpUntil([&] {
    return std::all_of(ids.begin(), ids.end(), [&](uint64_t id) { return bench.IsSpent(id); });
  }));
  EXPECT_EQ(bench.LiveByStats(), bench.caps().max_sequences);
  const std::vector<uint32_t> prompt = MakePrompt(bench.caps(), 4, 77);
  const std::vector<uint32_t> blocks = bench.TakeBlocks(4);
  const reticle_work work = bench.Prefill(bench.NewId(), prompt, blocks);
  EXPECT_EQ(bench.Submit(work), RETICLE_RESOURCE_EXHAUSTED);
  bench.Cancel(ids[0]);
  ASSERT_TRUE(bench.PumpUntil([&] { return bench.IsEnded(ids[0]); }));
  EXPECT_EQ(bench.Submit(work), RETICLE_OK) << bench.last_message();
  bench.Adopt(work.sequence, 4, 0);
  bench.Finish();
  EXPECT_EQ(bench.LiveByStats(), 0u);
}

TEST(LifecycleConformance, CreditsAreSpentAndNoMore) {
  Bench bench;
  ASSERT_TRUE(bench.ok());
  const uint32_t credits = std::min(bench.caps().max_decode_credits, 8u);
  Request request = Simple(bench, 6, 5, credits);
  const uint64_t id = bench.Start(request);
  ASSERT_TRUE(bench.PumpUntil([&] { return bench.IsSpent(id); }));
  // Another sequence lives its whole life meanwhile; the ledger sees any token too many.
  bench.Run(Simple(bench, 6, 6, 10));
  EXPECT_EQ(bench.OutputOf(id).tokens.size(), credits);
  EXPECT_FALSE(bench.IsEnded(id));
  bench.Finish();
}

TEST(LifecycleConformance, MoreCreditsThanOneMayHoldAreRefused) {
  Bench bench;
  ASSERT_TRUE(bench.ok());
  const std::vector<uint32_t> prompt = MakePrompt(bench.caps(), 4, 8);
  const std::vector<uint32_t> blocks = bench.TakeBlocks(std::min<uint64_t>(
      bench.caps().context_limit, uint64_t{4} + bench.caps().max_decode_credits));
  const Request plain;
  reticle_work work = bench.Prefill(bench.NewId(), prompt, blocks);
  work.sampling = &plain.params;
  work.decode_credits = bench.caps().max_decode_credits + 1;
  EXPECT_EQ(bench.Submit(work), RETICLE_INVALID_ARGUMENT);
  EXPECT_NE(bench.last_message().find("credits"), std::string::npos) << bench.last_message();
}

TEST(LifecycleConformance, CancelGivesOneEndAtAnyTime) {
  Bench bench;
  ASSERT_TRUE(bench.ok());
  for (uint32_t pumps = 0; pumps < 6; ++pumps) {
    const uint64_t id = bench.Start(Simple(bench, 20, pumps, 30));
    for (uint32_t i = 0; i <= pumps; ++i) bench.Pump();
    bench.Cancel(id);
    ASSERT_TRUE(bench.PumpUntil([&] { return bench.IsEnded(id); }));
    EXPECT_EQ(bench.OutputOf(id).finish, uint32_t{RETICLE_FINISH_CANCELLED});
  }
  bench.Run(Simple(bench, 4, 1, 3));  // nothing follows the ends
  EXPECT_EQ(bench.LiveByStats(), 0u);
}

TEST(LifecycleConformance, CancelKnowsWhichSequencesLive) {
  Bench bench;
  ASSERT_TRUE(bench.ok());
  EXPECT_EQ(bench.api().cancel(bench.device(), 424242, nullptr), RETICLE_NOT_FOUND);
  const uint64_t id = bench.Start(Simple(bench, 4, 1, 2));
  bench.Pump();
  bench.Cancel(id);
  const int32_t twice = bench.api().cancel(bench.device(), id, nullptr);
  EXPECT_EQ(twice, RETICLE_OK) << "its end is not polled yet";
  ASSERT_TRUE(bench.PumpUntil([&] { return bench.IsEnded(id); }));
  EXPECT_EQ(bench.api().cancel(bench.device(), id, nullptr), RETICLE_NOT_FOUND);
}

TEST(LifecycleConformance, AnEndedSequenceTakesNoMoreWork) {
  Bench bench;
  ASSERT_TRUE(bench.ok());
  const uint64_t id = bench.Start(Simple(bench, 4, 1, 1));
  ASSERT_TRUE(bench.PumpUntil([&] { return bench.IsSpent(id); }));
  bench.Cancel(id);
  ASSERT_TRUE(bench.PumpUntil([&] { return bench.IsEnded(id); }));
  reticle_work work{};
  work.struct_size = sizeof(work);
  work.sequence = id;
  work.decode_credits = 1;
  EXPECT_EQ(bench.Submit(work), RETICLE_NOT_FOUND);
  EXPECT_EQ(bench.LiveByStats(), 0u);
}

TEST(LifecycleConformance, ResetEndsAllAndTheDeviceGoesOn) {
  Bench bench;
  ASSERT_TRUE(bench.ok());
  const Request request = Simple(bench, 8, 9, 6);
  const Output before = bench.Run(request);
  if (!bench.Has(RETICLE_FEATURE_RESET)) {
    EXPECT_EQ(bench.Reset(), RETICLE_UNIMPLEMENTED);
    EXPECT_EQ(bench.Run(request).tokens, before.tokens);
    return;
  }
  std::vector<uint64_t> ids;
  for (uint32_t i = 0; i < std::min(3u, bench.caps().max_sequences); ++i) {
    ids.push_back(bench.Start(Simple(bench, 8, 20 + i, 50)));
  }
  bench.Pump();
  ASSERT_EQ(bench.Reset(), RETICLE_OK) << bench.last_message();
  ASSERT_TRUE(bench.PumpUntil([&] {
    return std::all_of(ids.begin(), ids.end(), [&](uint64_t id) { return bench.IsEnded(id); });
  }));
  for (const uint64_t id : ids) {
    EXPECT_EQ(bench.OutputOf(id).finish, uint32_t{RETICLE_FINISH_ERROR});
    EXPECT_EQ(bench.OutputOf(id).status, RETICLE_ABORTED);
  }
  EXPECT_EQ(bench.LiveByStats(), 0u);
  EXPECT_EQ(bench.Run(request).tokens, before.tokens);
}

TEST(LifecycleConformance, ClosesWithLiveSequences) {
  Bench bench;
  ASSERT_TRUE(bench.ok());
  for (uint32_t i = 0; i < std::min(3u, bench.caps().max_sequences); ++i) {
    bench.Start(Simple(bench, 10, i, 40));
  }
  for (int i = 0; i < 3; ++i) bench.Pump();
  Bench another;
  ASSERT_TRUE(another.ok());
  EXPECT_EQ(another.Run(Simple(another, 10, 0, 4)).tokens.size(), 4u);
}

TEST(LifecycleConformance, DevicesAreIndependentAndStartAfreshWhenReopened) {
  std::vector<uint32_t> tokens;
  for (int i = 0; i < 2; ++i) {
    Bench bench;
    ASSERT_TRUE(bench.ok());
    Bench other;
    ASSERT_TRUE(other.ok());
    const uint64_t busy = other.Start(Simple(other, 10, 3, 20));
    other.Pump();
    const Output output = bench.Run(Simple(bench, 10, 2, 8));
    if (i > 0) {
      EXPECT_EQ(output.tokens, tokens);
    }
    tokens = output.tokens;
    ASSERT_TRUE(other.PumpUntil([&] { return other.IsSpent(busy); }));
  }
}

TEST(LifecycleConformance, AdaptersAreHonouredOrRefused) {
  Bench bench;
  ASSERT_TRUE(bench.ok());
  const reticle_device_api& api = bench.api();
  if (bench.Has(RETICLE_FEATURE_ADAPTERS)) {
    EXPECT_EQ(api.adapter_load(bench.device(), 0, "a", 1, nullptr), RETICLE_INVALID_ARGUMENT);
    EXPECT_EQ(api.adapter_unload(bench.device(), 9, nullptr), RETICLE_NOT_FOUND);
  } else {
    EXPECT_EQ(api.adapter_load(bench.device(), 1, "a", 1, nullptr), RETICLE_UNIMPLEMENTED);
    EXPECT_EQ(api.adapter_unload(bench.device(), 1, nullptr), RETICLE_UNIMPLEMENTED);
  }
  const std::vector<uint32_t> prompt = MakePrompt(bench.caps(), 4, 1);
  const std::vector<uint32_t> blocks = bench.TakeBlocks(4);
  reticle_work work = bench.Prefill(bench.NewId(), prompt, blocks);
  work.adapter = 12345;
  EXPECT_EQ(bench.Submit(work),
            bench.Has(RETICLE_FEATURE_ADAPTERS) ? RETICLE_NOT_FOUND : RETICLE_UNIMPLEMENTED);
  EXPECT_EQ(bench.LiveByStats(), 0u);
}

// Random starts, submits, polls and cancels. The ledger checks every completion; what was not
// cancelled must say what it says alone.
TEST(LifecycleConformance, EverySequenceEndsOnceUnderRandomWork) {
  Bench bench;
  ASSERT_TRUE(bench.ok());
  std::mt19937 random(4711);
  const auto pick = [&](uint32_t limit) { return static_cast<uint32_t>(random() % limit); };
  constexpr uint32_t kKinds = 4;
  std::vector<Request> kinds;
  std::vector<std::vector<uint32_t>> alone;
  for (uint32_t i = 0; i < kKinds; ++i) {
    kinds.push_back(Simple(bench, 3 + 7 * i, i, 4 + 3 * i));
    if (bench.Has(RETICLE_FEATURE_TEMPERATURE)) {
      kinds.back().params.temperature = 1;
      kinds.back().params.top_k = bench.caps().max_top_k;
      kinds.back().params.seed = i;
    }
    alone.push_back(bench.Run(kinds.back()).tokens);
  }
  const uint32_t most = std::min(bench.caps().max_sequences, 12u);
  std::map<uint64_t, uint32_t> live;  // id -> kind
  for (int step = 0; step < 400; ++step) {
    if (live.size() < most && pick(3) == 0) {
      const uint32_t kind = pick(kKinds);
      Request request = kinds[kind];
      request.chunk = pick(2) == 0 ? 0 : 1 + pick(6);
      request.credits = pick(2) == 0 ? 0 : 1 + pick(3);
      request.feed_itself = pick(2) == 0;
      live[bench.Start(request)] = kind;
    }
    if (!live.empty() && pick(12) == 0) {
      bench.Cancel(std::next(live.begin(), pick(static_cast<uint32_t>(live.size())))->first);
    }
    bench.Pump();
    std::erase_if(live, [&](const auto& entry) {
      const auto [id, kind] = entry;
      if (!bench.IsEnded(id) && bench.IsSpent(id)) {
        EXPECT_EQ(bench.OutputOf(id).tokens, alone[kind]);
        bench.Cancel(id);
      }
      return bench.IsEnded(id);
    });
  }
  bench.Finish();
  EXPECT_EQ(bench.Poll(), 0u);
  EXPECT_EQ(bench.LiveByStats(), 0u);
}

}  // namespace
}  // namespace reticle::backends::conformance
