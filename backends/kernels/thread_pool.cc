#include "backends/kernels/thread_pool.h"

#include <algorithm>
#include <chrono>

namespace reticle::backends::kernels {
namespace {

// Longer than the skew between workers of one step, far shorter than a time slice.
constexpr std::chrono::nanoseconds kSpinTime{30'000};

void Pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// How many pauses take kSpinTime: their length differs by a factor of ten between CPUs.
int MeasureSpins() {
  constexpr int kPauses = 200;
  auto least = std::chrono::nanoseconds::max();
  for (int attempt = 0; attempt < 5; ++attempt) {
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < kPauses; ++i) Pause();
    least = std::min<std::chrono::nanoseconds>(least, std::chrono::steady_clock::now() - begin);
  }
  const auto spins = kSpinTime * kPauses / std::max(least, std::chrono::nanoseconds(1));
  return static_cast<int>(std::clamp<int64_t>(spins, 100, 100'000));
}

void AwaitChange(const std::atomic<uint32_t>& value, uint32_t old, int spins) {
  for (int i = 0; i < spins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    Pause();
  }
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

int BarrierSpins(int threads, int cpus) {
  static const int spins = MeasureSpins();
  return threads > cpus ? 0 : spins;
}

void SpinBarrier::Wait() {
  const uint32_t generation = generation_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
    arrived_.store(0, std::memory_order_relaxed);
    tickets_.store(0, std::memory_order_relaxed);
    // seq_cst: notify_all first looks whether anybody waits, and that look must not overtake the
    // store, or a thread that goes to sleep in between sleeps for ever.
    generation_.store(generation + 1, std::memory_order_seq_cst);
    generation_.notify_all();
    return;
  }
  AwaitChange(generation_, generation, spins_);
}

ThreadPool::ThreadPool(int threads)
    : threads_(std::max(threads, 1)),
      spins_(threads_ > 1 ? BarrierSpins(threads_, AvailableCpus()) : 0),
      barrier_(threads_, spins_) {
  for (int worker = 1; worker < threads_; ++worker) {
    workers_.emplace_back([this, worker] { Loop(worker); });
  }
}

ThreadPool::~ThreadPool() {
  stopping_.store(true, std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_seq_cst);
  epoch_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Run(absl::FunctionRef<void(int)> task) {
  if (threads_ == 1) {
    task(0);
    return;
  }
  task_ = &task;
  epoch_.fetch_add(1, std::memory_order_seq_cst);
  epoch_.notify_all();
  task(0);
  barrier_.Wait();
}

void ThreadPool::Loop(int worker) {
  uint32_t seen = 0;
  for (;;) {
    AwaitChange(epoch_, seen, spins_);
    ++seen;
    if (stopping_.load(std::memory_order_relaxed)) return;
    (*task_)(worker);
    barrier_.Wait();
  }
}

}  // namespace reticle::backends::kernels
