#include "backends/kernels/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace reticle::backends::kernels {
namespace {

// About 20-50 us, longer than the skew between workers of one step, far shorter than a time slice.
constexpr int kSpins = 1000;

void Pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

void AwaitChange(const std::atomic<uint32_t>& value, uint32_t old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    Pause();
  }
  value.wait(old, std::memory_order_acquire);
}

// CPUs granted by the cgroup's quota (version 2), or 0 when there is none.
int CgroupCpus() {
  std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "r");
  if (file == nullptr) return 0;
  long long quota = 0, period = 0;
  const int fields = std::fscanf(file, "%lld %lld", &quota, &period);
  std::fclose(file);
  if (fields != 2 || quota <= 0 || period <= 0) return 0;
  return static_cast<int>(std::max<long long>(1, (quota + period - 1) / period));
}

}  // namespace

int AvailableCpus() {
  int cpus = static_cast<int>(std::thread::hardware_concurrency());
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) cpus = CPU_COUNT(&set);
  if (const int quota = CgroupCpus(); quota > 0) cpus = std::min(cpus, quota);
  return std::max(cpus, 1);
}

void SpinBarrier::Wait() {
  const uint32_t generation = generation_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
    arrived_.store(0, std::memory_order_relaxed);
    // seq_cst: notify_all first looks whether anybody waits, and that look must not overtake the
    // store, or a thread that goes to sleep in between sleeps for ever.
    generation_.store(generation + 1, std::memory_order_seq_cst);
    generation_.notify_all();
    return;
  }
  AwaitChange(generation_, generation);
}

ThreadPool::ThreadPool(int threads) : threads_(std::max(threads, 1)), barrier_(threads_) {
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
    AwaitChange(epoch_, seen);
    ++seen;
    if (stopping_.load(std::memory_order_relaxed)) return;
    (*task_)(worker);
    barrier_.Wait();
  }
}

}  // namespace reticle::backends::kernels
