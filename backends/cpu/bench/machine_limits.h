// What the machine can do at most with a number of threads: bytes read from memory and operations
// done in registers, a second. Sampled again and again between other measurements, so that a
// machine that others use, or that slows down, is measured while it is used.
#ifndef RETICLE_BACKENDS_CPU_BENCH_MACHINE_LIMITS_H_
#define RETICLE_BACKENDS_CPU_BENCH_MACHINE_LIMITS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "backends/cpu/bench/samples.h"
#include "backends/kernels/aligned_memory.h"
#include "backends/kernels/thread_pool.h"

namespace reticle::backends::cpu::bench {

struct ReadLimit {
  uint64_t bytes = 0;  // of the memory that is read from end to end
  Samples bytes_per_second;
};

struct PeakLimit {
  std::string name;  // the instruction set
  bool is_int8 = false;
  Samples ops_per_second;
};

// What bounds the model at one time, with the best instruction set.
struct LimitsNow {
  double weights_bytes_per_second = 0;
  double int8_ops_per_second = 0;
  double float_ops_per_second = 0;

  // What was between two times.
  static LimitsNow Mean(const LimitsNow& a, const LimitsNow& b);
};

struct MachineLimits {
  int threads = 0;
  ReadLimit memory;   // far larger than the caches
  ReadLimit weights;  // as large as the model's weights; those of a small model stay in the caches
  std::vector<PeakLimit> peaks;  // of every instruction set that the CPU has
};

// Owns the memory that is read. Not thread-safe.
class LimitMeter {
 public:
  // Memory for working sets of up to `weight_bytes` and for one of `memory_bytes` (0: far more than
  // the caches hold), within `available_bytes` / 4. RESOURCE_EXHAUSTED when not even 64 MiB fit.
  // `instructions`: the best instruction set whose peaks are of interest, as in PeakKernel; empty:
  // all.
  static absl::StatusOr<LimitMeter> Create(uint64_t weight_bytes, uint64_t available_bytes,
                                           uint64_t memory_bytes = 0,
                                           const std::string& instructions = "");

  // Takes a sample of each limit with the threads of `pool`, in some 300 ms.
  LimitsNow Sample(kernels::ThreadPool& pool, MachineLimits* limits);

  uint64_t memory_bytes() const { return memory_.size(); }

 private:
  LimitMeter() = default;
  // Returns what it adds to `limit`, bytes a second.
  double SampleRead(kernels::ThreadPool& pool, uint64_t bytes, ReadLimit* limit);

  kernels::AlignedMemory memory_;
  uint64_t weight_bytes_ = 0;
  std::string instructions_;
};

}  // namespace reticle::backends::cpu::bench

#endif  // RETICLE_BACKENDS_CPU_BENCH_MACHINE_LIMITS_H_
