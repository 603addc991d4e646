// `reticle bench`: what the server costs (`serve`) and how fast the CPU device is (`cpu`).
#ifndef RETICLE_SERVER_CLI_BENCH_H_
#define RETICLE_SERVER_CLI_BENCH_H_

#include <optional>
#include <string>
#include <vector>

#include "backends/cpu/bench/cpu_bench.h"
#include "server/cli/command_line.h"

namespace reticle::server::cli {

struct CpuBenchCommand {
  backends::cpu::bench::CpuBenchOptions bench;  // `model` empty: the embedded house model
  std::string synthetic;                        // model as ParseSyntheticModel takes it
  std::string write;                            // file to write the synthetic model to
  std::string json;                             // file for the result; "-": standard output
  bool quiet = false;                           // no table
};

// `arguments`: those behind "bench cpu". As ParseServeArguments.
std::optional<CommandLineExit> ParseCpuBenchArguments(const std::vector<std::string>& arguments,
                                                      CpuBenchCommand& command);

// `arguments`: those behind "bench". Returns the exit status: 0, 1 when something could not be
// measured, 2 for wrong usage.
int RunBench(const std::vector<std::string>& arguments);

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_BENCH_H_
