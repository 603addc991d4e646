// Times, limits and energy of the card as a host sees them, under the virtual clock.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "backends/hardwired/card/firmware_loop.h"
#include "backends/hardwired/driver/device_test_util.h"
#include "backends/hardwired/timing/virtual_clock.h"

namespace reticle::backends::hardwired {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<TestHost> Host(OptionList options) {
  auto device = OpenCard(options);
  EXPECT_TRUE(device.ok()) << device.status();
  return std::make_unique<TestHost>(*std::move(device));
}

OptionList Replay(OptionList more = {}) {
  OptionList options = {{"content", "replay"}, {"clock", "virtual"}};
  options.insert(options.end(), more.begin(), more.end());
  return options;
}

OptionList Synthetic(OptionList more = {}) {
  OptionList options = {{"compute", "synthetic"}, {"clock", "virtual"}};
  options.insert(options.end(), more.begin(), more.end());
  return options;
}

// round(n / 16,960 s) in whole numbers
uint64_t NthToken(uint64_t n) { return (n * 2'000'000'000 + 16960) / (2 * 16960); }

TEST(TimingDeviceTest, TenThousandTokensAreExactToTheNanosecond) {
  const auto host = Host(Replay({{"limits.context", "20000"}}));
  ASSERT_TRUE(host->Begin(1, 8, 10'001).ok());
  host->Run();
  // One way over the link, then the prompt.
  const uint64_t first_ns = 1'000 + 1'070'000 + 8 * 5'000;
  uint64_t n = 0;
  for (const Seen& seen : host->seen()) {
    if (seen.kind != RETICLE_COMPLETION_TOKEN) continue;
    ASSERT_EQ(seen.time_ns, first_ns + NthToken(n)) << n;
    ++n;
  }
  EXPECT_EQ(n, 10'001u);
  EXPECT_EQ(host->stream(1).last_ns - host->stream(1).first_ns, 589'622'642u);
}

TEST(TimingDeviceTest, FourStreamsAtDepthFourHaveFullSpeedEach) {
  const auto host = Host(Replay({{"timing.pipeline_depth", "4"}, {"limits.context", "20000"}}));
  for (uint64_t id = 1; id <= 4; ++id) ASSERT_TRUE(host->Begin(id, 8, 2001).ok());
  host->Run();
  for (const auto& [id, stream] : host->streams()) {
    EXPECT_EQ(stream.last_ns - stream.first_ns, NthToken(2000)) << id;
  }
}

// The host's clock has no part in simulated time, however far that is ahead.
TEST(TimingDeviceTest, SimulatedTimeMayPassTheHosts) {
  const auto host = Host(Replay({{"timing.decode_rate", "0.001"}}));
  ASSERT_TRUE(host->Begin(1, 8, 1'000'001).ok());
  while (host->stream(1).received < 5001) host->Poll();
  const uint64_t before_ns = host->stream(1).last_ns;
  EXPECT_EQ(before_ns, 1'000 + 1'070'000 + 8 * 5'000 + 5000 * 1'000'000'000'000u);
  ASSERT_TRUE(host->device().Cancel(1).ok());
  while (host->stream(1).ends == 0) host->Poll();
  ASSERT_TRUE(host->Begin(2, 8, 1).ok());
  host->Run();
  EXPECT_EQ(host->stream(2).first_ns, before_ns + 2 * 1'000 + 1'070'000 + 8 * 5'000);
}

TEST(TimingDeviceTest, BeyondTheDepthStreamsShare) {
  const auto host = Host(Replay());
  for (uint64_t id = 1; id <= 2; ++id) ASSERT_TRUE(host->Begin(id, 8, 1001).ok());
  host->Run();
  const TestHost::Stream& stream = host->stream(1);
  EXPECT_NEAR(static_cast<double>(stream.last_ns - stream.first_ns), 2.0 * 1e12 / 16960, 2e5);
}

// Content, times, energies and their order, with random work and cancels in between.
TEST(TimingDeviceTest, RunsAreIdentical) {
  for (const char* profile : {"taalas-hc1", "nvidia-h200"}) {
    std::vector<Seen> before;
    for (int run = 0; run < 2; ++run) {
      const auto host = Host(Synthetic({{"profile", profile}}));
      uint64_t next = 1;
      for (int step = 0; step < 300; ++step) {
        if (step % 7 == 0 && next < 20) {
          reticle_sampling sampling = GreedySampling();
          sampling.temperature = 1;
          sampling.seed = next;
          ASSERT_TRUE(host->Begin(next, 3 + next % 11, 20 + next, sampling).ok());
          ++next;
        }
        if (step % 50 == 49) {
          const absl::Status cancelled = host->device().Cancel(next - 1);
          EXPECT_TRUE(cancelled.ok() || cancelled.code() == absl::StatusCode::kNotFound);
        }
        host->Poll();
      }
      host->Run();
      if (run == 1) {
        EXPECT_EQ(host->seen(), before);
      }
      before = host->seen();
      EXPECT_GT(before.size(), 300u);
    }
  }
}

TEST(TimingDeviceTest, ABatchOfStreamsApproachesTheAggregateRate) {
  const auto host = Host(Replay({{"profile", "nvidia-h100"}}));
  for (uint64_t id = 1; id <= 256; ++id) ASSERT_TRUE(host->Begin(id, 16, 200).ok());
  host->Run();
  uint64_t first_ns = 0;
  uint64_t last_ns = UINT64_MAX;
  for (const auto& [id, stream] : host->streams()) {
    first_ns = std::max(first_ns, stream.first_ns);
    last_ns = std::min(last_ns, stream.last_ns);
  }
  uint64_t tokens = 0;
  for (const Seen& seen : host->seen()) {
    if (seen.kind == RETICLE_COMPLETION_TOKEN && seen.time_ns > first_ns &&
        seen.time_ns <= last_ns) {
      ++tokens;
    }
  }
  const double rate = static_cast<double>(tokens) * 1e9 / static_cast<double>(last_ns - first_ns);
  EXPECT_GT(rate, 12'000);
  EXPECT_LT(rate, 22'714);
}

TEST(TimingDeviceTest, DevicesShareAClock) {
  const auto clock = VirtualClock::Create("shared");
  const auto fast = Host(Replay({{"virtual_clock", "shared"}}));
  const auto slow = Host(Replay({{"virtual_clock", "shared"}, {"profile", "groq-lpu"}}));
  ASSERT_TRUE(fast->Begin(1, 8, 50).ok());
  ASSERT_TRUE(slow->Begin(1, 8, 50).ok());
  int64_t before_ns = 0;
  while (!fast->AllEnded() || !slow->AllEnded()) {
    if (fast->Poll() + slow->Poll() > 0) continue;
    ASSERT_TRUE(clock->AdvanceToNextEvent());
    EXPECT_GE(clock->NowNanos(), before_ns);
    before_ns = clock->NowNanos();
  }
  EXPECT_EQ(fast->stream(1).last_ns, 1'000 + 1'070'000 + 8 * 5'000 + NthToken(49));
  EXPECT_NEAR(static_cast<double>(slow->stream(1).last_ns - slow->stream(1).first_ns),
              49 * 1e9 / 594, 1);
  EXPECT_FALSE(OpenCard(Replay({{"virtual_clock", "no-such"}})).ok());
}

TEST(TimingDeviceTest, WiderSamplingIsTheHostsAndCosts) {
  reticle_sampling narrow = GreedySampling();
  narrow.temperature = 1;
  narrow.top_k = 8;
  reticle_sampling wide = narrow;
  wide.top_k = 9;
  uint64_t length[2];
  for (int i = 0; i < 2; ++i) {
    const auto host = Host(Synthetic());
    EXPECT_EQ(host->device().capabilities().max_top_k, 0u);
    ASSERT_TRUE(host->Begin(1, 8, 101, i == 0 ? narrow : wide).ok());
    host->Run();
    length[i] = host->stream(1).last_ns - host->stream(1).first_ns;
  }
  EXPECT_EQ(length[0], NthToken(100));
  EXPECT_EQ(length[1], NthToken(100) + 100 * (20'000 + 2 * 1'000));

  const auto strict = Host(Synthetic({{"sampling", "strict"}}));
  EXPECT_EQ(strict->device().capabilities().max_top_k, 8u);
  const absl::Status refusal = strict->Begin(1, 8, 5, wide);
  EXPECT_EQ(refusal.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refusal.message()), HasSubstr("top_k is 9"));
  wide.top_k = 0;
  EXPECT_EQ(strict->Begin(2, 8, 5, wide).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(strict->Begin(3, 8, 5, narrow).ok());
}

TEST(TimingDeviceTest, TheNarrowSamplerIsTheDefaultWhereTheDeviceHasIt) {
  EXPECT_EQ(Host(Synthetic())->device().capabilities().default_top_k, 8u);
  EXPECT_EQ(Host(Synthetic({{"profile", "nvidia-h100"}}))->device().capabilities().default_top_k,
            0u);
}

TEST(TimingDeviceTest, CountersBeginWhenTheCardIsStarted) {
  const int64_t begin_ns = MonotonicNanos();
  const auto device = OpenCard({{"content", "replay"}});
  ASSERT_TRUE(device.ok()) << device.status();
  for (int i = 0; i < 2; ++i) {
    std::vector<reticle_completion> completions(16);
    ASSERT_TRUE((*device)->Poll(completions).ok());
    ASSERT_TRUE((*device)->Reset().ok());
  }
  const auto stats = (*device)->Stats();
  const int64_t passed_ns = MonotonicNanos() - begin_ns;
  ASSERT_TRUE(stats.ok());
  EXPECT_LE(stats->device_time_ns, static_cast<uint64_t>(passed_ns));
  constexpr double kActiveWatts = 200;
  EXPECT_LE(static_cast<double>(stats->energy_uj) * 1e3,
            kActiveWatts * static_cast<double>(passed_ns));
}

TEST(TimingDeviceTest, TheContextIsTheProfiles) {
  const auto host = Host(Replay());
  EXPECT_EQ(host->device().capabilities().context_limit, 6144u);
  ASSERT_TRUE(host->Begin(1, 1000, 10'000).ok());
  host->Run();
  EXPECT_EQ(host->stream(1).finish, uint32_t{RETICLE_FINISH_CONTEXT_LIMIT});
  EXPECT_EQ(host->stream(1).received, 5144u);
}

TEST(TimingDeviceTest, AFullKvMemoryEndsASequence) {
  // 8 bytes a token: 3 MiB hold 393,216 tokens; a tiny memory holds few.
  const auto host = Host(Synthetic({{"limits.kv_memory", "0.001"}}));
  const uint64_t capacity = host->device().capabilities().kv_token_capacity;
  EXPECT_EQ(capacity, 131u);
  ASSERT_TRUE(host->Begin(1, 100, 500).ok());
  EXPECT_EQ(host->Begin(2, 100, 5).code(), absl::StatusCode::kResourceExhausted);
  host->Run();
  EXPECT_EQ(host->stream(1).finish, uint32_t{RETICLE_FINISH_ERROR});
  EXPECT_EQ(host->stream(1).status, RETICLE_RESOURCE_EXHAUSTED);
  EXPECT_EQ(host->stream(1).received, 32u);
  EXPECT_TRUE(host->Begin(3, 100, 5).ok());
}

TEST(TimingDeviceTest, OneAdapterIsCurrentAndSwapsCost) {
  const auto host = Host(Synthetic({{"timing.adapter_swap", "500"}}));
  Device& device = host->device();
  EXPECT_EQ(device.capabilities().adapter_swap_ns, 500'000u);
  ASSERT_TRUE(device.LoadAdapter(1, "first", 1).ok());
  ASSERT_TRUE(device.LoadAdapter(2, "second", 1).ok());
  EXPECT_EQ(device.LoadAdapter(2, "second", 1).code(), absl::StatusCode::kAlreadyExists);
  const auto run = [&](uint64_t id, uint64_t adapter) {
    EXPECT_TRUE(host->Begin(id, 8, 20, GreedySampling(), adapter).ok());
    host->Run();
    return device.Stats()->adapter_swaps;
  };
  EXPECT_EQ(run(1, 1), 1u);
  EXPECT_EQ(run(2, 1), 1u);
  EXPECT_EQ(run(3, 0), 1u);
  EXPECT_EQ(run(4, 2), 2u);
  EXPECT_NE(host->stream(1).tokens, host->stream(4).tokens);
  // Two at once swap for every token.
  ASSERT_TRUE(host->Begin(5, 8, 20, GreedySampling(), 1).ok());
  ASSERT_TRUE(host->Begin(6, 8, 20, GreedySampling(), 2).ok());
  EXPECT_EQ(device.UnloadAdapter(1).code(), absl::StatusCode::kFailedPrecondition);
  host->Run();
  EXPECT_GT(device.Stats()->adapter_swaps, 30u);
  EXPECT_TRUE(device.UnloadAdapter(1).ok());
  EXPECT_EQ(device.UnloadAdapter(1).code(), absl::StatusCode::kNotFound);
}

TEST(TimingDeviceTest, EnergyIsSharedByTheStreams) {
  const auto host = Host(Replay({{"timing.pipeline_depth", "2"}}));
  for (uint64_t id = 1; id <= 2; ++id) ASSERT_TRUE(host->Begin(id, 100, 1000).ok());
  host->Run();
  double shared_nj = 0;
  uint64_t busy_ns = 0;
  for (const Seen& seen : host->seen()) {
    shared_nj += static_cast<double>(seen.energy_nj);
    if (seen.sequence == 1) busy_ns += seen.busy_ns;
  }
  // 200 W for the time that both were at work.
  const auto length_ns = static_cast<double>(host->stream(1).last_ns - 1'000);
  EXPECT_NEAR(shared_nj, 200 * length_ns, 0.001 * shared_nj);
  EXPECT_EQ(busy_ns, host->stream(1).last_ns - 1'000);
  const auto stats = host->device().Stats();
  EXPECT_NEAR(static_cast<double>(stats->energy_uj) * 1000, shared_nj, 0.01 * shared_nj);
  EXPECT_GT(stats->temperature_celsius, 34);
  EXPECT_EQ(stats->slowdown_ratio, 1);
}

TEST(TimingDeviceTest, ReplayPlaysItsText) {
  const std::string path = testing::TempDir() + "replay_ids.txt";
  std::ofstream(path) << "5 6\n7";
  const auto host = Host(Replay({{"replay_file", path}, {"replay_tokens", "7"}, {"vocab", "50"}}));
  const uint32_t stop = 49;
  reticle_sampling sampling = GreedySampling();
  sampling.stop_ids = &stop;
  sampling.stop_id_count = 1;
  ASSERT_TRUE(host->Begin(1, 8, 100, sampling).ok());
  host->Run();
  EXPECT_EQ(host->stream(1).tokens, (std::vector<uint32_t>{5, 6, 7, 5, 6, 7, 5, stop}));
  EXPECT_EQ(host->stream(1).finish, uint32_t{RETICLE_FINISH_STOP_ID});
  EXPECT_FALSE(OpenCard(Replay({{"replay_ids", "300"}})).ok());
}

TEST(TimingDeviceTest, OptionsAreChecked) {
  for (const auto& [name, value] : OptionList{{"content", "music"},
                                              {"profile", "hc9"},
                                              {"card", "socket"},
                                              {"vocab", "1"},
                                              {"watchdog_ms", "0"},
                                              {"timing.pipeline_depth", "0"},
                                              {"replay_ids", "x"},
                                              {"virtual_clock", "x"},
                                              {"replay_file", "/no/such/file"}}) {
    const auto device = OpenCard({{"compute", "synthetic"}, {name, value}});
    ASSERT_FALSE(device.ok()) << name;
    EXPECT_THAT(std::string(device.status().message()), HasSubstr(value)) << name;
  }
  // Functional content without an image.
  EXPECT_FALSE(OpenCard({{"clock", "virtual"}}).ok());
}

}  // namespace
}  // namespace reticle::backends::hardwired
