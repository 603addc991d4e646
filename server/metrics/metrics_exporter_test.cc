#include "server/metrics/metrics_exporter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <thread>

namespace reticle::server {
namespace {

using ::testing::HasSubstr;

// Value of the sample whose name and labels are exactly `series`, or NaN.
double Sample(const std::string& text, const std::string& series) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const size_t space = line.rfind(' ');
    if (line[0] != '#' && line.substr(0, space) == series) return std::stod(line.substr(space + 1));
  }
  return std::nan("");
}

class MetricsExporterTest : public ::testing::Test {
 protected:
  MetricsExporterTest() {
    exporter_.Publish(engine_, {"house", "0", 16, "cpu", "0"}, nullptr, nullptr);
  }

  MetricsExporter exporter_{"1.2.3"};
  EngineMetrics& engine_ = exporter_.AddEngine();
};

TEST_F(MetricsExporterTest, AddedLatencyIsAHistogramAndASumForEachStage) {
  AddedLatency added;
  added.tokens = 3;
  added.total_ns = 14'000;
  added.stage_ns = {1000, 2000, 3000, 4000, 4000};
  added.buckets[AddedLatency::Bucket(1'000)] = 1;
  added.buckets[AddedLatency::Bucket(6'500)] = 2;
  exporter_.OnTokensHandedOver(added);
  exporter_.OnTokensHandedOver(added);
  const std::string text = exporter_.Render();
  const std::string name = "reticle_server_added_latency_seconds";
  EXPECT_EQ(Sample(text, name + "_count"), 6);
  EXPECT_DOUBLE_EQ(Sample(text, name + "_sum"), 28e-6);
  EXPECT_EQ(Sample(text, name + "_bucket{le=\"1.024e-06\"}"), 2);
  EXPECT_EQ(Sample(text, name + "_bucket{le=\"+Inf\"}"), 6);
  EXPECT_DOUBLE_EQ(
      Sample(text, "reticle_server_added_latency_stage_seconds_total{stage=\"hand_over\"}"), 6e-6);
}

TEST_F(MetricsExporterTest, GaugesAreReadAtTheScrapeSoThatAnIdleEngineIsNotStale) {
  engine_.OnStep(10, 2, {.running = 3, .waiting = 4, .kv_blocks_total = 8, .kv_blocks_used = 2});
  std::string text = exporter_.Render();
  EXPECT_EQ(Sample(text, R"(vllm:num_requests_running{model_name="house",engine="0"})"), 3);
  EXPECT_EQ(Sample(text, R"(vllm:num_requests_waiting{model_name="house",engine="0"})"), 4);
  EXPECT_EQ(Sample(text, R"(vllm:kv_cache_usage_perc{model_name="house",engine="0"})"), 0.25);

  exporter_.Publish(
      engine_, {"house", "0", 16, "cpu", "0"},
      [] { return scheduler::EngineGauges{.kv_blocks_total = 8}; }, nullptr);
  text = exporter_.Render();
  EXPECT_EQ(Sample(text, R"(vllm:num_requests_running{model_name="house",engine="0"})"), 0);
  EXPECT_EQ(Sample(text, R"(vllm:kv_cache_usage_perc{model_name="house",engine="0"})"), 0);
}

TEST_F(MetricsExporterTest, DevicesAreShown) {
  EngineMetrics& engine = exporter_.AddEngine();
  DeviceSnapshot device;
  device.state = scheduler::DeviceState::kFenced;
  device.health = RETICLE_HEALTH_DEGRADED;
  device.full_speed = 4;
  device.max_adapters = 3;
  device.adapters = "a,b";
  device.stats.emplace();
  device.stats->power_watts = 180;
  device.stats->energy_uj = 2'500'000;
  device.stats->temperature_celsius = std::numeric_limits<double>::quiet_NaN();
  device.stats->slowdown_ratio = 1.5;
  device.stats->link_errors = 7;
  engine.OnDeviceLost(/*hung=*/true);
  engine.OnDeviceReset(/*succeeded=*/false);
  engine.OnDeviceReset(/*succeeded=*/true);
  engine.OnFailover(5);
  exporter_.Publish(
      engine, {"house", "1", 0, "taalas-hc1", "7"},
      [] { return scheduler::EngineGauges{.running = 2}; }, [&device] { return device; });
  const std::string text = exporter_.Render();
  const std::string labels = R"({device="taalas-hc1",card="7",model_name="house")";
  const auto sample = [&](const std::string& name, const std::string& more = "") {
    return Sample(text, name + labels + more + "}");
  };
  EXPECT_EQ(sample("reticle_device_state", R"(,state="fenced")"), 1);
  EXPECT_EQ(sample("reticle_device_state", R"(,state="ready")"), 0);
  EXPECT_EQ(sample("reticle_device_healthy"), 0.5);
  EXPECT_EQ(sample("reticle_device_occupancy"), 0.5);
  EXPECT_EQ(sample("reticle_device_losses_total", R"(,kind="hung")"), 1);
  EXPECT_EQ(sample("reticle_device_losses_total", R"(,kind="failed")"), 0);
  EXPECT_EQ(sample("reticle_device_resets_total", R"(,result="ok")"), 1);
  EXPECT_EQ(sample("reticle_device_failovers_total"), 5);
  EXPECT_EQ(sample("reticle_device_power_watts"), 180);
  EXPECT_EQ(sample("reticle_device_energy_joules_total"), 2.5);
  EXPECT_EQ(sample("reticle_device_temperature_celsius"), 0) << "not measured";
  EXPECT_EQ(sample("reticle_device_errors_total", R"(,kind="link")"), 7);
  EXPECT_EQ(sample("reticle_emulation_slowdown_ratio"), 1.5);
  EXPECT_THAT(text, testing::HasSubstr(R"(max_lora="3",waiting_lora_adapters="",)"
                                       R"(running_lora_adapters="a,b")"));
}

TEST_F(MetricsExporterTest, TokensAndGapsAreCounted) {
  engine_.OnStep(10, 2, {});
  engine_.OnStep(0, 3, {});
  engine_.OnInterTokenGaps(/*total_ns=*/4 * 59'000, /*count=*/4);
  engine_.OnFirstToken(70'000);
  const std::string text = exporter_.Render();
  EXPECT_EQ(Sample(text, R"(vllm:prompt_tokens_total{model_name="house",engine="0"})"), 10);
  EXPECT_EQ(Sample(text, R"(vllm:generation_tokens_total{model_name="house",engine="0"})"), 5);
  const std::string gaps = "vllm:inter_token_latency_seconds";
  const std::string labels = R"({model_name="house",engine="0")";
  EXPECT_EQ(Sample(text, gaps + "_count" + labels + "}"), 4);
  EXPECT_NEAR(Sample(text, gaps + "_sum" + labels + "}"), 4 * 59e-6, 1e-9);
  // 59 us lies between the 50 us and the 60 us bound.
  EXPECT_EQ(Sample(text, gaps + "_bucket" + labels + R"(,le="5e-05"})"), 0);
  EXPECT_EQ(Sample(text, gaps + "_bucket" + labels + R"(,le="6e-05"})"), 4);
  EXPECT_EQ(Sample(text, gaps + "_bucket" + labels + R"(,le="+Inf"})"), 4);
  EXPECT_EQ(Sample(text, "vllm:time_to_first_token_seconds_count" + labels + "}"), 1);
}

TEST_F(MetricsExporterTest, PrefixCacheCountsTokensAndSkipsRequestsThatBypassIt) {
  scheduler::Request request;
  engine_.OnAdmitted(request, 100, 64, 1000);
  request.use_prefix_cache = false;
  engine_.OnAdmitted(request, 50, 0, 1000);
  const std::string text = exporter_.Render();
  EXPECT_EQ(Sample(text, R"(vllm:prefix_cache_queries_total{model_name="house",engine="0"})"), 100);
  EXPECT_EQ(Sample(text, R"(vllm:prefix_cache_hits_total{model_name="house",engine="0"})"), 64);
}

TEST_F(MetricsExporterTest, OutcomesOfChoicesAndRequests) {
  exporter_.OnChoiceFinished("house", Outcome::kStop);
  exporter_.OnChoiceFinished("house", Outcome::kStop);
  exporter_.OnChoiceFinished("house", Outcome::kAbort);
  RequestRecord record;
  record.model = "house";
  record.n = 2;
  record.output_tokens = 7;
  record.e2e_ns = 1'500'000;
  exporter_.OnRequestFinished(record);
  const std::string text = exporter_.Render();
  const std::string labels = R"({model_name="house",engine="0")";
  EXPECT_EQ(Sample(text, "vllm:request_success_total" + labels + R"(,finished_reason="stop"})"), 2);
  EXPECT_EQ(Sample(text, "vllm:request_success_total" + labels + R"(,finished_reason="abort"})"),
            1);
  EXPECT_EQ(Sample(text, "vllm:request_success_total" + labels + R"(,finished_reason="length"})"),
            0);
  EXPECT_EQ(Sample(text, "vllm:e2e_request_latency_seconds_bucket" + labels + R"(,le="0.002"})"),
            1);
  EXPECT_EQ(Sample(text, "vllm:request_generation_tokens_sum" + labels + "}"), 7);
}

TEST_F(MetricsExporterTest, HttpRequestsByHandlerMethodAndStatus) {
  exporter_.OnHttpRequest("/v1/completions", "POST", 200, 2'000'000);
  exporter_.OnHttpRequest("/v1/completions", "POST", 400, 1'000'000);
  const std::string text = exporter_.Render();
  EXPECT_EQ(
      Sample(text, R"(http_requests_total{handler="/v1/completions",method="POST",status="400"})"),
      1);
  EXPECT_EQ(
      Sample(text,
             R"(http_request_duration_seconds_count{handler="/v1/completions",method="POST"})"),
      2);
}

TEST_F(MetricsExporterTest, EveryFamilyStandsOnceAlsoWithSeveralEngines) {
  exporter_.Publish(exporter_.AddEngine(), {"house", "1", 16, "cpu", "1"}, nullptr, nullptr);
  exporter_.AddEngine();  // not published: shows nothing
  exporter_.OnHttpRequest("/metrics", "GET", 200, 1);
  exporter_.OnGrpcRequest("Generate", 0, 1);
  std::istringstream lines(exporter_.Render());
  std::set<std::string> seen;
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("# TYPE ", 0) != 0) continue;
    EXPECT_TRUE(seen.insert(line).second) << line;
  }
  EXPECT_GT(seen.size(), 20u);
  EXPECT_THAT(exporter_.Render(),
              HasSubstr(R"(vllm:num_requests_running{model_name="house",engine="1"})"));
}

TEST_F(MetricsExporterTest, ScrapesWhileEnginesAndRequestsReport) {
  std::thread engine([this] {
    for (int i = 0; i < 20'000; ++i) {
      engine_.OnStep(1, 1, {.running = 1});
      engine_.OnInterTokenGaps(1000, 1);
    }
  });
  std::thread requests([this] {
    for (int i = 0; i < 5'000; ++i) exporter_.OnHttpRequest("/x", "GET", 200, 1000);
  });
  for (int i = 0; i < 50; ++i) exporter_.Render();
  engine.join();
  requests.join();
  const std::string text = exporter_.Render();
  EXPECT_EQ(Sample(text, R"(vllm:generation_tokens_total{model_name="house",engine="0"})"), 20'000);
  EXPECT_EQ(Sample(text, R"(http_requests_total{handler="/x",method="GET",status="200"})"), 5'000);
}

}  // namespace
}  // namespace reticle::server
