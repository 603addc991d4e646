#include "backends/abi/driver_table.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>

namespace reticle::backends {
namespace {

// Answers what `answer` says; counts who is there.
class Toy {
 public:
  static absl::StatusOr<std::unique_ptr<Toy>> Open(const reticle_host& /*host*/,
                                                   const reticle_device_config& config) {
    if (config.threads == 13) return absl::NotFoundError("no device 13");
    if (config.threads == 14) throw std::runtime_error("a library throws");
    return std::make_unique<Toy>();
  }
  Toy() { ++living; }
  ~Toy() { --living; }

  const reticle_capabilities& capabilities() const { return capabilities_; }
  absl::Status Submit(const reticle_work* /*work*/, size_t /*stride*/, size_t count,
                      size_t* accepted) {
    *accepted = 1;
    if (count > 1) throw std::bad_alloc();
    return absl::OkStatus();
  }
  absl::Status Poll(reticle_completion* /*completions*/, size_t /*stride*/, size_t capacity,
                    size_t* count) {
    *count = capacity;
    return absl::OkStatus();
  }
  bool Arm() { return true; }
  absl::Status Cancel(uint64_t sequence) {
    if (sequence == 0) throw std::runtime_error("thrown by cancel");
    return absl::OutOfRangeError("returned by cancel");
  }
  absl::Status LoadAdapter(uint64_t /*adapter*/, const char* path, float /*scale*/) {
    return absl::InvalidArgumentError("path '" + std::string(path) + "'");
  }
  absl::Status UnloadAdapter(uint64_t /*adapter*/) { return absl::OkStatus(); }
  reticle_stats Stats() const {
    reticle_stats stats{};
    stats.steps = 7;
    return stats;
  }
  reticle_health Health() const { return {}; }
  absl::Status Reset() { return absl::OkStatus(); }

  static inline int living = 0;

 private:
  reticle_capabilities capabilities_ = [] {
    reticle_capabilities capabilities{};
    capabilities.vocab_size = 99;
    return capabilities;
  }();
};

class DriverTableTest : public ::testing::Test {
 protected:
  DriverTableTest() {
    host_.struct_size = sizeof(host_);
    config_.struct_size = sizeof(config_);
    error_.struct_size = sizeof(error_);
  }
  int32_t Open() { return kApi.open(&host_, &config_, &device_, &error_); }

  static constexpr reticle_device_api kApi = DriverTable<Toy>::Make("toy", "3");
  reticle_host host_{};
  reticle_device_config config_{};
  reticle_device* device_ = nullptr;
  reticle_error error_{};
};

TEST_F(DriverTableTest, OpensAndCloses) {
  EXPECT_STREQ(kApi.driver_name, "toy");
  ASSERT_EQ(Open(), RETICLE_OK) << error_.message;
  EXPECT_EQ(Toy::living, 1);
  // A host of a version with fewer fields gets those.
  reticle_capabilities capabilities{};
  capabilities.struct_size = offsetof(reticle_capabilities, context_limit);
  capabilities.context_limit = 55;
  EXPECT_EQ(kApi.describe(device_, &capabilities, &error_), RETICLE_OK);
  EXPECT_EQ(capabilities.vocab_size, 99u);
  EXPECT_EQ(capabilities.context_limit, 55u);
  reticle_stats stats{};
  stats.struct_size = sizeof(stats);
  EXPECT_EQ(kApi.stats(device_, &stats, &error_), RETICLE_OK);
  EXPECT_EQ(stats.steps, 7u);
  kApi.close(device_);
  EXPECT_EQ(Toy::living, 0);
}

TEST_F(DriverTableTest, AFailedOpenLeavesNoDevice) {
  device_ = reinterpret_cast<reticle_device*>(1);
  config_.threads = 13;
  EXPECT_EQ(Open(), RETICLE_NOT_FOUND);
  EXPECT_STREQ(error_.message, "no device 13");
  EXPECT_EQ(device_, nullptr);
  config_.threads = 14;
  EXPECT_EQ(Open(), RETICLE_INTERNAL);
  EXPECT_STREQ(error_.message, "a library throws");
  EXPECT_EQ(kApi.open(nullptr, &config_, &device_, &error_), RETICLE_INVALID_ARGUMENT);
  EXPECT_EQ(kApi.open(&host_, nullptr, &device_, &error_), RETICLE_INVALID_ARGUMENT);
  host_.struct_size = sizeof(size_t);
  EXPECT_EQ(Open(), RETICLE_INVALID_ARGUMENT);
  EXPECT_EQ(std::string(error_.message).find("host->struct_size is 8; it must be at least "), 0u);
}

TEST_F(DriverTableTest, WhatTheClassReturnsOrThrowsBecomesACode) {
  ASSERT_EQ(Open(), RETICLE_OK);
  EXPECT_EQ(kApi.cancel(device_, 1, &error_), RETICLE_OUT_OF_RANGE);
  EXPECT_STREQ(error_.message, "returned by cancel");
  EXPECT_EQ(kApi.cancel(device_, 0, &error_), RETICLE_INTERNAL);
  EXPECT_STREQ(error_.message, "thrown by cancel");
  EXPECT_EQ(kApi.adapter_load(device_, 1, nullptr, 1, &error_), RETICLE_INVALID_ARGUMENT);
  EXPECT_STREQ(error_.message, "path ''");

  reticle_work work[2] = {};
  size_t accepted = 5;
  EXPECT_EQ(kApi.submit(device_, work, sizeof(work[0]), 2, &accepted, &error_),
            RETICLE_RESOURCE_EXHAUSTED);
  EXPECT_EQ(accepted, 1u) << "what was taken before stands";
  EXPECT_EQ(kApi.submit(device_, nullptr, sizeof(work[0]), 1, &accepted, &error_),
            RETICLE_INVALID_ARGUMENT);
  EXPECT_EQ(accepted, 0u);
  EXPECT_EQ(kApi.submit(device_, work, 4, 1, &accepted, &error_), RETICLE_INVALID_ARGUMENT);
  EXPECT_STREQ(error_.message, "stride is 4; it must be at least 8, for struct_size");
  size_t count = 5;
  EXPECT_EQ(kApi.poll(device_, nullptr, sizeof(reticle_completion), 1, &count, &error_),
            RETICLE_INVALID_ARGUMENT);
  EXPECT_EQ(count, 0u);
  kApi.close(device_);
}

}  // namespace
}  // namespace reticle::backends
