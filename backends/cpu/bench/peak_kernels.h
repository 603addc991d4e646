// Loops that do nothing but what a machine's limits are made of: reading memory, and multiplying
// and adding in registers, one for each instruction set.
#ifndef RETICLE_BACKENDS_CPU_BENCH_PEAK_KERNELS_H_
#define RETICLE_BACKENDS_CPU_BENCH_PEAK_KERNELS_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace reticle::backends::cpu::bench {

struct PeakKernel {
  const char* name;  // the instruction set, "avx2+vnni"
  bool is_int8;      // products of 8-bit integers summed in 32 bits; else floats
  bool (*available)();
  void (*run)(uint64_t rounds);
  uint64_t ops_per_round;  // a multiply-add is two
};

// All that this build knows; those that the CPU lacks say so.
std::span<const PeakKernel> PeakKernels();

// Reads `bytes` (a multiple of 1024) from `data` (at a multiple of 64) with the widest loads that
// there are, with or without software prefetch. The result depends on every byte, so that no
// compiler leaves one out.
uint64_t ReadMemory(const std::byte* data, size_t bytes, bool prefetch);

}  // namespace reticle::backends::cpu::bench

#endif  // RETICLE_BACKENDS_CPU_BENCH_PEAK_KERNELS_H_
