// Streams over sockets in every arrangement of engines and I/O threads: nothing lost, nothing
// changed, and what one client does is no other's business.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/hotpath/fixture.h"

namespace reticle::tests {
namespace {

struct Arrangement {
  bool engine_thread;
  uint32_t io_threads;
  uint32_t engines;
};

class StreamTest : public testing::TestWithParam<Arrangement> {
 protected:
  HotPathServer::Options Options() const {
    HotPathServer::Options options;
    options.engine_thread = GetParam().engine_thread;
    options.io_threads = GetParam().io_threads;
    options.engines = GetParam().engines;
    // The letters from a to z again and again.
    std::string script;
    for (int letter = 'a'; letter <= 'z'; ++letter) {
      script += std::to_string(letter) + (letter == 'z' ? "" : ",");
    }
    options.device_options = {{"content", "fast"}, {"script", script}};
    return options;
  }
  static std::string Letters(size_t count) {
    std::string text;
    for (size_t i = 0; i < count; ++i) text.push_back(static_cast<char>('a' + i % 26));
    return text;
  }
  // Waits until nothing runs any more.
  static void AwaitIdle(HotPathServer& server) {
    while (server.context().active_generations() != 0) std::this_thread::yield();
  }
};

TEST_P(StreamTest, ManyStreamsAtOnceEachHaveTheirText) {
  HotPathServer server(Options());
  constexpr uint32_t kTokens = 3000;
  std::vector<std::thread> clients;
  std::atomic<int> right{0};
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back([&server, &right, i] {
      Client client(server.port());
      for (int round = 0; round < 3; ++round) {
        const std::string merge = R"(,"stream_options":{"merge_events":true})";
        client.Send(StreamRequest(kTokens, i % 2 == 0 ? "" : merge));
        const std::string reply = client.ReadUntil("data: [DONE]\n\n\r\n0\r\n\r\n");
        if (TextOf(reply) == Letters(kTokens)) ++right;
        if (i % 2 == 0) {
          EXPECT_EQ(Count(reply, "data: {"), kTokens + 1);
        }
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(right.load(), 24);
  AwaitIdle(server);
}

TEST_P(StreamTest, ASlowReaderHoldsBackItselfAlone) {
  HotPathServer::Options options = Options();
  options.max_unsent_bytes = 4096;
  HotPathServer server(options);
  constexpr uint32_t kSlowTokens = 60'000;
  Client slow(server.port(), /*receive_buffer=*/4096);
  slow.Send(StreamRequest(kSlowTokens));
  for (int i = 0; i < 20; ++i) {
    Client quick(server.port());
    quick.Send(StreamRequest(500));
    EXPECT_EQ(TextOf(quick.ReadUntil("[DONE]\n\n\r\n0\r\n\r\n")), Letters(500));
  }
  // The last quick one ends a moment after its client has seen its end.
  while (server.context().active_generations() > 1) std::this_thread::yield();
  EXPECT_EQ(server.context().active_generations(), 1);
  EXPECT_EQ(TextOf(slow.ReadUntil("[DONE]\n\n\r\n0\r\n\r\n")), Letters(kSlowTokens));
  AwaitIdle(server);
}

TEST_P(StreamTest, ClientsThatGoAwayLeaveNothingBehind) {
  HotPathServer server(Options());
  std::vector<std::thread> clients;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([&server, i] {
      for (int round = 0; round < 10; ++round) {
        Client client(server.port());
        client.Send(StreamRequest(100'000));
        std::string text;
        for (int reads = 0; reads < (i + round) % 5; ++reads) client.Read(text);
        if (round % 2 == 0) client.Abort();
      }
    });
  }
  for (std::thread& client : clients) client.join();
  AwaitIdle(server);
  for (uint32_t i = 0; i < GetParam().engines; ++i) {
    while (!server.engine(i).Idle()) std::this_thread::yield();
  }
}

TEST_P(StreamTest, PipelinedRequestsAreAnsweredInOrder) {
  HotPathServer server(Options());
  Client client(server.port());
  std::string requests;
  for (uint32_t i = 1; i <= 20; ++i) requests += StreamRequest(i * 7);
  client.Send(requests);
  for (uint32_t i = 1; i <= 20; ++i) {
    EXPECT_EQ(TextOf(client.ReadUntil("[DONE]\n\n\r\n0\r\n\r\n")), Letters(i * 7));
  }
}

TEST_P(StreamTest, APacedDeviceIsHeardAlthoughTheLoopSleeps) {
  HotPathServer::Options options = Options();
  options.device_options.emplace_back("step_ns", "3000000");
  HotPathServer server(options);
  Client client(server.port());
  client.Send(StreamRequest(30));
  EXPECT_EQ(TextOf(client.ReadUntil("[DONE]\n\n\r\n0\r\n\r\n")), Letters(30));
}

TEST_P(StreamTest, ADeviceWithoutADescriptorIsHeardToo) {
  HotPathServer::Options options = Options();
  options.device_options.emplace_back("step_ns", "3000000");
  options.device_options.emplace_back("event_fd", "0");
  HotPathServer server(options);
  Client client(server.port());
  client.Send(StreamRequest(30));
  EXPECT_EQ(TextOf(client.ReadUntil("[DONE]\n\n\r\n0\r\n\r\n")), Letters(30));
}

// Adds up what the ledgers tell.
class LedgerProbe : public server::ServerProbe {
 public:
  void OnTokensHandedOver(const server::AddedLatency& added) override {
    tokens.fetch_add(added.tokens);
    total_ns.fetch_add(added.total_ns);
    for (const int64_t ns : added.stage_ns) {
      stages_ns.fetch_add(ns);
      if (ns < 0) ++negative;
    }
  }
  std::atomic<uint64_t> tokens{0};
  std::atomic<int64_t> total_ns{0}, stages_ns{0};
  std::atomic<int> negative{0};
};

TEST_P(StreamTest, EveryTokenIsInTheLedger) {
  LedgerProbe probe;
  {
    HotPathServer::Options options = Options();
    options.probe = &probe;
    HotPathServer server(options);
    for (const uint32_t tokens : {1u, 100u, 5000u}) {
      Client client(server.port());
      client.Send(StreamRequest(tokens));
      client.ReadUntil("[DONE]\n\n\r\n0\r\n\r\n");
    }
  }
  EXPECT_EQ(probe.tokens.load(), 5101u);
  EXPECT_EQ(probe.total_ns.load(), probe.stages_ns.load());
  EXPECT_GT(probe.total_ns.load(), 0);
  EXPECT_EQ(probe.negative.load(), 0);
}

INSTANTIATE_TEST_SUITE_P(Arrangements, StreamTest,
                         testing::Values(Arrangement{false, 1, 1}, Arrangement{false, 2, 1},
                                         Arrangement{false, 2, 2}, Arrangement{false, 1, 2},
                                         Arrangement{true, 1, 1}, Arrangement{true, 2, 1}),
                         [](const testing::TestParamInfo<Arrangement>& info) {
                           return std::string(info.param.engine_thread ? "OwnThread"
                                                                       : "OnIoThread") +
                                  std::to_string(info.param.io_threads) + "Engines" +
                                  std::to_string(info.param.engines);
                         });

}  // namespace
}  // namespace reticle::tests
