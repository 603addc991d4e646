#include "server/metrics/buckets.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "server/metrics/metric.h"

namespace reticle::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Buckets, DefaultsRiseAndSeeThisHardware) {
  const Buckets buckets;
  for (const MetricInfo& info : MetricCatalogue()) {
    if (!Buckets::Configurable(info.id)) continue;
    const std::vector<double>& bounds = buckets.Of(info.id);
    EXPECT_TRUE(std::is_sorted(bounds.begin(), bounds.end(), std::less_equal<>())) << info.name;
  }
  EXPECT_EQ(buckets.Of(Metric::kInterTokenLatency).front(), 5e-6);
  EXPECT_EQ(buckets.Of(Metric::kTimeToFirstToken).front(), 50e-6);
  EXPECT_EQ(buckets.Of(Metric::kE2eRequestLatency).front(), 1e-3);
}

TEST(Buckets, AreReplacedByName) {
  const auto buckets = Buckets::Create({"vllm:time_to_first_token_seconds=0.001, 0.2,3"});
  ASSERT_TRUE(buckets.ok()) << buckets.status();
  EXPECT_THAT(buckets->Of(Metric::kTimeToFirstToken), ElementsAre(0.001, 0.2, 3));
  EXPECT_EQ(buckets->Of(Metric::kInterTokenLatency).front(), 5e-6);
}

TEST(Buckets, WhatMakesNoSenseIsRefusedByName) {
  for (const char* option :
       {"", "vllm:time_to_first_token_seconds",
        "vllm:time_to_first_token_seconds=", "vllm:time_to_first_token_seconds=1,x",
        "vllm:time_to_first_token_seconds=1,inf", "vllm:time_to_first_token_seconds=2,2",
        "vllm:num_requests_running=1", "nothing=1", "reticle_server_added_latency_seconds=1"}) {
    const auto buckets = Buckets::Create({option});
    ASSERT_EQ(buckets.status().code(), absl::StatusCode::kInvalidArgument) << option;
    EXPECT_THAT(std::string(buckets.status().message()), HasSubstr("--metrics-buckets"));
  }
}

}  // namespace
}  // namespace reticle::server
