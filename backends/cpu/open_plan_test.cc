#include "backends/cpu/open_plan.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/synthetic.h"

namespace reticle::backends::cpu {
namespace {

using testing::HasSubstr;

constexpr uint64_t kGiB = uint64_t{1} << 30;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

absl::StatusOr<OpenPlan> Plan(const reticle_device_config& config, uint64_t available = 8 * kGiB,
                              uint64_t weights = kGiB) {
  return MakeOpenPlan(config, models::SmallWideLlamaConfig(), weights, available);
}

TEST(OpenPlanTest, DefaultsFitTheModel) {
  const auto plan = Plan({});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->context_limit, models::SmallWideLlamaConfig().context_length);
  EXPECT_EQ(plan->kv.block_tokens, 16u);
  EXPECT_EQ(plan->kv.type, kernels::KvType::kF16);
  EXPECT_GE(plan->kv_blocks * plan->kv.block_tokens, uint64_t{plan->context_limit} * 64);
  EXPECT_GE(plan->threads, 1);
}

TEST(OpenPlanTest, TheContextShrinksToTheKvThatIsThere) {
  reticle_device_config config{};
  const kernels::KvGeometry kv = Plan({})->kv;
  config.kv_bytes = 3 * kv.block_bytes() + 5;
  const auto plan = Plan(config);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->kv_blocks, 3u);
  EXPECT_EQ(plan->context_limit, 48u);
}

TEST(OpenPlanTest, RefusalsNameFieldValueAndLimit) {
  reticle_device_config config{};
  config.context_limit = 1u << 30;
  EXPECT_THAT(Message(Plan(config).status()), HasSubstr("context_limit is 1073741824"));
  config = {};
  config.kv_block_tokens = 24;
  EXPECT_THAT(Message(Plan(config).status()), HasSubstr("kv_block_tokens is 24"));
  config = {};
  config.kv_type = 3;
  EXPECT_THAT(Message(Plan(config).status()), HasSubstr("kv_type is 3"));
  config = {};
  config.kv_bytes = 10;
  EXPECT_THAT(Message(Plan(config).status()), HasSubstr("kv_bytes is 10"));
  config = {};
  config.device_index = 1;
  EXPECT_THAT(Message(Plan(config).status()), HasSubstr("device_index is 1"));
  config = {};
  config.threads = 1000000;
  EXPECT_THAT(Message(Plan(config).status()), HasSubstr("threads is 1000000"));
  config = {};
  config.max_sequences = 1000000;
  EXPECT_THAT(Message(Plan(config).status()), HasSubstr("max_sequences is 1000000"));
  config = {};
  config.context_limit = 64;
  config.kv_bytes = Plan({})->kv.block_bytes();
  EXPECT_THAT(Message(Plan(config).status()), HasSubstr("hold 16 tokens"));
  const reticle_option unknown[] = {{"colour", "red"}};
  config = {};
  config.options = unknown;
  config.option_count = 1;
  EXPECT_THAT(Message(Plan(config).status()), HasSubstr("'colour'"));
  const reticle_option zero[] = {{"step_tokens", "0"}};
  config.options = zero;
  EXPECT_THAT(Message(Plan(config).status()), HasSubstr("step_tokens is '0'"));
}

TEST(OpenPlanTest, AModelThatDoesNotFitIsRefusedWithTheNumbers) {
  const auto plan = Plan({}, 4 * kGiB, 6 * kGiB);
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(plan.status()), HasSubstr("weights " + std::to_string(6 * kGiB)));
  EXPECT_THAT(Message(plan.status()), HasSubstr(std::to_string(4 * kGiB) + " are available"));
}

TEST(OpenPlanTest, OptionsAreRead) {
  const reticle_option options[] = {{"step_tokens", "33"}, {"kv", "f32"}};
  reticle_device_config config{};
  config.options = options;
  config.option_count = 2;
  const auto plan = Plan(config);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->step_tokens, 33u);
  EXPECT_EQ(plan->kv.type, kernels::KvType::kF32);
}

TEST(OpenPlanTest, TheMachineSaysHowMuchMemoryItHas) { EXPECT_GT(AvailableMemory(), 0u); }

TEST(OpenPlanTest, ACgroupBoundsTheMemoryOfTheMachine) {
  const std::filesystem::path root = std::filesystem::temp_directory_path() /
                                     ("reticle-open-plan-test-" + std::to_string(getpid()));
  const auto write = [&](const std::string& path, const std::string& text) {
    const std::filesystem::path whole = root.string() + path;
    std::filesystem::create_directories(whole.parent_path());
    std::ofstream(whole) << text;
  };
  write("/proc/meminfo", "MemTotal:  9000 kB\nMemAvailable:   8000 kB\n");
  EXPECT_EQ(AvailableMemory(root.string()), 8000u * 1024);
  write("/proc/self/cgroup", "0::/box\n");
  write("/sys/fs/cgroup/box/memory.max", "5000000");
  write("/sys/fs/cgroup/box/memory.current", "1000000");
  EXPECT_EQ(AvailableMemory(root.string()), 4'000'000u);
  std::filesystem::remove_all(root);
}

TEST(OpenPlanTest, TheKvPoolIsPopulatedWhenAsked) {
  EXPECT_FALSE(Plan({})->populate_kv);
  const reticle_option options[] = {{"populate", "kv"}};
  reticle_device_config config{};
  config.options = options;
  config.option_count = 1;
  EXPECT_TRUE(Plan(config)->populate_kv);
  const reticle_option unknown[] = {{"populate", "all"}};
  config.options = unknown;
  EXPECT_THAT(Message(Plan(config).status()), HasSubstr("populate is 'all'"));
}

}  // namespace
}  // namespace reticle::backends::cpu
