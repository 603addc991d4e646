// Waiting for completions, and watching a device from other threads.
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "backends/conformance/bench.h"

namespace reticle::backends::conformance {
namespace {

Request Simple(const Bench& bench, uint32_t salt, uint32_t max_tokens) {
  Request request;
  request.prompt = MakePrompt(bench.caps(), 8, salt);
  request.max_tokens = max_tokens;
  request.credits = 1;
  return request;
}

// True when the descriptor became readable in time; the event is read.
bool WaitForEvent(int32_t event_fd) {
  pollfd descriptor{event_fd, POLLIN, 0};
  if (poll(&descriptor, 1, static_cast<int>(TheSubject().patience_s * 1000)) != 1) return false;
  uint64_t events = 0;
  return read(event_fd, &events, sizeof(events)) == sizeof(events);
}

TEST(WatchingConformance, ArmWakesWhoeverWaits) {
  Bench bench;
  ASSERT_TRUE(bench.ok());
  const int32_t event_fd = bench.caps().event_fd;
  if (event_fd < 0) {
    EXPECT_EQ(bench.api().arm(bench.device()), 1);
    return;
  }
  EXPECT_EQ(bench.api().arm(bench.device()), 0) << "nothing is there";
  // Only events drive this generation: it sleeps whenever there is nothing to poll.
  const uint64_t id = bench.Start(Simple(bench, 1, 12));
  bool stalled = false;
  while (!bench.IsSpent(id) && !stalled) {
    if (bench.Pump() || bench.api().arm(bench.device()) == 1) continue;
    stalled = !WaitForEvent(event_fd);
  }
  EXPECT_FALSE(stalled) << "no event came although completions were due";
  // An idle host that armed before it cancels is woken by the end.
  while (bench.Pump()) {
  }
  if (bench.api().arm(bench.device()) == 0) {
    bench.Cancel(id);
    EXPECT_TRUE(WaitForEvent(event_fd)) << "no event came for the end of a cancelled sequence";
  }
  bench.Finish();
}

TEST(WatchingConformance, OtherThreadsMayWatch) {
  Bench bench;
  ASSERT_TRUE(bench.ok());
  std::atomic<bool> stop{false};
  std::atomic<int> rounds{0};
  std::vector<std::thread> watchers;
  for (int i = 0; i < 2; ++i) {
    watchers.emplace_back([&] {
      reticle_stats before{};
      while (!stop.load()) {
        reticle_stats stats{};
        stats.struct_size = sizeof(stats);
        EXPECT_EQ(bench.api().stats(bench.device(), &stats, nullptr), RETICLE_OK);
        EXPECT_GE(stats.device_time_ns, before.device_time_ns);
        EXPECT_GE(stats.prefill_tokens, before.prefill_tokens);
        EXPECT_GE(stats.decode_tokens, before.decode_tokens);
        EXPECT_GE(stats.steps, before.steps);
        EXPECT_GE(stats.busy_ns, before.busy_ns);
        EXPECT_LE(stats.sequences, bench.caps().max_sequences);
        before = stats;
        reticle_health health{};
        health.struct_size = sizeof(health);
        EXPECT_EQ(bench.api().health(bench.device(), &health, nullptr), RETICLE_OK);
        EXPECT_EQ(health.state, uint32_t{RETICLE_HEALTH_READY});
        reticle_capabilities caps{};
        caps.struct_size = sizeof(caps);
        EXPECT_EQ(bench.api().describe(bench.device(), &caps, nullptr), RETICLE_OK);
        EXPECT_EQ(caps.vocab_size, bench.caps().vocab_size);
        rounds.fetch_add(1);
      }
    });
  }
  std::vector<Request> requests;
  for (uint32_t i = 0; i < std::min(bench.caps().max_sequences, 4u); ++i) {
    requests.push_back(Simple(bench, i, 20));
  }
  // Somebody looks between the runs, so that every counter is seen to move.
  for (int run = 0; run < 6; ++run) {
    for (const Output& output : bench.Run(requests)) EXPECT_EQ(output.tokens.size(), 20u);
    const int seen = rounds.load();
    while (rounds.load() < seen + 6) std::this_thread::yield();
  }
  stop.store(true);
  for (std::thread& watcher : watchers) watcher.join();
}

TEST(WatchingConformance, StatsCountTheWork) {
  Bench bench;
  ASSERT_TRUE(bench.ok());
  bench.Run(Simple(bench, 1, 5));
  reticle_stats stats{};
  stats.struct_size = sizeof(stats);
  ASSERT_EQ(bench.api().stats(bench.device(), &stats, nullptr), RETICLE_OK);
  EXPECT_EQ(stats.prefill_tokens, 8u);
  EXPECT_EQ(stats.decode_tokens, 5u);
  EXPECT_GE(stats.slowdown_ratio, 1.0);
  EXPECT_EQ(stats.sequences, 0u);
}

TEST(WatchingConformance, AReadyDeviceGivesNoReason) {
  Bench bench;
  ASSERT_TRUE(bench.ok());
  reticle_health health{};
  health.struct_size = sizeof(health);
  ASSERT_EQ(bench.api().health(bench.device(), &health, nullptr), RETICLE_OK);
  EXPECT_EQ(health.state, uint32_t{RETICLE_HEALTH_READY});
  EXPECT_STREQ(health.reason, "");
}

}  // namespace
}  // namespace reticle::backends::conformance
