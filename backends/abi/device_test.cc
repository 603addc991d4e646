#include "backends/abi/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "backends/abi/capabilities_check.h"
#include "backends/abi/driver_support.h"
#include "backends/abi/host.h"

namespace reticle::backends {
namespace {

using ::testing::HasSubstr;

// A driver whose every answer a test can set.
struct Answers {
  int32_t code = RETICLE_OK;
  const char* message = "";
  reticle_capabilities caps{};
  size_t accepted = 0;
  std::vector<reticle_completion> completions;
  size_t completion_room = sizeof(reticle_completion);
  size_t claimed_count = 0;
  int closed = 0;
  std::string options;
  std::string model_path;
};
Answers g_answers;

int32_t Answer(reticle_error* error) {
  return g_answers.code == RETICLE_OK ? RETICLE_OK
                                      : FillError(error, g_answers.code, g_answers.message);
}

const reticle_device_api kApi = {
    .struct_size = sizeof(reticle_device_api),
    .abi_major = RETICLE_DEVICE_ABI_MAJOR,
    .abi_minor = RETICLE_DEVICE_ABI_MINOR,
    .driver_name = "test",
    .driver_version = "0",
    .open = [](const reticle_host*, const reticle_device_config* config, reticle_device** device,
               reticle_error* error) -> int32_t {
      g_answers.options.clear();
      for (size_t i = 0; i < config->option_count; ++i) {
        g_answers.options += std::string(config->options[i].name) + "=" + config->options[i].value;
      }
      g_answers.model_path = config->model_path == nullptr ? "(null)" : config->model_path;
      *device = reinterpret_cast<reticle_device*>(&g_answers);
      return Answer(error);
    },
    .close = [](reticle_device*) { ++g_answers.closed; },
    .describe = [](reticle_device*, reticle_capabilities* caps, reticle_error*) -> int32_t {
      WriteStruct(g_answers.caps, caps);
      return RETICLE_OK;
    },
    .submit = [](reticle_device*, const reticle_work*, size_t, size_t, size_t* accepted,
                 reticle_error* error) -> int32_t {
      *accepted = g_answers.accepted;
      return Answer(error);
    },
    .poll = [](reticle_device*, reticle_completion* completions, size_t stride, size_t,
               size_t* count, reticle_error* error) -> int32_t {
      for (size_t i = 0; i < g_answers.completions.size(); ++i) {
        WriteStruct(g_answers.completions[i], StridedAt(completions, stride, i),
                    g_answers.completion_room);
      }
      *count = g_answers.claimed_count;
      return Answer(error);
    },
    .arm = [](reticle_device*) -> int32_t { return 1; },
    .cancel = [](reticle_device*, uint64_t, reticle_error* error) { return Answer(error); },
    .adapter_load = [](reticle_device*, uint64_t, const char*, float,
                       reticle_error* error) { return Answer(error); },
    .adapter_unload = [](reticle_device*, uint64_t, reticle_error* error) { return Answer(error); },
    .stats = [](reticle_device*, reticle_stats*, reticle_error* error) { return Answer(error); },
    .health = [](reticle_device*, reticle_health*, reticle_error* error) { return Answer(error); },
    .reset = [](reticle_device*, reticle_error* error) { return Answer(error); },
};

class DeviceTest : public ::testing::Test {
 protected:
  DeviceTest() {
    g_answers = Answers{};
    reticle_capabilities& caps = g_answers.caps;
    std::strcpy(caps.device_name, "test");
    caps.vocab_size = 10;
    caps.context_limit = 100;
    caps.max_sequences = 2;
    caps.kv_mode = RETICLE_KV_HOST_PAGED;
    caps.kv_block_tokens = 4;
    caps.kv_block_count = 8;
    caps.kv_token_capacity = 32;
    caps.max_prefill_chunk = 16;
    caps.max_step_tokens = 16;
    caps.max_decode_credits = 1;
    caps.event_fd = -1;
  }
  absl::StatusOr<std::unique_ptr<Device>> Open(const DeviceConfig& config = {}) {
    return Device::Open(*Driver::FromApi(&kApi), config);
  }
};

// ---- Driver ----

TEST_F(DeviceTest, ATableIsCheckedBeforeAnyCall) {
  EXPECT_EQ(Driver::FromApi(nullptr).status().code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(Driver::FromApi(&kApi).ok());
  EXPECT_EQ(Driver::FromApi(&kApi)->name(), "test");

  reticle_device_api api = kApi;
  api.abi_major = RETICLE_DEVICE_ABI_MAJOR + 1;
  api.abi_minor = 5;
  absl::Status status = Driver::FromApi(&api).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("2.5, this host 1.1"));

  api = kApi;
  api.struct_size = offsetof(reticle_device_api, reset);
  EXPECT_THAT(std::string(Driver::FromApi(&api).status().message()), HasSubstr("struct_size"));
  api.struct_size = 4;
  EXPECT_THAT(std::string(Driver::FromApi(&api).status().message()), HasSubstr("struct_size is 4"));

  for (const char* name : {"", "Big", "two words"}) {
    api = kApi;
    api.driver_name = name;
    EXPECT_EQ(Driver::FromApi(&api).status().code(), absl::StatusCode::kInvalidArgument) << name;
  }
}

TEST_F(DeviceTest, AMissingFunctionIsNamed) {
  // Every pointer of the table from driver_name on, one at a time.
  const size_t first = offsetof(reticle_device_api, driver_name);
  for (size_t at = first; at < sizeof(reticle_device_api); at += sizeof(void*)) {
    reticle_device_api api = kApi;
    std::memset(reinterpret_cast<char*>(&api) + at, 0, sizeof(void*));
    const absl::Status status = Driver::FromApi(&api).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << "offset " << at;
    EXPECT_THAT(std::string(status.message()), HasSubstr("is NULL"));
  }
}

TEST_F(DeviceTest, ANewerMinorIsFine) {
  reticle_device_api api = kApi;
  api.abi_minor = 9;
  api.struct_size = sizeof(api) + 64;
  EXPECT_TRUE(Driver::FromApi(&api).ok());
}

TEST_F(DeviceTest, LoadSaysWhatIsWrongWithAFile) {
  const auto load = [](const std::string& path) { return Driver::Load(path).status(); };
  EXPECT_EQ(load("/nonexistent/driver.so").code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(load("/nonexistent/driver.so").message()),
              HasSubstr("/nonexistent/driver.so"));
  EXPECT_EQ(load("libm.so.6").code(), absl::StatusCode::kNotFound) << "no search in the system";
  EXPECT_EQ(load("/proc/self/status").code(), absl::StatusCode::kNotFound);

  absl::Status status = load(BROKEN_NO_SYMBOL_PATH);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("reticle_device_get_api"));
  EXPECT_THAT(std::string(status.message()), HasSubstr(BROKEN_NO_SYMBOL_PATH));
  status = load(BROKEN_REFUSES_PATH);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr(BROKEN_REFUSES_PATH));
  EXPECT_THAT(std::string(status.message()), HasSubstr("1.1"));
  status = load(BROKEN_OTHER_MAJOR_PATH);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr(BROKEN_OTHER_MAJOR_PATH));
  EXPECT_THAT(std::string(status.message()), HasSubstr("99.7"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("1.1"));
}

// ---- Device ----

TEST_F(DeviceTest, OpensWithItsConfigurationAndClosesOnce) {
  DeviceConfig config;
  config.options = {{"a", "1"}, {"b", "2"}};
  {
    const auto device = Open(config);
    ASSERT_TRUE(device.ok()) << device.status();
    EXPECT_EQ(g_answers.options, "a=1b=2");
    EXPECT_EQ(g_answers.model_path, "(null)");
    EXPECT_EQ((*device)->capabilities().vocab_size, 10u);
    EXPECT_EQ(g_answers.closed, 0);
  }
  EXPECT_EQ(g_answers.closed, 1);
}

TEST_F(DeviceTest, RefusesInsaneCapabilitiesAndCloses) {
  struct Case {
    const char* field;
    void (*spoil)(reticle_capabilities&);
  };
  const Case cases[] = {
      {"vocab_size", [](auto& c) { c.vocab_size = 0; }},
      {"vocab_size", [](auto& c) { c.vocab_size = RETICLE_NO_TOKEN; }},
      {"context_limit", [](auto& c) { c.context_limit = 0; }},
      {"max_sequences", [](auto& c) { c.max_sequences = 0; }},
      {"max_prefill_chunk", [](auto& c) { c.max_prefill_chunk = 0; }},
      {"max_step_tokens", [](auto& c) { c.max_step_tokens = 0; }},
      {"max_decode_credits", [](auto& c) { c.max_decode_credits = 0; }},
      {"kv_mode", [](auto& c) { c.kv_mode = 7; }},
      {"kv_token_capacity", [](auto& c) { c.kv_token_capacity = 0; }},
      {"kv_token_capacity", [](auto& c) { c.kv_token_capacity = 33; }},
      {"kv_block_count", [](auto& c) { c.kv_block_count = 0; }},
      {"max_top_k", [](auto& c) { c.max_top_k = 11; }},
      {"default_top_k", [](auto& c) { c.default_top_k = 11; }},
      {"default_top_k",
       [](auto& c) {
         c.max_top_k = 5;
         c.default_top_k = 6;
       }},
      {"max_logprobs", [](auto& c) { c.features = RETICLE_FEATURE_LOGPROBS; }},
      {"max_adapters", [](auto& c) { c.features = RETICLE_FEATURE_ADAPTERS; }},
      {"event_fd", [](auto& c) { c.event_fd = -2; }},
      {"device_name", [](auto& c) { c.device_name[0] = '\0'; }},
      {"device_name", [](auto& c) { std::memset(c.device_name, 'x', sizeof(c.device_name)); }},
      {"model_hash", [](auto& c) { std::memset(c.model_hash, 'a', sizeof(c.model_hash)); }},
      {"model_hash", [](auto& c) { std::strcpy(c.model_hash, "abc"); }},
  };
  const reticle_capabilities sane = g_answers.caps;
  for (const Case& item : cases) {
    g_answers.closed = 0;
    g_answers.caps = sane;
    item.spoil(g_answers.caps);
    const absl::Status status = Open().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(std::string(status.message()), HasSubstr(item.field));
    EXPECT_EQ(g_answers.closed, 1);
  }
}

TEST_F(DeviceTest, ErrorsCarryTheDriversNameCodeAndMessage) {
  g_answers.code = RETICLE_NOT_FOUND;
  g_answers.message = "no model here";
  EXPECT_EQ(Open().status().ToString(), "NOT_FOUND: test: no model here");
  g_answers.code = 77;
  EXPECT_EQ(Open().status().ToString(), "UNKNOWN: test: no model here (status code 77)");
  g_answers.code = RETICLE_ABORTED;
  g_answers.message = "";
  EXPECT_THAT(std::string(Open().status().message()), HasSubstr("no reason"));
}

TEST_F(DeviceTest, SubmitBelievesNoImpossibleCount) {
  const auto device = *Open();
  std::vector<reticle_work> work(3);
  absl::Status refusal;
  g_answers.accepted = 3;
  EXPECT_EQ(device->Submit(work, &refusal), 3u);
  EXPECT_TRUE(refusal.ok());
  g_answers.accepted = 2;
  EXPECT_EQ(device->Submit(work, &refusal), 2u);
  EXPECT_EQ(refusal.code(), absl::StatusCode::kInternal) << "OK, but not all were taken";
  g_answers.accepted = 9;
  EXPECT_EQ(device->Submit(work, &refusal), 3u);
  EXPECT_EQ(refusal.code(), absl::StatusCode::kInternal);
  g_answers.accepted = 1;
  g_answers.code = RETICLE_RESOURCE_EXHAUSTED;
  EXPECT_EQ(device->Submit(work, &refusal), 1u);
  EXPECT_EQ(refusal.code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(DeviceTest, PollCompletesStructsOfOlderDriversWithZeros) {
  const auto device = *Open();
  reticle_completion completion{};
  std::memset(static_cast<void*>(&completion), 0x5A, sizeof(completion));
  g_answers.completions = {completion};
  g_answers.completion_room = offsetof(reticle_completion, top_count);
  g_answers.claimed_count = 1;
  std::vector<reticle_completion> got(2);
  std::memset(static_cast<void*>(got.data()), 0xFF, 2 * sizeof(reticle_completion));
  ASSERT_EQ(*device->Poll(got), 1u);
  EXPECT_EQ(got[0].token, 0x5A5A5A5Au);
  EXPECT_EQ(got[0].top_count, 0u);
  EXPECT_EQ(got[0].top, nullptr);
  EXPECT_EQ(got[0].message, nullptr);
  g_answers.claimed_count = 3;
  EXPECT_EQ(device->Poll(got).status().code(), absl::StatusCode::kInternal);
  g_answers.code = RETICLE_UNAVAILABLE;
  EXPECT_EQ(device->Poll(got).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(DeviceTest, EveryVerbReportsItsError) {
  const auto device = *Open();
  EXPECT_TRUE(device->Cancel(1).ok());
  EXPECT_TRUE(device->Stats().ok());
  EXPECT_TRUE(device->Arm());
  g_answers.code = RETICLE_DATA_LOSS;
  for (const absl::Status& status :
       {device->Cancel(1), device->LoadAdapter(1, "a", 1), device->UnloadAdapter(1),
        device->Stats().status(), device->Health().status(), device->Reset()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  }
}

// ---- The host's callbacks ----

TEST(HostCallbacksTest, AllocateAlignedOrNot) {
  const reticle_host& host = HostCallbacks();
  EXPECT_EQ(host.struct_size, sizeof(reticle_host));
  for (const size_t alignment : {1u, 8u, 64u, 4096u}) {
    void* const memory = host.allocate(host.context, 100, alignment);
    ASSERT_NE(memory, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % alignment, 0u);
    std::memset(memory, 1, 100);
    host.release(host.context, memory);
  }
  EXPECT_EQ(host.allocate(host.context, 8, 3), nullptr);
  EXPECT_EQ(host.allocate(host.context, 8, 0), nullptr);
  void* const nothing = host.allocate(host.context, 0, 16);
  host.release(host.context, nothing);
  host.release(host.context, nullptr);
}

TEST(HostCallbacksTest, TellTheTimeAndTakeLines) {
  const reticle_host& host = HostCallbacks();
  const uint64_t before = host.now_ns(host.context);
  EXPECT_GE(host.now_ns(host.context), before);
  host.log(host.context, RETICLE_LOG_DEBUG, "not shown", 9);
  host.log(host.context, -5, nullptr, 0);
}

}  // namespace
}  // namespace reticle::backends
