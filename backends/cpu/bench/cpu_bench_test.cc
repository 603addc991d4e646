#include "backends/cpu/bench/cpu_bench.h"

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "backends/cpu/bench/device_runner.h"
#include "backends/cpu/bench/memory_model.h"
#include "backends/cpu/bench/peak_kernels.h"
#include "backends/cpu/packed_file.h"
#include "backends/kernels/aligned_memory.h"
#include "backends/kernels/kernels.h"
#include "backends/kernels/targets.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/synthetic.h"

namespace reticle::backends::cpu::bench {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

MemoryModel SmallModel() {
  models::SyntheticLlamaOptions options;
  options.config = models::SmallWideLlamaConfig();
  options.matrix_type = models::TensorType::kQ4_0;
  return MemoryModel::Create(models::SyntheticLlama(options).value()).value();
}

CpuBenchOptions Quick(const MemoryModel& model) {
  CpuBenchOptions options;
  options.model = model.path();
  options.threads = {1, 2};
  options.repeats = 2;
  options.tokens = 50;
  options.memory_bytes = uint64_t{64} << 20;
  options.prefill = {24};
  options.contexts = {64};
  options.batch = {1, 3};
  return options;
}

// One kind of case, once, with one thread.
CpuBenchOptions Once(const MemoryModel& model, const std::string& kind) {
  CpuBenchOptions options = Quick(model);
  options.threads = {1};
  options.repeats = 1;
  options.only = {kind};
  return options;
}

TEST(CpuBenchTest, EveryCaseIsMeasuredWithEveryNumberOfThreads) {
  const MemoryModel model = SmallModel();
  const auto result = RunCpuBench(Quick(model));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->file_bytes, model.bytes());
  EXPECT_EQ(result->types, "Q4_0");
  ASSERT_EQ(result->threads.size(), 2u);
  for (const ThreadsResult& threads : result->threads) {
    EXPECT_GT(threads.open_seconds, 0);
    EXPECT_GT(threads.kv_bytes, 0u);
    EXPECT_GT(threads.limits.memory.bytes_per_second.median(), 0);
    for (const PeakLimit& peak : threads.limits.peaks) {
      EXPECT_GT(peak.ops_per_second.lowest(), 0) << peak.name;
    }
    std::vector<std::string> names;
    for (const CaseResult& one : threads.cases) {
      names.push_back(one.name);
      EXPECT_EQ(one.tokens_per_second.size(), 2u) << one.name;
      EXPECT_GT(one.tokens_per_second.lowest(), 0) << one.name;
      EXPECT_EQ(one.share_of_read.size(), 2u) << one.name;
      EXPECT_GT(one.share_of_read.lowest(), 0) << one.name;
      EXPECT_GT(one.share_of_peak.lowest(), 0) << one.name;
    }
    EXPECT_THAT(names,
                ::testing::ElementsAre("prefill 24", "decode", "decode at 64", "decode of 3"));
    // The work of the middle of the measurement: 25 of 50 tokens behind the beginning.
    const Work expected = DecodeWork(result->counts, 1, 64 + 25);
    EXPECT_EQ(threads.cases[2].work.bytes, expected.bytes);
    EXPECT_EQ(threads.cases[2].work.float_ops, expected.float_ops);
    EXPECT_EQ(threads.cases[3].work.bytes, DecodeWork(result->counts, 3, 25).bytes / 3);
  }
  const std::string table = FormatTable(*result);
  EXPECT_THAT(table, HasSubstr("decode of 3"));
  EXPECT_THAT(table, HasSubstr("a token at 64 takes"));
  EXPECT_THAT(FormatJson(*result), HasSubstr("\"name\":\"decode at 64\""));
}

TEST(CpuBenchTest, OnlySomeCasesAndOneThreadCount) {
  const MemoryModel model = SmallModel();
  const auto result = RunCpuBench(Once(model, "batch"));
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->threads[0].cases.size(), 2u);
  EXPECT_EQ(result->threads[0].cases[0].name, "decode of 1");
}

TEST(CpuBenchTest, WhatCannotBeMeasuredIsRefusedWithTheNumbers) {
  const MemoryModel model = SmallModel();
  CpuBenchOptions options = Quick(model);
  const auto refusal = [&] { return std::string(RunCpuBench(options).status().message()); };
  options.contexts = {1000};
  EXPECT_THAT(refusal(), HasSubstr("decode at 1000 takes 1051 positions; the model's context is"));
  options = Quick(model);
  options.batch = {0};
  EXPECT_THAT(refusal(), HasSubstr("batch is 0; it must be 1 to"));
  options = Quick(model);
  options.tokens = 1;
  EXPECT_THAT(refusal(), HasSubstr("tokens is 1; it must be 2 to"));
  options = Quick(model);
  options.only = {"speed"};
  EXPECT_THAT(refusal(), HasSubstr("only is \"speed\""));
  options = Quick(model);
  options.model = "/nowhere.gguf";
  EXPECT_THAT(refusal(), HasSubstr("/nowhere.gguf"));
}

TEST(CpuBenchTest, PackedWeightsAreStoredOnceUnlessTheFileIsOfNoUse) {
  const MemoryModel model = SmallModel();
  CpuBenchOptions options = Once(model, "decode");
  options.packed = testing::TempDir() + "cpu_bench_packed";
  std::filesystem::remove_all(options.packed);
  std::filesystem::create_directory(options.packed);
  std::ofstream(PackedPath(options.packed, options.model)) << "of another version";
  std::vector<std::string> stored;
  options.progress = [&](const std::string& text) {
    if (text.find("storing") != std::string::npos) stored.push_back(text);
  };
  for (int run = 0; run < 2; ++run) {
    const auto result = RunCpuBench(options);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(stored.size(), 1u) << "run " << run;
  }
  std::filesystem::remove_all(options.packed);
}

TEST(CpuBenchTest, MeasuresTheInstructionSetThatIsNamedBesideItsOwnPeaks) {
  const std::vector<kernels::Target> targets = kernels::SupportedTargets();
  const MemoryModel model = SmallModel();
  CpuBenchOptions options = Once(model, "decode");
  options.instructions = targets.back().name;
  const auto result = RunCpuBench(options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->kernels, targets.back().name);
  for (const PeakLimit& peak : result->threads.front().limits.peaks) {
    EXPECT_THAT(peak.name, Not(HasSubstr("vnni")));
  }
  EXPECT_EQ(kernels::KernelTarget(), targets.front().name);
  options.instructions = "avx3";
  const absl::Status refused = RunCpuBench(options).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(refused.message(), HasSubstr("instructions is \"avx3\""));
  EXPECT_THAT(refused.message(), HasSubstr(targets.front().name));
}

TEST(CpuBenchTest, PopulatedMemoryIsThisProcessesOwn) {
  constexpr uint64_t kBytes = uint64_t{32} << 20;
  const auto memory = kernels::AlignedMemory::Allocate(kBytes);
  ASSERT_TRUE(memory.ok()) << memory.status();
  const uint64_t before = ReadResidentMemory().anonymous;
  memory->Populate(0, kBytes);
  EXPECT_GE(ReadResidentMemory().anonymous, before + kBytes * 9 / 10);
}

TEST(CpuBenchTest, ReadingSeesEveryByteAndKernelsOfThisCpuRun) {
  alignas(64) static std::byte memory[4096] = {};
  const uint64_t zeros = ReadMemory(memory, sizeof(memory), false);
  for (size_t at = 0; at < sizeof(memory); at += 101) {
    memory[at] = std::byte{1};
    EXPECT_NE(ReadMemory(memory, sizeof(memory), false), zeros) << at;
    EXPECT_NE(ReadMemory(memory, sizeof(memory), true), zeros) << at;
    memory[at] = std::byte{0};
  }
  int ran = 0;
  for (const PeakKernel& kernel : PeakKernels()) {
    if (!kernel.available()) continue;
    kernel.run(10);
    ++ran;
  }
  EXPECT_GE(ran, 2);
}

}  // namespace
}  // namespace reticle::backends::cpu::bench
