// Counts what is allocated between two tokens of a running stream: nothing.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "backends/fake/fake_device.h"
#include "tests/hotpath/fixture.h"

namespace {

std::atomic<bool> counting{false};
std::atomic<uint64_t> allocations{0};
// The clients' threads are not the server's.
thread_local bool exempt = false;

void Count() {
  if (!counting.load(std::memory_order_relaxed) || exempt) return;
  allocations.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

// glibc's own names of the functions that are replaced here for the whole program, operator new and
// the libraries that it uses included.
extern "C" {
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* memory, size_t size);
void* __libc_memalign(size_t alignment, size_t size);

void* malloc(size_t size) {
  Count();
  return __libc_malloc(size);
}
void* calloc(size_t count, size_t size) {
  Count();
  return __libc_calloc(count, size);
}
void* realloc(void* memory, size_t size) {
  Count();
  return __libc_realloc(memory, size);
}
void* memalign(size_t alignment, size_t size) {
  Count();
  return __libc_memalign(alignment, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  Count();
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** memory, size_t alignment, size_t size) {
  Count();
  *memory = __libc_memalign(alignment, size);
  return *memory == nullptr ? 12 : 0;
}
}

namespace reticle::tests {
namespace {

constexpr uint32_t kWarm = 2000;
constexpr uint32_t kCounted = 10000;
constexpr uint32_t kWindows = 8;
constexpr uint32_t kAll = 150'000;  // more than all buffers hold, so that no stream ends

// Allocations while each of `streams` streams goes on by kCounted tokens, all of them running. A
// buffer that a busy machine makes grow once is no cost of a token: the best of kWindows counts.
uint64_t AllocationsOf(const HotPathServer::Options& options, size_t streams,
                       const std::string& members) {
  exempt = true;
  HotPathServer server(options);
  const auto device = backends::fake::FindFakeDevice("allocation");
  std::vector<std::unique_ptr<Client>> clients;
  std::vector<std::string> seen(streams);
  for (size_t i = 0; i < streams; ++i) {
    clients.push_back(std::make_unique<Client>(server.port()));
    clients[i]->Send(StreamRequest(kAll, members));
  }
  std::vector<size_t> events(streams);
  const auto read_to = [&](size_t tokens) {
    for (size_t i = 0; i < streams; ++i) {
      while (events[i] < tokens) {
        seen[i].clear();
        EXPECT_TRUE(clients[i]->Read(seen[i])) << "the stream ended early";
        if (seen[i].empty()) return;
        // Each token is a letter: merged events are counted by their text.
        events[i] += tests::Count(seen[i], "z");
      }
    }
  };
  read_to(kWarm);
  // The buffers have their largest size when a client has let the server wait.
  uint64_t fed = 0;
  for (int same = 0; same < 20; ++same) {
    if (std::exchange(fed, device->tokens_fed()) != device->tokens_fed()) same = 0;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  uint64_t fewest = UINT64_MAX;
  for (uint32_t window = 1; window <= kWindows && fewest > 0; ++window) {
    allocations.store(0);
    counting.store(true);
    read_to(kWarm + window * kCounted);
    counting.store(false);
    fewest = std::min(fewest, allocations.load());
  }
  return fewest;
}

// A device whose every token is a "z", which stands nowhere else in an event.
HotPathServer::Options Device() {
  HotPathServer::Options options;
  options.device_options = {{"content", "fast"}, {"script", "122"}, {"name", "allocation"}};
  return options;
}

TEST(AllocationTest, CountsAtAll) {
  exempt = false;
  allocations.store(0);
  counting.store(true);
  std::string text;
  text.resize(100 + allocations.load());
  std::vector<int> numbers(text.size());
  counting.store(false);
  EXPECT_GE(allocations.load(), 2u) << numbers.size();
}

TEST(AllocationTest, AStreamThatRunsAllocatesNothing) {
  EXPECT_EQ(AllocationsOf(Device(), 1, ""), 0u);
}

TEST(AllocationTest, SixteenStreamsAllocateNothing) {
  EXPECT_EQ(AllocationsOf(Device(), 16, ""), 0u);
}

TEST(AllocationTest, MergedEventsAllocateNothing) {
  EXPECT_EQ(AllocationsOf(Device(), 4, R"(,"stream_options":{"merge_events":true})"), 0u);
}

TEST(AllocationTest, StopStringsAndUsageAllocateNothing) {
  EXPECT_EQ(AllocationsOf(Device(), 1,
                          R"(,"stop":["zy","zzx"],"stream_options":{"include_usage":true,)"
                          R"("continuous_usage_stats":true})"),
            0u);
}

TEST(AllocationTest, AnEngineWithAThreadOfItsOwnAllocatesNothing) {
  HotPathServer::Options options = Device();
  options.engine_thread = true;
  EXPECT_EQ(AllocationsOf(options, 4, ""), 0u);
}

TEST(AllocationTest, ADeviceWithAPaceAllocatesNothing) {
  HotPathServer::Options options = Device();
  options.device_options.emplace_back("step_ns", "20000");
  EXPECT_EQ(AllocationsOf(options, 2, ""), 0u);
}

}  // namespace
}  // namespace reticle::tests
