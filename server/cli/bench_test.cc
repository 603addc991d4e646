#include "server/cli/bench.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/named_shapes.h"

namespace reticle::server::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// What is printed; empty when the arguments are fine.
std::string Parse(const std::vector<std::string>& arguments, CpuBenchCommand* command,
                  int status = 2) {
  *command = CpuBenchCommand();
  const auto exit = ParseCpuBenchArguments(arguments, *command);
  if (!exit.has_value()) return "";
  EXPECT_EQ(exit->status, status);
  return exit->output;
}

TEST(BenchCommandTest, ArgumentsAreRead) {
  CpuBenchCommand command;
  ASSERT_EQ(Parse({"--synthetic", "llama-3.2-1b:q4_0", "--threads", "1,2", "--repeats", "5",
                   "--context", "2048,8192", "--batch", "8", "--kv", "q8_0", "--only",
                   "decode,batch", "--json", "-", "--against", "/x/llama-bench"},
                  &command),
            "");
  EXPECT_EQ(command.synthetic, "llama-3.2-1b:q4_0");
  EXPECT_THAT(command.bench.threads, ElementsAre(1, 2));
  EXPECT_EQ(command.bench.repeats, 5);
  EXPECT_THAT(command.bench.contexts, ElementsAre(2048, 8192));
  EXPECT_THAT(command.bench.batch, ElementsAre(8));
  EXPECT_EQ(command.bench.kv_type, static_cast<uint32_t>(RETICLE_KV_TYPE_Q8_0));
  EXPECT_THAT(command.bench.only, ElementsAre("decode", "batch"));
  EXPECT_EQ(command.json, "-");
  EXPECT_EQ(command.bench.against, "/x/llama-bench");
  ASSERT_EQ(Parse({}, &command), "");
  EXPECT_THAT(command.bench.batch, ElementsAre(1, 2, 4, 8, 16, 32));
}

TEST(BenchCommandTest, MistakesAreNamed) {
  CpuBenchCommand command;
  EXPECT_THAT(Parse({"--synthetic", "llama-9b:q4_0"}, &command), HasSubstr("llama-3.1-8b"));
  EXPECT_THAT(Parse({"--synthetic", "tiny:q4_9"}, &command), HasSubstr("q4_9"));
  EXPECT_THAT(Parse({"--threads", "0"}, &command), HasSubstr("threads is 0"));
  EXPECT_THAT(Parse({"--threads", "two"}, &command), HasSubstr("--threads"));
  EXPECT_THAT(Parse({"--kv", "f64"}, &command), HasSubstr("--kv"));
  EXPECT_THAT(Parse({"--only", "speed"}, &command), HasSubstr("speed"));
  EXPECT_THAT(Parse({"--write", "x.gguf"}, &command), HasSubstr("--synthetic"));
  EXPECT_THAT(Parse({"--model", "x", "--synthetic", "tiny:q4_0"}, &command), HasSubstr("excludes"));
  EXPECT_THAT(Parse({"--quick"}, &command), HasSubstr("--quick"));
}

TEST(BenchCommandTest, TheHelpListsShapesAndTypes) {
  CpuBenchCommand command;
  const std::string help = Parse({"--help"}, &command, 0);
  for (const models::NamedShape& shape : models::NamedShapes()) {
    EXPECT_THAT(help, HasSubstr(std::string(shape.name)));
  }
  EXPECT_THAT(help, HasSubstr("Q5_K"));
  EXPECT_THAT(help, HasSubstr("--against"));
}

}  // namespace
}  // namespace reticle::server::cli
