#include "server/metrics/metrics_exporter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <thread>

namespace reticle::server {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

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
  added.device = "hc1";
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
  const std::string by_device = "reticle_device_added_latency_seconds";
  EXPECT_EQ(Sample(text, by_device + "_count{device=\"hc1\"}"), 6);
  EXPECT_DOUBLE_EQ(Sample(text, by_device + "_sum{device=\"hc1\"}"), 28e-6);
  EXPECT_EQ(Sample(text, by_device + "_bucket{device=\"hc1\",le=\"4.096e-06\"}"), 2);
  EXPECT_EQ(Sample(text, by_device + "_bucket{device=\"hc1\",le=\"1.6384e-05\"}"), 6);
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
  EXPECT_EQ(sample("reticle_device_requests_running"), 2);
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
  EXPECT_EQ(Sample(text, R"(vllm:prompt_tokens_total{model_name="house",engine="0"})"), 150);
  EXPECT_EQ(Sample(text, R"(vllm:prompt_tokens_cached_total{model_name="house",engine="0"})"), 64);
  const std::string source =
      R"(vllm:prompt_tokens_by_source_total{model_name="house",engine="0",source=)";
  EXPECT_EQ(Sample(text, source + R"("local_compute"})"), 86);
  EXPECT_EQ(Sample(text, source + R"("local_cache_hit"})"), 64);
}

TEST_F(MetricsExporterTest, OutcomesOfChoicesAndRequests) {
  exporter_.OnChoiceFinished("house", Outcome::kStop);
  exporter_.OnChoiceFinished("house", Outcome::kStop);
  exporter_.OnChoiceFinished("house", Outcome::kAbort);
  RequestRecord record;
  record.model = "house";
  record.n = 2;
  record.output_tokens = 7;
  record.longest_choice = 5;
  record.e2e_ns = 1'500'000;
  exporter_.OnRequestAdmitted("house");
  exporter_.OnRequestFinished(record);
  exporter_.OnTelemetryLost("spans", 3);
  const std::string text = exporter_.Render();
  const std::string labels = R"({model_name="house",engine="0")";
  EXPECT_EQ(Sample(text, "reticle_requests_admitted_total" + labels + "}"), 1);
  EXPECT_EQ(Sample(text, R"(reticle_telemetry_dropped_total{kind="spans"})"), 3);
  EXPECT_EQ(Sample(text, R"(reticle_telemetry_dropped_total{kind="log_lines"})"), 0);
  EXPECT_EQ(Sample(text, "vllm:request_success_total" + labels + R"(,finished_reason="stop"})"), 2);
  EXPECT_EQ(Sample(text, "vllm:request_success_total" + labels + R"(,finished_reason="abort"})"),
            1);
  EXPECT_EQ(Sample(text, "vllm:request_success_total" + labels + R"(,finished_reason="length"})"),
            0);
  EXPECT_EQ(Sample(text, "vllm:e2e_request_latency_seconds_bucket" + labels + R"(,le="0.002"})"),
            1);
  EXPECT_EQ(Sample(text, "vllm:request_generation_tokens_sum" + labels + "}"), 7);
  EXPECT_EQ(Sample(text, "vllm:request_max_num_generation_tokens_sum" + labels + "}"), 5);
}

TEST_F(MetricsExporterTest, TiersByOutcomeAndReason) {
  RequestRecord record;
  record.model = "house";
  record.tier = "free";
  record.outcome = Outcome::kLength;
  record.prompt_tokens = 10;
  record.cached_tokens = 4;
  record.output_tokens = 101;
  record.longest_choice = 101;
  record.time_to_first_token_ns = 1'000'000;
  record.e2e_ns = 11'000'000;  // 100 tokens in 10 ms
  exporter_.OnRequestFinished(record);
  exporter_.OnQuotaRefused("free", "requests_per_minute");
  exporter_.OnRequestRefused("free", absl::StatusCode::kResourceExhausted);
  exporter_.OnRequestRefused("none", absl::StatusCode::kInvalidArgument);
  const std::string text = exporter_.Render();
  const std::string ended = R"({tier="free",outcome="length")";
  EXPECT_EQ(Sample(text, "reticle_tier_requests_total" + ended + "}"), 1);
  EXPECT_EQ(Sample(text, "reticle_tier_tokens_total" + ended + R"(,kind="prompt"})"), 6);
  EXPECT_EQ(Sample(text, "reticle_tier_tokens_total" + ended + R"(,kind="cached"})"), 4);
  EXPECT_EQ(Sample(text, "reticle_tier_tokens_total" + ended + R"(,kind="output"})"), 101);
  const auto refused = [&](const std::string& tier, const std::string& reason) {
    return Sample(text,
                  "reticle_tier_rejections_total{tier=\"" + tier + "\",reason=\"" + reason + "\"}");
  };
  EXPECT_EQ(refused("free", "requests_per_minute"), 1);
  EXPECT_EQ(refused("free", "queue_full"), 1);
  EXPECT_EQ(refused("none", "invalid"), 1);
  const std::string first = "reticle_tier_time_to_first_token_seconds";
  EXPECT_EQ(Sample(text, first + R"(_bucket{tier="free",le="0.00075"})"), 0);
  EXPECT_EQ(Sample(text, first + R"(_bucket{tier="free",le="0.001"})"), 1);
  EXPECT_DOUBLE_EQ(Sample(text, R"(reticle_tier_tokens_per_second_sum{tier="free"})"), 10'000);
}

TEST_F(MetricsExporterTest, BucketsAreTheOperatorsToChoose) {
  const auto buckets = Buckets::Create({"vllm:time_to_first_token_seconds=0.5,1"});
  ASSERT_TRUE(buckets.ok());
  MetricsExporter exporter("1.2.3", *buckets);
  EngineMetrics& engine = exporter.AddEngine();
  exporter.Publish(engine, {"house", "0", 16, "cpu", "0"}, nullptr, nullptr);
  engine.OnFirstToken(600'000'000);
  const std::string text = exporter.Render();
  const std::string name =
      R"(vllm:time_to_first_token_seconds_bucket{model_name="house",engine="0",le=)";
  EXPECT_EQ(Sample(text, name + R"("0.5"})"), 0);
  EXPECT_EQ(Sample(text, name + R"("1"})"), 1);
  EXPECT_TRUE(std::isnan(Sample(text, name + R"("0.2"})")));
}

TEST_F(MetricsExporterTest, LabelsStayFewWhateverClientsSend) {
  for (int i = 0; i < 100; ++i) {
    exporter_.OnHttpRequest("unmatched", "VERB" + std::to_string(i), 405, 1000);
  }
  const std::string text = exporter_.Render();
  EXPECT_EQ(Sample(text, R"(http_requests_total{handler="unmatched",method="other",status="4xx"})"),
            100);
  EXPECT_THAT(text, Not(HasSubstr("VERB")));
}

TEST_F(MetricsExporterTest, TheCertificateIsThereOnlyWithTls) {
  const std::string name = "reticle_tls_certificate_expiry_timestamp_seconds";
  EXPECT_THAT(exporter_.Render(), Not(HasSubstr(name)));
  exporter_.SetCertificateExpiry(2'000'000'000);
  EXPECT_EQ(Sample(exporter_.Render(), name), 2e9);
}

// What an exposition says: for each family its HELP, its TYPE and the label names of its series.
struct Family {
  std::string help, type;
  std::set<std::string> labels;
};

std::map<std::string, Family> Read(const std::string& text) {
  std::map<std::string, Family> families;
  std::istringstream lines(text);
  std::string current;
  for (std::string line; std::getline(lines, line);) {
    if (line[0] == '#') {
      const size_t space = line.find(' ', 7);
      current = line.substr(7, space - 7);
      (line.starts_with("# HELP ") ? families[current].help : families[current].type) =
          line.substr(space + 1);
      continue;
    }
    std::string names;
    const size_t open = line.find('{');
    for (size_t at = open; at != std::string::npos;) {
      const size_t equals = line.find('=', at);
      const std::string name = line.substr(at + 1, equals - at - 1);
      const size_t quote = line.find('"', equals + 2);
      at = line[quote + 1] == ',' ? quote + 1 : std::string::npos;
      if (name == "le") continue;
      if (!names.empty()) names += ',';
      names += name;
    }
    families[current].labels.insert(names);
  }
  return families;
}

TEST_F(MetricsExporterTest, EverySeriesIsAsTheCatalogueSays) {
  exporter_.SetCertificateExpiry(2'000'000'000);
  DeviceSnapshot device;
  device.stats.emplace();
  exporter_.Publish(engine_, {"house", "0", 16, "cpu", "0"}, nullptr, [&device] { return device; });
  exporter_.OnHttpRequest("/x", "GET", 200, 1);
  exporter_.OnGrpcRequest("Generate", 0, 1);
  exporter_.OnConnectionsChanged("http", 1);
  RequestRecord record;
  record.model = "house";
  record.tier = "none";
  record.time_to_first_token_ns = 1;
  exporter_.OnRequestFinished(record);
  exporter_.OnRequestRefused("none", absl::StatusCode::kUnavailable);
  AddedLatency added;
  added.device = "cpu";
  exporter_.OnTokensHandedOver(added);
  const std::map<std::string, Family> families = Read(exporter_.Render());
  EXPECT_EQ(families.size(), MetricCatalogue().size());
  for (const MetricInfo& info : MetricCatalogue()) {
    const auto found = families.find(info.name);
    ASSERT_NE(found, families.end()) << info.name << " is never shown";
    EXPECT_EQ(found->second.help, info.help);
    EXPECT_EQ(found->second.type, MetricKindName(info.kind)) << info.name;
    EXPECT_THAT(found->second.labels, testing::ElementsAre(info.labels)) << info.name;
    if (info.kind == MetricKind::kCounter) {
      EXPECT_TRUE(std::string(info.name).ends_with("_total")) << info.name;
    }
    EXPECT_THAT(CatalogueMarkdown(), HasSubstr("| `" + std::string(info.name) + "` | "));
  }
}

TEST_F(MetricsExporterTest, HttpRequestsByHandlerMethodAndStatus) {
  exporter_.OnHttpRequest("/v1/completions", "POST", 200, 2'000'000);
  exporter_.OnHttpRequest("/v1/completions", "POST", 400, 1'000'000);
  exporter_.OnHttpRequest("/v1/completions", "POST", 404, 1'000'000);
  exporter_.OnHttpRequest("/v1/completions", "POST", 404, 1'000'000);
  const std::string text = exporter_.Render();
  EXPECT_EQ(
      Sample(text, R"(http_requests_total{handler="/v1/completions",method="POST",status="4xx"})"),
      3);
  EXPECT_EQ(
      Sample(text,
             R"(reticle_http_responses_total{handler="/v1/completions",method="POST",code="404"})"),
      2);
  EXPECT_EQ(
      Sample(text,
             R"(http_request_duration_seconds_count{handler="/v1/completions",method="POST"})"),
      4);
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
  EXPECT_EQ(Sample(text, R"(http_requests_total{handler="/x",method="GET",status="2xx"})"), 5'000);
}

}  // namespace
}  // namespace reticle::server
