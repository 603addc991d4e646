// Faults of a card, as the driver notices them, wherever the card runs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "backends/hardwired/driver/device_test_util.h"

namespace reticle::backends::hardwired {
namespace {

using ::testing::HasSubstr;

constexpr auto kPatience = std::chrono::seconds(20);
// Long enough for a card that works but has to wait for a busy machine's processor.
constexpr char kWatchdogMs[] = "400";

// The place of the card and further options.
struct Case {
  const char* name;
  OptionList options;
};

std::vector<Case> Cases() {
  return {
      {"inline", {{"compute", "synthetic"}, {"card", "inline"}}},
      {"thread", {{"compute", "synthetic"}}},
      {"process", {{"compute", "synthetic"}, {"card", "process"}, {"card_program", CARD_FOR_TEST}}},
      {"replay", {{"content", "replay"}}}};
}

class FaultDeviceTest : public ::testing::TestWithParam<Case> {
 protected:
  void Open(OptionList more = {}) {
    OptionList options = GetParam().options;
    options.insert(
        options.end(),
        {{"watchdog_ms", "60000"}, {"name", "under-test"}, {"limits.context", "100000"}});
    options.insert(options.end(), more.begin(), more.end());
    auto device = OpenCard(options, 3);
    ASSERT_TRUE(device.ok()) << device.status();
    host_ = std::make_unique<TestHost>(*std::move(device));
  }
  void Inject(const std::string& text) {
    const auto fault = ParseFault(text);
    ASSERT_TRUE(fault.ok()) << fault.status();
    ASSERT_TRUE(InjectFault("under-test", *fault).ok());
  }
  reticle_health Health() { return *host_->device().Health(); }
  // Polls until `done`; false when patience ends.
  template <typename Done>
  bool PollUntil(Done done) {
    const auto give_up = std::chrono::steady_clock::now() + kPatience;
    while (!done()) {
      host_->Poll();
      if (std::chrono::steady_clock::now() > give_up) return false;
    }
    return true;
  }
  bool PollUntilLost() {
    return PollUntil([&] { return !host_->loss().ok(); });
  }
  // Begins two long streams and waits for tokens of both.
  void BeginTwo() {
    for (uint64_t id = 1; id <= 2; ++id) ASSERT_TRUE(host_->Begin(id, 8, 50'000).ok());
    ASSERT_TRUE(
        PollUntil([&] { return host_->stream(1).received > 5 && host_->stream(2).received > 5; }));
  }
  void ExpectLost(const char* reason) {
    ASSERT_TRUE(PollUntilLost());
    EXPECT_EQ(host_->loss().code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(host_->loss().message()), HasSubstr(reason));
    EXPECT_EQ(Health().state, uint32_t{RETICLE_HEALTH_FAILED});
    EXPECT_THAT(std::string(Health().reason), HasSubstr(reason));
    EXPECT_EQ(host_->Begin(9, 8, 5).code(), absl::StatusCode::kUnavailable);
  }
  // One end for each, and the device works again and says the same as before.
  void ExpectResetHelps() {
    host_->ForgetLoss();
    const absl::Status reset = host_->device().Reset();
    ASSERT_TRUE(reset.ok()) << reset;
    ASSERT_TRUE(PollUntil([&] { return host_->AllEnded(); }));
    for (const auto& [id, stream] : host_->streams()) {
      EXPECT_EQ(stream.ends, 1u) << id;
      EXPECT_EQ(stream.finish, uint32_t{RETICLE_FINISH_ERROR});
      EXPECT_EQ(stream.status, RETICLE_ABORTED);
    }
    EXPECT_EQ(Health().state, uint32_t{RETICLE_HEALTH_READY}) << Health().reason;
    EXPECT_EQ(host_->device().Stats()->resets, 1u);
    // id 32 has the prompt of id 1.
    ASSERT_TRUE(host_->Begin(32, 8, 6).ok());
    ASSERT_TRUE(PollUntil([&] { return host_->stream(32).ends == 1; }));
    const std::vector<uint32_t>& before = host_->stream(1).tokens;
    EXPECT_EQ(host_->stream(32).tokens, std::vector<uint32_t>(before.begin(), before.begin() + 6));
  }

  std::unique_ptr<TestHost> host_;
};

TEST_P(FaultDeviceTest, ACrash) {
  Open();
  BeginTwo();
  Inject("crash");
  ExpectLost("gone");
  ExpectResetHelps();
}

TEST_P(FaultDeviceTest, AHang) {
  Open({{"watchdog_ms", kWatchdogMs}});
  BeginTwo();
  Inject("hang");
  ExpectLost("hangs");
  ExpectResetHelps();
}

TEST_P(FaultDeviceTest, AnUncorrectedMemoryError) {
  Open();
  BeginTwo();
  Inject("uncorrected");
  ExpectLost("uncorrected memory error");
  EXPECT_EQ(host_->device().Stats()->uncorrected_errors, 1u);
  ExpectResetHelps();
  EXPECT_EQ(host_->device().Stats()->uncorrected_errors, 1u);
}

TEST_P(FaultDeviceTest, ACorruptImageIsFoundByTheScrub) {
  Open({{"scrub_ms", "20"}});
  BeginTwo();
  Inject("image");
  ExpectLost("seal");
  ExpectResetHelps();
}

TEST_P(FaultDeviceTest, CorrectedErrorsAreCountedAndDegrade) {
  Open();
  BeginTwo();
  Inject("corrected=5");
  ASSERT_TRUE(PollUntil([&] { return host_->device().Stats()->corrected_errors == 5; }));
  EXPECT_EQ(Health().state, uint32_t{RETICLE_HEALTH_DEGRADED});
  EXPECT_THAT(std::string(Health().reason), HasSubstr("5 corrected"));
  EXPECT_TRUE(host_->loss().ok());
}

TEST_P(FaultDeviceTest, BadRecordsAreSentAgain) {
  Open();
  ASSERT_TRUE(host_->Begin(1, 8, 40).ok());
  ASSERT_TRUE(PollUntil([&] { return host_->stream(1).ends == 1; }));
  ASSERT_TRUE(host_->Begin(32, 8, 40).ok());
  Inject("link=7");
  ASSERT_TRUE(PollUntil([&] { return host_->stream(32).ends == 1; }));
  EXPECT_TRUE(host_->loss().ok()) << host_->loss();
  EXPECT_EQ(host_->stream(32).tokens, host_->stream(1).tokens);
  EXPECT_EQ(host_->device().Stats()->link_errors, 7u);
  EXPECT_EQ(Health().state, uint32_t{RETICLE_HEALTH_DEGRADED});
}

TEST_P(FaultDeviceTest, ABrokenLink) {
  Open();
  BeginTwo();
  Inject("link=0");
  ExpectLost("link");
  host_->ForgetLoss();
  ASSERT_TRUE(host_->device().Reset().ok());
  ASSERT_TRUE(PollUntil([&] { return host_->AllEnded(); }));
}

TEST_P(FaultDeviceTest, SlowAndHot) {
  Open();
  BeginTwo();
  EXPECT_EQ(Health().state, uint32_t{RETICLE_HEALTH_READY});
  Inject("thermal=0.25");
  ASSERT_TRUE(PollUntil([&] { return Health().state == RETICLE_HEALTH_DEGRADED; }));
  EXPECT_THAT(std::string(Health().reason), HasSubstr("25 %"));
  Inject("clear");
  ASSERT_TRUE(PollUntil([&] { return Health().state == RETICLE_HEALTH_READY; }));
  Inject("slow=2");
  ASSERT_TRUE(PollUntil([&] { return Health().state == RETICLE_HEALTH_DEGRADED; }));
  EXPECT_THAT(std::string(Health().reason), HasSubstr("50 %"));
  Inject("slow=2,for=1ms");
  ASSERT_TRUE(PollUntil([&] { return Health().state == RETICLE_HEALTH_READY; }));
}

// A host that sleeps on the event is woken when the card is lost.
TEST_P(FaultDeviceTest, ASleepingHostIsWoken) {
  for (const char* fault : {"crash", "hang"}) {
    Open({{"timing.decode_rate", "0.01"}, {"watchdog_ms", kWatchdogMs}});
    ASSERT_TRUE(host_->Begin(1, 8, 100).ok());
    ASSERT_TRUE(PollUntil([&] { return host_->stream(1).received == 1; }));
    while (host_->device().Arm()) host_->Poll();
    Inject(fault);
    const auto give_up = std::chrono::steady_clock::now() + kPatience;
    while (host_->loss().ok() && std::chrono::steady_clock::now() < give_up) {
      pollfd fd{host_->device().capabilities().event_fd, POLLIN, 0};
      ASSERT_EQ(poll(&fd, 1, 20'000), 1) << fault;
      uint64_t events = 0;
      [[maybe_unused]] const ssize_t taken = read(fd.fd, &events, sizeof(events));
      host_->Poll();
      if (host_->loss().ok()) host_->device().Arm();
    }
    EXPECT_FALSE(host_->loss().ok()) << fault;
    host_.reset();
  }
}

TEST_P(FaultDeviceTest, AFaultFileIsWatched) {
  const std::string path = testing::TempDir() + GetParam().name + "_faults.txt";
  std::ofstream(path) << "# none yet\n";
  Open({{"fault_file", path}});
  BeginTwo();
  std::ofstream(path) << "7 hang\nother crash\nunder-test what\n3 corrected=2\n";
  ASSERT_TRUE(PollUntil([&] { return host_->device().Stats()->corrected_errors == 2; }));
  EXPECT_TRUE(host_->loss().ok());
}

INSTANTIATE_TEST_SUITE_P(Places, FaultDeviceTest, ::testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

// A card process that somebody else runs: it is hung and killed from outside, and found again.
class SocketCardTest : public ::testing::Test {
 protected:
  void SetUp() override { StartCard(); }
  void TearDown() override { KillCard(SIGKILL); }

  void StartCard() {
    pid_ = fork();
    if (pid_ == 0) {
      execl(CARD_FOR_TEST, "reticle", "card", "--socket", path_.c_str(), nullptr);
      _exit(1);
    }
  }
  void KillCard(int signal) {
    if (pid_ <= 0) return;
    kill(pid_, signal);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  template <typename Done>
  static bool WaitUntil(Done done) {
    const auto give_up = std::chrono::steady_clock::now() + kPatience;
    while (!done()) {
      if (std::chrono::steady_clock::now() > give_up) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }

  const std::string path_ = testing::TempDir() + "card_test_" + std::to_string(getpid()) + ".sock";
  pid_t pid_ = -1;
};

TEST_F(SocketCardTest, IsLostAndFoundAgain) {
  std::unique_ptr<TestHost> host;
  ASSERT_TRUE(WaitUntil([&] {
    auto device =
        OpenCard({{"card", "socket"}, {"card_socket", path_}, {"watchdog_ms", kWatchdogMs}});
    if (device.ok()) host = std::make_unique<TestHost>(*std::move(device));
    return host != nullptr;
  }));
  Device& device = host->device();
  EXPECT_STREQ(device.capabilities().device_name, "unlimited");
  ASSERT_TRUE(host->Begin(1, 8, 20).ok());
  ASSERT_TRUE(WaitUntil([&] { return host->Poll(), host->AllEnded(); }));
  // A hang by signal; the card is another process, so a reset means to connect again.
  ASSERT_EQ(kill(pid_, SIGRTMIN + static_cast<int>(FaultKind::kHang)), 0);
  uint64_t id = 31;
  ASSERT_TRUE(WaitUntil([&] {
    if (host->loss().ok() && host->AllEnded()) host->Begin(++id, 8, 100).IgnoreError();
    host->Poll();
    return !host->loss().ok();
  }));
  EXPECT_THAT(std::string(host->loss().message()), HasSubstr("hangs"));
  host->ForgetLoss();
  const absl::Status reset = device.Reset();
  ASSERT_TRUE(reset.ok()) << reset;
  ASSERT_TRUE(WaitUntil([&] { return host->Poll(), host->AllEnded(); }));
  // Killed: it cannot come back until somebody starts it.
  KillCard(SIGKILL);
  ASSERT_TRUE(WaitUntil([&] { return host->Poll(), !host->loss().ok(); }));
  EXPECT_EQ(device.Reset().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(device.Health()->state, uint32_t{RETICLE_HEALTH_FAILED});
  StartCard();
  ASSERT_TRUE(WaitUntil([&] { return device.Reset().ok(); }));
  host->ForgetLoss();
  ASSERT_TRUE(host->Begin(1000 * 31 + 1, 8, 20).ok());
  ASSERT_TRUE(WaitUntil([&] { return host->Poll(), host->AllEnded(); }));
  EXPECT_EQ(host->stream(1000 * 31 + 1).tokens, host->stream(1).tokens);
  EXPECT_FALSE(OpenCard({{"card", "socket"}, {"card_socket", path_}, {"profile", "x"}}).ok());
}

TEST(FaultTest, ParsesAndFormats) {
  for (const char* text : {"hang", "crash", "slow=4", "thermal=0.5", "link=1", "corrected=1",
                           "uncorrected", "image", "clear", "slow=2,for=1.5s"}) {
    const auto fault = ParseFault(text);
    ASSERT_TRUE(fault.ok()) << fault.status();
    EXPECT_EQ(FormatFault(*fault), text);
  }
  EXPECT_EQ(FormatFault(*ParseFault("slow")), "slow=4");
  for (const char* text : {"", "melt", "hang=1", "slow=0.5", "slow=x", "slow=2,for=", "slow=2,5s",
                           "thermal=2", "slow=2,for=-1s", "link=nan"}) {
    EXPECT_FALSE(ParseFault(text).ok()) << text;
  }
  EXPECT_EQ(InjectFault("nobody", {}).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(InjectFault(77u, {}).code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace reticle::backends::hardwired
