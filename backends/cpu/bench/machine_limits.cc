#include "backends/cpu/bench/machine_limits.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
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
constexpr int64_t kPeakNs = 5'000'000;

int64_t Now() { return Clock::Monotonic().NowNanos(); }

double BestOf(const std::vector<PeakLimit>& peaks, bool is_int8) {
  double best = 0;
  for (const PeakLimit& peak : peaks) {
    if (peak.is_int8 == is_int8) best = std::max(best, peak.ops_per_second.median());
  }
  return best;
}

uint64_t LastLevelCache() {
  long bytes = 0;
#if defined(_SC_LEVEL3_CACHE_SIZE)
  bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
  return bytes > 0 ? static_cast<uint64_t>(bytes) : 32 * kMiB;
}

}  // namespace

double MachineLimits::int8_ops_per_second() const { return BestOf(peaks, true); }
double MachineLimits::float_ops_per_second() const { return BestOf(peaks, false); }

absl::StatusOr<LimitMeter> LimitMeter::Create(uint64_t weight_bytes, uint64_t available_bytes) {
  const uint64_t wanted = std::clamp(4 * LastLevelCache(), 4 * kSmallestMemory, kLargestMemory);
  const uint64_t bytes = std::min(wanted, available_bytes / 4) / kMiB * kMiB;
  if (bytes < kSmallestMemory) {
    return ResourceExhaustedError(
        "measuring the read bandwidth takes at least %d bytes, a quarter of what must be "
        "available; %d are",
        kSmallestMemory, available_bytes);
  }
  LimitMeter meter;
  ASSIGN_OR_RETURN(meter.memory_, kernels::AlignedMemory::Allocate(bytes));
  // Pages that were never written are all the same zeros.
  std::memset(meter.memory_.data(), 1, bytes);
  meter.weight_bytes_ = std::clamp(weight_bytes / kReadUnit * kReadUnit, 64 * kReadUnit, bytes);
  return meter;
}

void LimitMeter::SampleRead(kernels::ThreadPool& pool, uint64_t bytes, ReadLimit* limit) {
  limit->bytes = bytes;
  std::atomic<uint64_t> sink{0};
  double best = 0;
  for (const bool prefetch : {false, true}) {
    uint64_t passes = 0;
    const int64_t begin = Now();
    int64_t spent = 0;
    do {
      pool.Run([&](int worker) {
        const auto [first, end] = kernels::StaticRange(bytes / kReadUnit, worker, pool.threads());
        const std::byte* const from = memory_.data() + first * kReadUnit;
        sink.fetch_add(ReadMemory(from, (end - first) * kReadUnit, prefetch),
                       std::memory_order_relaxed);
      });
      ++passes;
      spent = Now() - begin;
    } while (spent < kReadNs);
    best = std::max(best, static_cast<double>(passes * bytes) * 1e9 / static_cast<double>(spent));
  }
  limit->bytes_per_second.Add(best);
}

void LimitMeter::Sample(kernels::ThreadPool& pool, MachineLimits* limits) {
  limits->threads = pool.threads();
  SampleRead(pool, memory_.size(), &limits->memory);
  SampleRead(pool, weight_bytes_, &limits->weights);
  size_t next = 0;
  for (const PeakKernel& kernel : PeakKernels()) {
    if (!kernel.available()) continue;
    if (next == limits->peaks.size()) limits->peaks.push_back({kernel.name, kernel.is_int8, {}});
    uint64_t rounds = 1000;
    int64_t spent = 0;
    for (;;) {
      const int64_t begin = Now();
      pool.Run([&](int) { kernel.run(rounds); });
      spent = Now() - begin;
      if (spent >= kPeakNs) break;
      rounds *= spent < kPeakNs / 4 ? 4 : 2;
    }
    const double ops = static_cast<double>(kernel.ops_per_round * rounds) * pool.threads();
    limits->peaks[next++].ops_per_second.Add(ops * 1e9 / static_cast<double>(spent));
  }
}

}  // namespace reticle::backends::cpu::bench
