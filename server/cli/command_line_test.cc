#include "server/cli/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>

namespace reticle::server::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class CommandLineTest : public ::testing::Test {
 protected:
  CommandLineTest() {
    app_.add_option("--number", number_, "A number");
    app_.add_option("names", names_, "Names");
    CLI::App* const show = app_.add_subcommand("show", "Shows");
    show->add_flag("--all", all_, "Shows all");
  }

  CLI::App app_{"Tests", "reticle test"};
  int number_ = 0;
  bool all_ = false;
  std::vector<std::string> names_;
};

TEST_F(CommandLineTest, ArgumentsAreTakenInTheirOrder) {
  EXPECT_FALSE(ParseArguments(app_, {"one", "two", "--number", "7"}).has_value());
  EXPECT_EQ(number_, 7);
  EXPECT_THAT(names_, ::testing::ElementsAre("one", "two"));
}

TEST_F(CommandLineTest, HelpEndsWellAndIsThatOfTheSubcommand) {
  auto exit = ParseArguments(app_, {"--help"});
  ASSERT_TRUE(exit.has_value());
  EXPECT_EQ(exit->status, 0);
  EXPECT_THAT(exit->output, HasSubstr("--number"));
  exit = ParseArguments(app_, {"show", "--help"});
  ASSERT_TRUE(exit.has_value());
  EXPECT_EQ(exit->status, 0);
  EXPECT_THAT(exit->output, HasSubstr("--all"));
}

TEST_F(CommandLineTest, AMistakeNamesTheProgram) {
  for (const std::vector<std::string>& bad : {std::vector<std::string>{"--number", "x"},
                                              {"--nowhere"},
                                              {"show", "--number", "1", "--b"}}) {
    const auto exit = ParseArguments(app_, bad);
    ASSERT_TRUE(exit.has_value());
    EXPECT_EQ(exit->status, 2);
    EXPECT_THAT(exit->output, StartsWith("reticle test: "));
    EXPECT_THAT(exit->output, HasSubstr(bad.size() == 4 ? "--b" : bad[0]));
  }
  const CommandLineExit exit = Mistake(app_, absl::InvalidArgumentError("number is 7"));
  EXPECT_EQ(exit.status, 2);
  EXPECT_EQ(exit.output, "reticle test: number is 7\n");
}

}  // namespace
}  // namespace reticle::server::cli
