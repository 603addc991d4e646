// The same measurements by llama.cpp's own benchmarks, on the same file: `llama-bench`, and for
// sequences that decode together `llama-batched-bench` beside it. They are programs that the user
// has built; what they print is all that is used.
#ifndef RETICLE_BACKENDS_CPU_BENCH_PEER_H_
#define RETICLE_BACKENDS_CPU_BENCH_PEER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "backends/cpu/bench/cpu_bench.h"

namespace reticle::backends::cpu::bench {

// Tokens a second, a place for each case; none where the program measures no such thing.
using PeerRates = std::vector<std::optional<double>>;

// Runs the programs once each. NOT_FOUND when options.against is no program, INTERNAL with the
// command line when it fails; where it knows no -d, decoding at a position has no rate.
absl::StatusOr<PeerRates> RunPeer(const CpuBenchOptions& options, uint32_t threads,
                                  const std::vector<CaseResult>& cases);

// Takes what llama-bench printed (-o json), and what llama-batched-bench printed (lines of JSON, or
// a table where it knows no other), into the rates of the cases that it is about. INTERNAL for
// anything else.
absl::Status ReadLlamaBench(std::string_view output, const std::vector<CaseResult>& cases,
                            PeerRates* rates);
absl::Status ReadLlamaBatchedBench(std::string_view output, const std::vector<CaseResult>& cases,
                                   PeerRates* rates);

}  // namespace reticle::backends::cpu::bench

#endif  // RETICLE_BACKENDS_CPU_BENCH_PEER_H_
