#include "backends/cpu/bench/peer.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace reticle::backends::cpu::bench {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Optional;

CaseResult Case(CaseKind kind, uint32_t tokens, uint32_t context = 0, uint32_t sequences = 1) {
  CaseResult result;
  result.kind = kind;
  result.tokens = tokens;
  result.context = context;
  result.sequences = sequences;
  return result;
}

const std::vector<CaseResult> kCases = {
    Case(CaseKind::kPrefill, 128), Case(CaseKind::kDecode, 32), Case(CaseKind::kDecode, 32, 2048),
    Case(CaseKind::kBatch, 32, 0, 8), Case(CaseKind::kBatch, 32, 0, 16)};

TEST(PeerTest, EntriesOfLlamaBenchGoToTheirCases) {
  PeerRates rates(kCases.size());
  const absl::Status status = ReadLlamaBench(
      R"([{"n_prompt": 128, "n_gen": 0, "n_depth": 0, "avg_ts": 60.5},
          {"n_prompt": 0, "n_gen": 32, "n_depth": 2048, "avg_ts": 11.0},
          {"n_prompt": 0, "n_gen": 64, "n_depth": 0, "avg_ts": 99.0},
          {"n_prompt": 0, "n_gen": 32, "avg_ts": 12.25}])",
      kCases, &rates);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_THAT(rates, ElementsAre(Optional(60.5), Optional(12.25), Optional(11.0), std::nullopt,
                                 std::nullopt));
}

TEST(PeerTest, LinesOfLlamaBatchedBenchGoToTheirCases) {
  PeerRates rates(kCases.size());
  const absl::Status status = ReadLlamaBatchedBench(
      "main: some line\n"
      "{\"pp\": 1, \"tg\": 32, \"pl\": 8, \"speed_tg\": 30.5}\n\n"
      "{\"pp\": 1, \"tg\": 32, \"pl\": 32, \"speed_tg\": 36.5}",
      kCases, &rates);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_THAT(rates,
              ElementsAre(std::nullopt, std::nullopt, std::nullopt, Optional(30.5), std::nullopt));
}

TEST(PeerTest, TablesOfLlamaBatchedBenchAreReadByTheirHead) {
  PeerRates rates(kCases.size());
  const absl::Status status = ReadLlamaBatchedBench(
      "main: n_kv_max = 512\n"
      "|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |\n"
      "|-------|--------|------|--------|----------|----------|----------|----------|\n"
      "|     1 |     32 |    8 |    264 |    0.100 |    80.00 |    9.000 |    28.44 |\n"
      "|     1 |     32 |   16 |    528 |    0.100 |   160.00 |   14.000 |    36.57 |\n",
      kCases, &rates);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_THAT(rates, ElementsAre(std::nullopt, std::nullopt, std::nullopt, Optional(28.44),
                                 Optional(36.57)));
}

TEST(PeerTest, OtherOutputIsAnError) {
  PeerRates rates(kCases.size());
  EXPECT_FALSE(ReadLlamaBench("error: unknown argument", kCases, &rates).ok());
  EXPECT_FALSE(ReadLlamaBench(R"([{"n_prompt": 1}])", kCases, &rates).ok());
  EXPECT_FALSE(ReadLlamaBatchedBench("{\"pl\": 8}", kCases, &rates).ok());
  EXPECT_FALSE(ReadLlamaBatchedBench("| 8 | 9 |\n|\n||\nno result", kCases, &rates).ok());
}

class PeerProgramTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        std::filesystem::temp_directory_path() / ("reticle-peer-test-" + std::to_string(getpid()));
    std::filesystem::create_directory(folder_);
    options_.model = "some model.gguf";
    options_.against = (folder_ / "llama-bench").string();
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void Write(const std::string& name, const std::string& script) {
    const std::string path = (folder_ / name).string();
    std::ofstream(path) << "#!/bin/sh\n" << script;
    chmod(path.c_str(), 0700);
  }

  std::filesystem::path folder_;
  CpuBenchOptions options_;
};

TEST_F(PeerProgramTest, ProgramsAreRunWithTheSameFileThreadsAndKvType) {
  Write("llama-bench", R"(echo "$@" >> ")" + (folder_ / "seen").string() + R"("
case "$*" in
*"-d 2048"*) [ -e "$0.old" ] && exit 1; echo '[{"n_prompt": 0, "n_gen": 32, "n_depth": 2048, "avg_ts": 1.5}]' ;;
*) echo '[{"n_prompt": 128, "n_gen": 0, "avg_ts": 2.5}, {"n_prompt": 0, "n_gen": 32, "avg_ts": 3.5}]' ;;
esac
)");
  Write("llama-batched-bench",
        R"(echo '{"pl": 8, "speed_tg": 4.5}'; echo '{"pl": 16, "speed_tg": 5.5}'
)");
  options_.kv_type = RETICLE_KV_TYPE_Q8_0;
  options_.against_options = "-rtr  1";
  const auto rates = RunPeer(options_, 2, kCases);
  ASSERT_TRUE(rates.ok()) << rates.status();
  EXPECT_THAT(*rates, ElementsAre(Optional(2.5), Optional(3.5), Optional(1.5), Optional(4.5),
                                  Optional(5.5)));
  std::ifstream seen(folder_ / "seen");
  std::string line;
  std::getline(seen, line);
  EXPECT_THAT(line, HasSubstr("-m some model.gguf -t 2"));
  EXPECT_THAT(line, HasSubstr("-ctk q8_0 -ctv q8_0"));
  EXPECT_THAT(line, HasSubstr("-rtr 1"));
  EXPECT_THAT(line, HasSubstr("-p 128 -n 32"));
  // A version without -d leaves decoding at a position open.
  Write("llama-bench.old", "");
  EXPECT_THAT(*RunPeer(options_, 2, kCases), ElementsAre(Optional(2.5), Optional(3.5), std::nullopt,
                                                         Optional(4.5), Optional(5.5)));
}

TEST_F(PeerProgramTest, AProgramThatFailsOrIsNotThereIsNamed) {
  EXPECT_EQ(RunPeer(options_, 1, kCases).status().code(), absl::StatusCode::kNotFound);
  Write("llama-bench", "exit 3\n");
  const absl::Status failed = RunPeer(options_, 1, kCases).status();
  EXPECT_EQ(failed.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(failed.message()), HasSubstr(options_.against + " -m some model.gguf"));
}

}  // namespace
}  // namespace reticle::backends::cpu::bench
