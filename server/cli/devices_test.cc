#include "server/cli/devices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace reticle::server::cli {
namespace {

using backends::hardwired::LoadProfile;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(DevicesTest, TheTableKeepsOneStreamAndAllApart) {
  const std::string table = DevicesTable({*LoadProfile("taalas-hc1"), *LoadProfile("nvidia-h100")});
  EXPECT_THAT(table, ContainsRegex("taalas-hc1 +16,960 V +\\(16,960\\) U +\\(1\\) U +6,144 I"));
  EXPECT_THAT(table, ContainsRegex("nvidia-h100 +150 S +22,714 V"));
}

TEST(DevicesTest, EachNumberHasItsLetterAndSource) {
  const std::string text = DeviceText(*LoadProfile("taalas-hc1"));
  EXPECT_THAT(text, ContainsRegex("decode_rate +V +16,960 tok/s +per user"));
  EXPECT_THAT(text, ContainsRegex("pipeline_depth +U +\\(1\\) streams +assumed: disputed"));
  EXPECT_THAT(text, ContainsRegex("device +U +unknown USD"));
  EXPECT_THAT(text, ContainsRegex("cooling +V +air"));
}

TEST(DevicesTest, JsonTellsUnknownFromAssumed) {
  const std::string json = DeviceJson(*LoadProfile("taalas-hc1"));
  EXPECT_THAT(json, HasSubstr("\"timing.decode_rate\": {\"value\": 16960, \"unit\": \"tok/s\", "
                              "\"from\": \"V\""));
  EXPECT_THAT(json, HasSubstr("\"timing.pipeline_depth\": {\"value\": null, \"unit\": \"streams\", "
                              "\"from\": \"U\", \"assumed\": 1"));
  EXPECT_THAT(json, HasSubstr("\"price.device\": {\"value\": null, \"unit\": \"USD\", \"from\": "
                              "\"U\"}"));
  EXPECT_THAT(json, Not(HasSubstr("nan")));
}

}  // namespace
}  // namespace reticle::server::cli
