// A team of threads that runs one function at a time, all members together (SPMD), with barriers
// inside the function. Work is split statically by worker index, so that the same worker touches
// the same rows every step; what is left at the end of long work goes by tickets to whoever is done
// first, since memory and the machine's other programs do not treat all members alike. A member
// that has nothing to do spins for some 30 us and then sleeps: a team that is idle takes no CPU
// time.
#ifndef RETICLE_BACKENDS_KERNELS_THREAD_POOL_H_
#define RETICLE_BACKENDS_KERNELS_THREAD_POOL_H_

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "backends/kernels/cpu_count.h"

namespace reticle::backends::kernels {

// Rounds that a member of a team of `threads` waits for the others before it sleeps, some 30 us;
// none when there are fewer CPUs than members, since those that are waited for need the CPU.
int BarrierSpins(int threads, int cpus);

// The half-open range of part `index` of `parts` equal parts of [0, count).
inline std::pair<size_t, size_t> StaticRange(size_t count, int index, int parts) {
  return {count * index / parts, count * (index + 1) / parts};
}

// A barrier for a fixed number of threads that spins shortly, then sleeps in the kernel.
class SpinBarrier {
 public:
  SpinBarrier(int threads, int spins) : threads_(threads), spins_(spins) {}
  void Wait();
  // 0, 1, 2 .. since all have last met.
  uint32_t TakeTicket() { return tickets_.fetch_add(1, std::memory_order_relaxed); }

 private:
  const int threads_;
  const int spins_;
  std::atomic<int> arrived_{0};
  std::atomic<uint32_t> generation_{0};
  alignas(64) std::atomic<uint32_t> tickets_{0};
};

// Run is called by one thread at a time, which takes part as worker 0.
class ThreadPool {
 public:
  // A pool of `threads` workers, the caller of Run among them; at least 1.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }
  // Calls task(worker) on every worker and returns when all have returned.
  void Run(absl::FunctionRef<void(int)> task);
  // To be called by every worker, as often by each, from within a task.
  void Barrier() {
    if (threads_ > 1) barrier_.Wait();
  }
  // Calls work(first, end) for ranges of [0, count) that together cover it once: the worker's
  // static range of all but `shared` units, then runs of `grain` of those, while there are any. To
  // be called by every worker with the same numbers, at most once between two barriers.
  template <typename Work>
  void Split(int worker, size_t count, size_t shared, size_t grain, const Work& work) {
    const size_t own = threads_ > 1 ? count - shared : count;
    const auto [first, end] = StaticRange(own, worker, threads_);
    if (first < end) work(first, end);
    while (own < count) {
      const size_t next = own + barrier_.TakeTicket() * grain;
      if (next >= count) return;
      work(next, std::min(next + grain, count));
    }
  }

 private:
  void Loop(int worker);

  const int threads_;
  const int spins_;
  SpinBarrier barrier_;
  const absl::FunctionRef<void(int)>* task_ = nullptr;
  std::atomic<uint32_t> epoch_{0};
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> workers_;
};

}  // namespace reticle::backends::kernels

#endif  // RETICLE_BACKENDS_KERNELS_THREAD_POOL_H_
