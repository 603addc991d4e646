#include "backends/cpu/bench/machine_limits.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <ctime>
#include <string_view>
#include <utility>

#include "backends/cpu/bench/peak_kernels.h"
#include "base/clock.h"
#include "base/status.h"

namespace reticle::backends::cpu::bench {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kSmallestMemory = 64 * kMiB;
constexpr uint64_t kLargestMemory = 1024 * kMiB;
constexpr uint64_t kReadUnit = 1024;  // of ReadMemory
constexpr int64_t kReadNs = 20'000'000;
constexpr int64_t kSliceNs = 1'000'000;
constexpr int kSlices = 5;
// That are read between two looks at the clock. The best time counts, since what disturbs is not a
// limit.
constexpr uint64_t kLeastBytes = 32 * kMiB;

int64_t Now() { return Clock::Monotonic().NowNanos(); }

// Whether code for the instruction set `most` may use those of `kernel`.
bool Within(std::string_view kernel, std::string_view most) {
  const auto width = [](std::string_view name) {
    return name.starts_with("avx512") ? 2 : name.starts_with("avx2") ? 1 : 0;
  };
  const bool only_plain = !most.ends_with("+vnni") && !most.empty();
  if (only_plain && kernel.ends_with("+vnni")) return false;
  return most.empty() || width(kernel) <= width(most);
}

uint64_t LastLevelCache() {
  long bytes = 0;
#if defined(_SC_LEVEL3_CACHE_SIZE)
  bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
  return bytes > 0 ? static_cast<uint64_t>(bytes) : 32 * kMiB;
}

int64_t OwnCpuNanos() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

// Rounds that take a thread about kSliceNs.
uint64_t RoundsFor(const PeakKernel& kernel) {
  for (uint64_t rounds = 1000;; rounds *= 2) {
    const int64_t begin = OwnCpuNanos();
    kernel.run(rounds);
    if (OwnCpuNanos() - begin >= kSliceNs) return rounds;
  }
}

}  // namespace

LimitsNow LimitsNow::Mean(const LimitsNow& a, const LimitsNow& b) {
  return {(a.weights_bytes_per_second + b.weights_bytes_per_second) / 2,
          (a.int8_ops_per_second + b.int8_ops_per_second) / 2,
          (a.float_ops_per_second + b.float_ops_per_second) / 2};
}

absl::StatusOr<LimitMeter> LimitMeter::Create(uint64_t weight_bytes, uint64_t available_bytes,
                                              uint64_t memory_bytes,
                                              const std::string& instructions) {
  const uint64_t wanted =
      memory_bytes > 0 ? memory_bytes
                       : std::clamp(4 * LastLevelCache(), 4 * kSmallestMemory, kLargestMemory);
  const uint64_t bytes = std::min(wanted, available_bytes / 4) / kMiB * kMiB;
  if (bytes < kSmallestMemory) {
    return ResourceExhaustedError(
        "measuring the read bandwidth takes at least %d bytes, a quarter of what must be "
        "available; %d are",
        kSmallestMemory, available_bytes);
  }
  LimitMeter meter;
  meter.instructions_ = instructions;
  ASSIGN_OR_RETURN(meter.memory_, kernels::AlignedMemory::Allocate(bytes));
  // Pages that were never written are all the same zeros.
  std::memset(meter.memory_.data(), 1, bytes);
  meter.weight_bytes_ = std::clamp(weight_bytes / kReadUnit * kReadUnit, 64 * kReadUnit, bytes);
  return meter;
}

double LimitMeter::SampleRead(kernels::ThreadPool& pool, uint64_t bytes, ReadLimit* limit) {
  limit->bytes = bytes;
  std::atomic<uint64_t> sink{0};
  // A small working set is read several times without a look at the clock, or waking threads would
  // count.
  const uint64_t passes = std::max<uint64_t>(1, kLeastBytes / bytes);
  double best = 0;
  for (const bool prefetch : {false, true}) {
    const int64_t begin = Now();
    int64_t before = begin;
    do {
      pool.Run([&](int worker) {
        const auto [first, end] = kernels::StaticRange(bytes / kReadUnit, worker, pool.threads());
        const std::byte* const from = memory_.data() + first * kReadUnit;
        uint64_t seen = 0;
        for (uint64_t pass = 0; pass < passes; ++pass) {
          seen ^= ReadMemory(from, (end - first) * kReadUnit, prefetch) + pass;
        }
        sink.fetch_add(seen, std::memory_order_relaxed);
      });
      const int64_t now = Now();
      best = std::max(
          best, static_cast<double>(passes * bytes) * 1e9 / static_cast<double>(now - before));
      before = now;
    } while (before - begin < kReadNs);
  }
  limit->bytes_per_second.Add(best);
  return best;
}

LimitsNow LimitMeter::Sample(kernels::ThreadPool& pool, MachineLimits* limits) {
  limits->threads = pool.threads();
  LimitsNow sample;
  SampleRead(pool, memory_.size(), &limits->memory);
  sample.weights_bytes_per_second = SampleRead(pool, weight_bytes_, &limits->weights);
  size_t next = 0;
  for (const PeakKernel& kernel : PeakKernels()) {
    if (!kernel.available() || !Within(kernel.name, instructions_)) continue;
    if (next == limits->peaks.size()) limits->peaks.push_back({kernel.name, kernel.is_int8, {}});
    const uint64_t rounds = RoundsFor(kernel);
    int64_t least = INT64_MAX;
    for (int slice = 0; slice < kSlices; ++slice) {
      const int64_t begin = Now();
      pool.Run([&](int) { kernel.run(rounds); });
      least = std::min(least, Now() - begin);
    }
    const double ops = static_cast<double>(kernel.ops_per_round * rounds) * pool.threads() * 1e9 /
                       static_cast<double>(least);
    limits->peaks[next++].ops_per_second.Add(ops);
    double& peak = kernel.is_int8 ? sample.int8_ops_per_second : sample.float_ops_per_second;
    peak = std::max(peak, ops);
  }
  return sample;
}

}  // namespace reticle::backends::cpu::bench
