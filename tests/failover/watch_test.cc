// An engine with nothing to do learns at once that its card is gone: through the device's
// descriptor, since nothing else here would tell it.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>

#include "backends/abi/device.h"
#include "backends/hardwired/driver/hardwired_device.h"
#include "base/clock.h"
#include "scheduler/engine.h"
#include "scheduler/engine_probe.h"
#include "scheduler/engine_thread.h"

namespace reticle {
namespace {

using backends::hardwired::InjectFault;
using backends::hardwired::ParseFault;

constexpr auto kPatience = std::chrono::seconds(30);

class CountingProbe : public scheduler::EngineProbe {
 public:
  void OnDeviceLost(bool) override { ++losses; }
  void OnDeviceReset(bool succeeded) override { resets += succeeded ? 1 : 0; }
  std::atomic<int> losses{0};
  std::atomic<int> resets{0};
};

template <typename Done>
bool WaitUntil(Done done) {
  const auto give_up = std::chrono::steady_clock::now() + kPatience;
  while (!done()) {
    if (std::chrono::steady_clock::now() > give_up) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

class WatchTest : public testing::TestWithParam<const char*> {};

TEST_P(WatchTest, AnIdleEngineHearsOfALossByItsDescriptor) {
  backends::DeviceConfig config;
  config.options = {{"compute", "synthetic"},
                    {"card", GetParam()},
                    {"card_program", CARD_FOR_TEST},
                    {"name", "watched"}};
  const auto driver = backends::Driver::FromApi(backends::hardwired::HardwiredDeviceApi());
  ASSERT_TRUE(driver.ok()) << driver.status();
  auto device = backends::Device::Open(*driver, config);
  ASSERT_TRUE(device.ok()) << device.status();
  scheduler::EngineOptions options;
  // No timer looks at the device.
  options.health_ns = 0;
  options.idle_health_ns = 0;
  options.watchdog_ns = 0;
  options.fence_after = 0;
  CountingProbe probe;
  auto engine = scheduler::Engine::Create(*std::move(device), options, Clock::Monotonic(), &probe);
  ASSERT_TRUE(engine.ok()) << engine.status();
  auto thread = scheduler::EngineThread::Start(**engine, {}, Clock::Monotonic());
  ASSERT_TRUE(thread.ok()) << thread.status();
  for (int loss = 1; loss <= 3; ++loss) {
    ASSERT_TRUE(WaitUntil([&] { return (*thread)->sleeps() > 0; }));
    // A card process kills itself with SIGKILL.
    ASSERT_TRUE(InjectFault("watched", *ParseFault("crash")).ok());
    ASSERT_TRUE(WaitUntil([&] { return probe.losses == loss; })) << loss;
    ASSERT_TRUE(WaitUntil([&] { return probe.resets == loss && !(*engine)->Lost(); })) << loss;
  }
}

INSTANTIATE_TEST_SUITE_P(Places, WatchTest, testing::Values("process", "thread"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace reticle
