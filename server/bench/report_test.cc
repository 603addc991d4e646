#include "server/bench/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

namespace reticle::server::bench {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Report, TakesTheMedian) {
  Report report;
  report.Add("a", "tok/s", true, {3, 100, 1}, 2);
  EXPECT_EQ(report.figures()[0].value, 3);
  EXPECT_EQ(report.figures()[0].lowest, 1);
  EXPECT_EQ(report.figures()[0].highest, 100);
  EXPECT_THAT(report.Table({}), HasSubstr("2 ok"));
}

TEST(Report, SaysWhatIsNotReached) {
  Report report;
  report.Add("rate", "", true, {1}, 2);
  report.Add("latency", "", false, {3}, 2);
  EXPECT_THAT(report.Table({}), Not(HasSubstr("ok")));
}

TEST(Report, ComparesWithWhatWasWritten) {
  Report report;
  report.Add("rate", "tok/s", true, {150}, 2);
  const std::string path = testing::TempDir() + "/serve-1.json";
  std::ofstream(path) << report.Json("now");
  const std::vector<Figure> read = ReadReport(path);
  ASSERT_EQ(read.size(), 1u);
  EXPECT_EQ(read[0].name, "rate");
  EXPECT_EQ(read[0].value, 150);
  Report next;
  next.Add("rate", "tok/s", true, {165});
  EXPECT_THAT(next.Table(read), HasSubstr("+10.0 %"));
  EXPECT_TRUE(ReadReport("/nowhere").empty());
}

}  // namespace
}  // namespace reticle::server::bench
