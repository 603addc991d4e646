// `reticle bench cpu`: how fast a model runs on the CPU device, beside what the machine can do.
//
// For each number of threads: the device is opened as a server opens it; then, `repeats` times,
// every case is measured once, and the machine's limits before and after it, so that what disturbs
// the machine disturbs them alike. With a llama-bench of llama.cpp named, it takes its turn in
// every repeat, on the same file.
#ifndef RETICLE_BACKENDS_CPU_BENCH_CPU_BENCH_H_
#define RETICLE_BACKENDS_CPU_BENCH_CPU_BENCH_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backends/abi/reticle_device.h"
#include "backends/cpu/bench/machine_limits.h"
#include "backends/cpu/bench/samples.h"
#include "backends/cpu/bench/work_counts.h"

namespace reticle::backends::cpu::bench {

struct CpuBenchOptions {
  std::string model;              // GGUF file
  std::vector<uint32_t> threads;  // each is measured; empty: all that the process may use
  int repeats = 3;
  uint32_t kv_type = RETICLE_KV_TYPE_F16;
  uint32_t tokens = 32;                                // that a sequence decodes in a measurement
  std::vector<uint32_t> prefill = {128, 512};          // lengths of prompts
  std::vector<uint32_t> contexts;                      // positions to decode at, besides 0
  std::vector<uint32_t> batch = {1, 2, 4, 8, 16, 32};  // sequences that decode together
  std::vector<std::string> only;  // of prefill, decode, context, batch; empty: all
  uint64_t memory_bytes = 0;      // read to find the bandwidth; 0: far more than the caches hold
  std::string instructions;       // the kernels' instruction set, "avx2"; empty: the best
  std::string packed;             // folder of packed weights, as the driver's option; empty: none
  bool huge_pages = true;         // false: the system gives this process none
  std::string against;            // path of a llama-bench; empty: none
  std::string against_options;    // more arguments for it, separated by blanks
  std::string against_batched_options;               // and for the llama-batched-bench beside it
  std::function<void(const std::string&)> progress;  // told what is measured next

  // INVALID_ARGUMENT naming option, value and limit.
  absl::Status Validate() const;
};

enum class CaseKind { kPrefill, kDecode, kBatch };

struct CaseResult {
  CaseKind kind = CaseKind::kDecode;
  std::string name;        // "prefill 512", "decode at 8192", "decode of 16"
  uint32_t tokens = 0;     // of the prompt, or that each sequence decodes
  uint32_t context = 0;    // position at the beginning
  uint32_t sequences = 1;  // that decode together
  Work work;               // of one token of one sequence, at the middle of the measurement
  Samples tokens_per_second;
  // Of the time that a token took, how much its bytes, or its operations, take at the limits
  // measured before and after it.
  Samples share_of_read;
  Samples share_of_peak;
  Samples peer_tokens_per_second;  // of the other program
  Samples ratio;                   // ours to theirs, repeat by repeat
};

struct ThreadsResult {
  int threads = 0;
  MachineLimits limits;
  double open_seconds = 0;  // from the call to the device being ready, the file being cached
  // What opening adds to the process's own memory, less the KV pool: repacked weights and
  // activations; and what stays mapped of the file.
  int64_t anonymous_bytes = 0;
  int64_t mapped_bytes = 0;
  int64_t huge_bytes = 0;  // of what opening adds, KV included, in huge pages
  uint64_t kv_bytes = 0;
  double idle_cpu = 0;  // share of a core that the open device takes when it has nothing to do
  std::vector<CaseResult> cases;
};

struct CpuBenchResult {
  std::string cpu;      // as the system names it
  std::string kernels;  // the instruction set that the device uses
  std::string model;    // the file's name for itself
  std::string types;    // of its matrices, "Q4_0, Q6_K"
  std::string kv_type;
  uint64_t file_bytes = 0;
  uint64_t parameters = 0;
  WorkCounts counts;
  std::string peer;  // path of the other program; empty: none
  std::vector<ThreadsResult> threads;
};

absl::StatusOr<CpuBenchResult> RunCpuBench(const CpuBenchOptions& options);

std::string FormatTable(const CpuBenchResult& result);
std::string FormatJson(const CpuBenchResult& result);

}  // namespace reticle::backends::cpu::bench

#endif  // RETICLE_BACKENDS_CPU_BENCH_CPU_BENCH_H_
