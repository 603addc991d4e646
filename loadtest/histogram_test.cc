#include "loadtest/histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "loadtest/distribution.h"

namespace reticle::loadtest {
namespace {

TEST(HistogramTest, IsEmptyAtFirst) {
  const Histogram histogram;
  EXPECT_EQ(histogram.count(), 0u);
  EXPECT_EQ(histogram.Percentile(99), 0);
  EXPECT_EQ(histogram.min(), 0);
  EXPECT_EQ(histogram.max(), 0);
  EXPECT_EQ(histogram.mean(), 0);
  EXPECT_TRUE(histogram.Buckets().empty());
}

TEST(HistogramTest, SmallValuesAreExact) {
  Histogram histogram;
  for (int64_t v = 1; v <= 2000; ++v) histogram.Record(v);
  EXPECT_EQ(histogram.Percentile(50), 1000);
  EXPECT_EQ(histogram.Percentile(99), 1980);
  EXPECT_EQ(histogram.Percentile(99.95), 1999);
  EXPECT_EQ(histogram.Percentile(100), 2000);
  EXPECT_EQ(histogram.min(), 1);
  EXPECT_DOUBLE_EQ(histogram.mean(), 1000.5);
}

TEST(HistogramTest, EveryPercentileIsWithinItsPrecisionOfTheSortedValues) {
  Random random(7);
  Histogram histogram;
  std::vector<int64_t> values;
  for (int i = 0; i < 50'000; ++i) {
    const int64_t value = static_cast<int64_t>(std::exp(random.Uniform() * 30));
    values.push_back(value);
    histogram.Record(value);
  }
  std::sort(values.begin(), values.end());
  for (const double percent : {0.01, 1.0, 25.0, 50.0, 90.0, 99.0, 99.9, 99.99}) {
    const size_t rank = static_cast<size_t>(std::ceil(percent / 100 * 50'000 - 1e-9));
    const double exact = static_cast<double>(values[rank - 1]);
    const double got = static_cast<double>(histogram.Percentile(percent));
    EXPECT_GE(got, exact) << percent;
    EXPECT_LE(got, exact * (1 + 1.0 / 1024) + 1) << percent;
  }
}

TEST(HistogramTest, BucketsAreContiguousAndOrdered) {
  int64_t previous = -1;
  for (int64_t v = 0; v < 4096; ++v) {
    Histogram one(3, 12);
    one.Record(v);
    one.Record(4095);
    const int64_t upper = one.Percentile(1);
    EXPECT_GE(upper, v);
    EXPECT_GE(upper, previous);
    previous = upper;
  }
}

TEST(HistogramTest, ClampsAtBothEnds) {
  Histogram histogram(5, 10);
  histogram.Record(-5);
  histogram.Record(1'000'000);
  EXPECT_EQ(histogram.min(), 0);
  EXPECT_EQ(histogram.max(), 1023);
}

TEST(HistogramTest, CountsAndMergesLikeOneByOne) {
  Histogram a;
  a.Record(10, 3);
  a.Record(1'000'000, 1);
  Histogram b;
  b.Record(20, 6);
  b.Merge(a);
  EXPECT_EQ(b.count(), 10u);
  EXPECT_EQ(b.Percentile(30), 10);
  EXPECT_EQ(b.Percentile(31), 20);
  EXPECT_EQ(b.max(), 1'000'000);
  EXPECT_EQ(b.min(), 10);
  EXPECT_DOUBLE_EQ(b.sum(), 30 + 1'000'000 + 120);
  EXPECT_DOUBLE_EQ(b.ShareAtMost(20), 0.9);
  EXPECT_DOUBLE_EQ(b.ShareAtMost(9), 0);
  EXPECT_DOUBLE_EQ(b.ShareAtMost(2'000'000), 1);
}

}  // namespace
}  // namespace reticle::loadtest
