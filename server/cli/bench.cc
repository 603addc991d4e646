#include "server/cli/bench.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <utility>

#include "backends/cpu/bench/memory_model.h"
#include "backends/cpu/open_plan.h"
#include "base/status.h"
#include "models/named_shapes.h"
#include "server/bench/serve_bench.h"
#include "server/cli/embedded_model.h"

namespace reticle::server::cli {
namespace {

using backends::cpu::bench::CpuBenchResult;
using backends::cpu::bench::MemoryModel;

constexpr char kUsage[] =
    "Usage: reticle bench <what> [options]\n\n"
    "  serve   what the server itself costs\n"
    "  cpu     how fast the CPU device runs a model, beside what the machine can do\n\n"
    "reticle bench <what> --help explains the options.\n";

std::string CpuHelp() {
  std::string shapes;
  for (const models::NamedShape& shape : models::NamedShapes()) {
    shapes += absl::StrFormat("  %-13s %s\n", shape.name, shape.help);
  }
  std::string types;
  for (const models::TensorType type : models::AllTensorTypes()) {
    types += (types.empty() ? "" : ", ") + std::string(models::TensorTypeName(type));
  }
  return "Without --model and --synthetic the house model is measured.\n\nSynthetic models: "
         "SHAPE:TYPE or SHAPE:TYPE+OUTPUT_TYPE\n" +
         shapes + "  types: " + types +
         "\n  The output matrix of a type below six bits is Q6_K unless it is named, as in files "
         "in "
         "circulation.\n\nWhat the columns mean: docs/cpu.md. Exit status: 0 measured, 1 not "
         "measured, 2 wrong usage.\n";
}

absl::Status WriteText(const std::string& path, const std::string& text) {
  if (path == "-") {
    std::fputs(text.c_str(), stdout);
    return absl::OkStatus();
  }
  std::ofstream file(path);
  file << text;
  file.close();
  if (!file) return UnavailableError("%s cannot be written", path);
  return absl::OkStatus();
}

// Makes the synthetic model in memory, or in a file when one is named.
absl::StatusOr<MemoryModel> MakeModel(CpuBenchCommand& command) {
  ASSIGN_OR_RETURN(const models::SyntheticLlamaOptions options,
                   models::ParseSyntheticModel(command.synthetic));
  ASSIGN_OR_RETURN(const models::GgufWriter writer, models::SyntheticLlama(options));
  command.bench.progress("making " + command.synthetic);
  if (!command.write.empty()) {
    command.bench.model = command.write;
    RETURN_IF_ERROR(writer.WriteFile(command.write));
    return MemoryModel();
  }
  ASSIGN_OR_RETURN(const uint64_t bytes, writer.FileBytes());
  const uint64_t available = backends::cpu::AvailableMemory();
  if (2 * bytes > available) {
    return ResourceExhaustedError(
        "%s takes %d bytes in memory and as many again for the device's weights; %d are available. "
        "With --write FILE the first lie in a file",
        command.synthetic, bytes, available);
  }
  ASSIGN_OR_RETURN(MemoryModel model, MemoryModel::Create(writer));
  command.bench.model = model.path();
  return model;
}

absl::Status Measure(CpuBenchCommand& command) {
  MemoryModel memory;
  if (!command.synthetic.empty()) {
    ASSIGN_OR_RETURN(memory, MakeModel(command));
  } else if (command.bench.model.empty()) {
    ASSIGN_OR_RETURN(command.bench.model, EmbeddedModelPath());
  }
  ASSIGN_OR_RETURN(const CpuBenchResult result, backends::cpu::bench::RunCpuBench(command.bench));
  command.bench.progress("");
  if (!command.quiet && command.json != "-") {
    std::fputs(backends::cpu::bench::FormatTable(result).c_str(), stdout);
  }
  if (command.json.empty()) return absl::OkStatus();
  return WriteText(command.json, backends::cpu::bench::FormatJson(result));
}

int RunCpu(const std::vector<std::string>& arguments) {
  CpuBenchCommand command;
  if (const auto exit = ParseCpuBenchArguments(arguments, command); exit.has_value()) {
    return Finish(*exit);
  }
  const bool terminal = isatty(STDERR_FILENO) == 1;
  command.bench.progress = [terminal](const std::string& line) {
    if (!terminal) return;
    std::fprintf(stderr, "\r\033[K%s", line.c_str());
    std::fflush(stderr);
  };
  const absl::Status status = Measure(command);
  if (status.ok()) return 0;
  command.bench.progress("");
  std::fprintf(stderr, "reticle bench cpu: %s\n", std::string(status.message()).c_str());
  return status.code() == absl::StatusCode::kInvalidArgument ? 2 : 1;
}

}  // namespace

std::optional<CommandLineExit> ParseCpuBenchArguments(const std::vector<std::string>& arguments,
                                                      CpuBenchCommand& command) {
  backends::cpu::bench::CpuBenchOptions& bench = command.bench;
  CLI::App app("Measures a model on the CPU device beside the machine's own limits",
               "reticle bench cpu");
  app.footer(CpuHelp());
  CLI::Option* const model = app.add_option("--model", bench.model, "GGUF file");
  CLI::Option* const synthetic =
      app.add_option("--synthetic", command.synthetic,
                     "Model with random weights, in memory, as in llama-3.2-1b:q4_0")
          ->excludes(model);
  app.add_option("--write", command.write,
                 "Write the synthetic model to this file and measure that, so that other programs "
                 "can be measured with it")
      ->needs(synthetic);
  app.add_option("--threads", bench.threads,
                 "Threads, as in 1,2; each is measured (default: as many as the process may use)")
      ->delimiter(',');
  app.add_option("--repeats", bench.repeats, "Runs of each measurement; medians are given")
      ->capture_default_str();
  std::string kv = "f16";
  app.add_option("--kv", kv, "Type of keys and values: f16 or q8_0")
      ->check(CLI::IsMember({"f16", "q8_0"}))
      ->capture_default_str();
  app.add_option("--tokens", bench.tokens, "Tokens that a sequence decodes in a measurement")
      ->capture_default_str();
  app.add_option("--prefill", bench.prefill, "Lengths of prompts")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--context", bench.contexts,
                 "Positions to decode at besides 0, as in 2048,8192,32768 (default: none)")
      ->delimiter(',');
  app.add_option("--batch", bench.batch, "Numbers of sequences that decode together")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--only", bench.only, "Of prefill, decode, context, batch (default: all)")
      ->delimiter(',');
  app.add_option("--instructions", bench.instructions,
                 "Instruction set of the kernels, as in avx2 or avx2+vnni (default: the best)");
  app.add_option("--packed", bench.packed,
                 "Folder for the repacked weights: the next run maps them instead of repacking");
  app.add_flag("--huge-pages,!--no-huge-pages", bench.huge_pages,
               "Let the system give huge pages where it does (default)");
  app.add_option(
      "--against", bench.against,
      "A llama-bench of llama.cpp: measured in turns with this program, on the same file "
      "with the same threads and KV type; llama-batched-bench is looked for beside it");
  CLI::Option* const against = app.get_option("--against");
  app.add_option("--against-options", bench.against_options, "More arguments for llama-bench")
      ->needs(against);
  app.add_option("--against-batched-options", bench.against_batched_options,
                 "More arguments for llama-batched-bench")
      ->needs(against);
  app.add_option("--json", command.json, "Write the result as JSON to this file; -: print it");
  app.add_flag("--quiet", command.quiet, "Do not print the table");
  if (auto exit = ParseArguments(app, arguments); exit.has_value()) return exit;
  bench.kv_type = kv == "q8_0" ? RETICLE_KV_TYPE_Q8_0 : RETICLE_KV_TYPE_F16;
  if (!command.synthetic.empty()) {
    const auto known = models::ParseSyntheticModel(command.synthetic);
    if (!known.ok()) return Mistake(app, known.status());
  }
  backends::cpu::bench::CpuBenchOptions checked = bench;
  // Which model is settled later.
  checked.model = "model";
  if (const absl::Status status = checked.Validate(); !status.ok()) return Mistake(app, status);
  return std::nullopt;
}

int RunBench(const std::vector<std::string>& arguments) {
  const std::string what = arguments.empty() ? "" : arguments.front();
  if (what == "cpu") return RunCpu({arguments.begin() + 1, arguments.end()});
  if (what == "serve") return bench::RunBench(arguments);
  if (what == "--help" || what == "-h" || what == "help") {
    std::fputs(kUsage, stdout);
    return 0;
  }
  if (!what.empty()) std::fprintf(stderr, "reticle bench: there is no \"%s\"\n\n", what.c_str());
  std::fputs(kUsage, stderr);
  return 2;
}

}  // namespace reticle::server::cli
