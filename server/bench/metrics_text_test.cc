#include "server/bench/metrics_text.h"

#include <gtest/gtest.h>

namespace reticle::server::bench {
namespace {

constexpr char kBefore[] =
    "# HELP h\n# TYPE h histogram\nh_count 2\nh_sum 3\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"2\"} 2\n"
    "h_bucket{le=\"+Inf\"} 2\nc{a=\"x\"} 4\n";
constexpr char kAfter[] =
    "# HELP h\n# TYPE h histogram\nh_count 12\nh_sum 18\nh_bucket{le=\"1\"} 6\nh_bucket{le=\"2\"} "
    "12\nh_bucket{le=\"+Inf\"} 12\nc{a=\"x\"} 5.5\n";

TEST(MetricsText, FindsSeriesByTheirWholeName) {
  EXPECT_EQ(MetricValue(kBefore, "h_count"), 2);
  EXPECT_EQ(MetricValue(kAfter, "c{a=\"x\"}"), 5.5);
  EXPECT_EQ(MetricValue(kAfter, "count"), 0);
}

TEST(MetricsText, QuantilesOfWhatCameBetween) {
  const HistogramDelta delta("h", kBefore, kAfter);
  EXPECT_EQ(delta.count(), 10);
  EXPECT_EQ(delta.sum(), 15);
  EXPECT_DOUBLE_EQ(delta.Quantile(0.25), 0.5);
  EXPECT_DOUBLE_EQ(delta.Quantile(0.5), 1);
  EXPECT_DOUBLE_EQ(delta.Quantile(0.9), 1.8);
}

TEST(MetricsText, NothingCame) {
  const HistogramDelta delta("h", kBefore, kBefore);
  EXPECT_EQ(delta.count(), 0);
}

}  // namespace
}  // namespace reticle::server::bench
