#include "backends/cpu/bench/peer.h"

#include <fcntl.h>
#include <simdjson.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <sstream>

#include "base/status.h"

extern char** environ;

namespace reticle::backends::cpu::bench {
namespace {

constexpr char kBatchedBench[] = "llama-batched-bench";
constexpr uint32_t kStepTokens = 512;  // as this device's default
constexpr uint32_t kSpareCells = 64;

// What the program writes to standard output, and to standard error if `errors_too`. INTERNAL
// unless it ends with status 0.
absl::StatusOr<std::string> Run(const std::vector<std::string>& arguments, bool errors_too) {
  std::string line;
  std::vector<char*> argv;
  for (const std::string& argument : arguments) {
    line += (line.empty() ? "" : " ") + argument;
    argv.push_back(const_cast<char*>(argument.c_str()));
  }
  argv.push_back(nullptr);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return InternalError("pipe: %s", std::strerror(errno));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  if (errors_too) {
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
  } else {
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  }
  pid_t child = 0;
  const int error = posix_spawn(&child, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  std::string output;
  if (error == 0) {
    std::array<char, 65536> buffer;
    for (;;) {
      const ssize_t count = read(ends[0], buffer.data(), buffer.size());
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) break;
      output.append(buffer.data(), static_cast<size_t>(count));
    }
  }
  close(ends[0]);
  if (error != 0) return NotFoundError("%s cannot be run: %s", argv[0], std::strerror(error));
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    return InternalError("the other program failed; to see why, run: %s", line);
  }
  return output;
}

std::string List(const std::vector<uint32_t>& numbers) {
  std::string text;
  for (const uint32_t number : numbers) {
    text += (text.empty() ? "" : ",") + std::to_string(number);
  }
  return text;
}

std::vector<std::string> Common(const CpuBenchOptions& options, const std::string& program,
                                uint32_t threads, const std::string& more) {
  const std::string kv = options.kv_type == RETICLE_KV_TYPE_Q8_0 ? "q8_0" : "f16";
  std::vector<std::string> arguments = {program,
                                        "-m",
                                        options.model,
                                        "-t",
                                        std::to_string(threads),
                                        "-ub",
                                        std::to_string(kStepTokens),
                                        "-ctk",
                                        kv,
                                        "-ctv",
                                        kv};
  // A quantised cache needs its fused attention.
  if (kv == "q8_0") arguments.insert(arguments.end(), {"-fa", "1"});
  std::istringstream words(more);
  for (std::string word; words >> word;) arguments.push_back(word);
  return arguments;
}

// The cells of a line of a table, without blanks around them.
std::vector<std::string_view> Cells(std::string_view line) {
  std::vector<std::string_view> cells;
  line.remove_prefix(1);
  for (size_t bar = line.find('|'); bar != line.npos; bar = line.find('|')) {
    std::string_view cell = line.substr(0, bar);
    line.remove_prefix(bar + 1);
    cell.remove_prefix(std::min(cell.find_first_not_of(' '), cell.size()));
    cells.push_back(cell.substr(0, cell.find_last_not_of(' ') + 1));
  }
  return cells;
}

template <typename T>
bool ParseNumber(std::string_view text, T* number) {
  const auto [at, error] = std::from_chars(text.data(), text.data() + text.size(), *number);
  return error == std::errc() && at == text.data() + text.size();
}

}  // namespace

absl::Status ReadLlamaBench(std::string_view output, const std::vector<CaseResult>& cases,
                            PeerRates* rates) {
  simdjson::dom::parser parser;
  simdjson::dom::array entries;
  const simdjson::padded_string padded(output);
  if (parser.parse(padded).get_array().get(entries) != simdjson::SUCCESS) {
    return InternalError("llama-bench printed something other than a JSON array");
  }
  for (const simdjson::dom::element entry : entries) {
    uint64_t prompt = 0, generated = 0, depth = 0;
    double rate = 0;
    if (entry["n_prompt"].get_uint64().get(prompt) != simdjson::SUCCESS ||
        entry["n_gen"].get_uint64().get(generated) != simdjson::SUCCESS ||
        entry["avg_ts"].get_double().get(rate) != simdjson::SUCCESS) {
      return InternalError("llama-bench printed an entry without n_prompt, n_gen and avg_ts");
    }
    // Older versions have none.
    if (entry["n_depth"].get_uint64().get(depth) != simdjson::SUCCESS) depth = 0;
    for (size_t i = 0; i < cases.size(); ++i) {
      const bool prefill = cases[i].kind == CaseKind::kPrefill && generated == 0 && depth == 0 &&
                           prompt == cases[i].tokens;
      const bool decode = cases[i].kind == CaseKind::kDecode && prompt == 0 &&
                          generated == cases[i].tokens && depth == cases[i].context;
      if (prefill || decode) (*rates)[i] = rate;
    }
  }
  return absl::OkStatus();
}

absl::Status ReadLlamaBatchedBench(std::string_view output, const std::vector<CaseResult>& cases,
                                   PeerRates* rates) {
  simdjson::dom::parser parser;
  // Columns of a table, by its head.
  size_t sequences_column = SIZE_MAX;
  size_t rate_column = SIZE_MAX;
  bool any = false;
  while (!output.empty()) {
    const size_t end = std::min(output.find('\n'), output.size());
    const std::string_view text = output.substr(0, end);
    output.remove_prefix(std::min(end + 1, output.size()));
    uint64_t sequences = 0;
    double rate = 0;
    if (text.starts_with('{')) {
      const simdjson::padded_string line(text);
      const simdjson::simdjson_result<simdjson::dom::element> entry = parser.parse(line);
      if (entry["pl"].get_uint64().get(sequences) != simdjson::SUCCESS ||
          entry["speed_tg"].get_double().get(rate) != simdjson::SUCCESS) {
        return InternalError("%s printed a line without pl and speed_tg", kBatchedBench);
      }
    } else if (text.starts_with('|')) {
      const std::vector<std::string_view> cells = Cells(text);
      for (size_t i = 0; i < cells.size(); ++i) {
        if (cells[i] == "B") sequences_column = i;
        if (cells[i] == "S_TG t/s") rate_column = i;
      }
      if (std::max(sequences_column, rate_column) >= cells.size() ||
          !ParseNumber(cells[sequences_column], &sequences) ||
          !ParseNumber(cells[rate_column], &rate)) {
        continue;
      }
    } else {
      continue;
    }
    any = true;
    for (size_t i = 0; i < cases.size(); ++i) {
      if (cases[i].kind == CaseKind::kBatch && cases[i].sequences == sequences) {
        (*rates)[i] = rate;
      }
    }
  }
  if (!any) return InternalError("%s printed no result", kBatchedBench);
  return absl::OkStatus();
}

absl::StatusOr<PeerRates> RunPeer(const CpuBenchOptions& options, uint32_t threads,
                                  const std::vector<CaseResult>& cases) {
  PeerRates rates(cases.size());
  std::vector<uint32_t> prompts, contexts, batches;
  bool decodes = false;
  for (const CaseResult& result : cases) {
    if (result.kind == CaseKind::kPrefill) prompts.push_back(result.tokens);
    if (result.kind == CaseKind::kBatch) batches.push_back(result.sequences);
    if (result.kind != CaseKind::kDecode) continue;
    if (result.context == 0) {
      decodes = true;
    } else {
      contexts.push_back(result.context);
    }
  }
  const std::string tokens = std::to_string(options.tokens);
  const auto bench = [&](const std::string& p, const std::string& n,
                         const std::string& depths) -> absl::Status {
    std::vector<std::string> arguments =
        Common(options, options.against, threads, options.against_options);
    arguments.insert(arguments.end(), {"-p", p, "-n", n, "-r", "1", "-o", "json"});
    if (!depths.empty()) arguments.insert(arguments.end(), {"-d", depths});
    ASSIGN_OR_RETURN(const std::string output, Run(arguments, false));
    return ReadLlamaBench(output, cases, &rates);
  };
  if (!prompts.empty() || decodes) {
    RETURN_IF_ERROR(bench(prompts.empty() ? "0" : List(prompts), decodes ? tokens : "0", ""));
  }
  // Versions that know no depth refuse; those cases are left open.
  if (!contexts.empty()) bench("0", tokens, List(contexts)).IgnoreError();
  const size_t folder = options.against.rfind('/');
  const std::string batched =
      options.against.substr(0, folder == std::string::npos ? 0 : folder + 1) + kBatchedBench;
  if (batches.empty() || access(batched.c_str(), X_OK) != 0) return rates;
  const uint32_t most = *std::max_element(batches.begin(), batches.end());
  std::vector<std::string> arguments =
      Common(options, batched, threads, options.against_batched_options);
  arguments.insert(arguments.end(),
                   {"-tb", std::to_string(threads), "-c",
                    std::to_string(most * (options.tokens + 1 + kSpareCells)), "-b", "2048", "-npp",
                    "1", "-ntg", tokens, "-npl", List(batches), "--output-format", "jsonl"});
  ASSIGN_OR_RETURN(const std::string output, Run(arguments, true));
  RETURN_IF_ERROR(ReadLlamaBatchedBench(output, cases, &rates));
  return rates;
}

}  // namespace reticle::backends::cpu::bench
