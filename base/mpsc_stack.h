// A lock-free intrusive list that any thread pushes to and one thread empties at once.
#ifndef RETICLE_BASE_MPSC_STACK_H_
#define RETICLE_BASE_MPSC_STACK_H_

#include <atomic>

namespace reticle {

// `Next` is a member of T that the stack uses while an element is in it. An element is in one stack
// at most; whoever pushes it sees to that, and to its life until it is taken. Pushes and Empty are
// sequentially consistent, so that a consumer that announces its sleep and then looks, and a
// producer that pushes and then looks for the announcement, cannot miss each other.
template <typename T, T* T::*Next>
class MpscStack {
 public:
  // Any thread.
  void Push(T* element) {
    T* head = head_.load(std::memory_order_relaxed);
    do {
      element->*Next = head;
    } while (!head_.compare_exchange_weak(head, element, std::memory_order_seq_cst,
                                          std::memory_order_relaxed));
  }
  bool Empty() const { return head_.load(std::memory_order_seq_cst) == nullptr; }

  // The consumer: everything, first pushed first, linked by `Next`; null when there is nothing.
  T* TakeAll() {
    if (head_.load(std::memory_order_relaxed) == nullptr) return nullptr;
    T* taken = head_.exchange(nullptr, std::memory_order_acquire);
    T* reversed = nullptr;
    while (taken != nullptr) {
      T* const next = taken->*Next;
      taken->*Next = reversed;
      reversed = taken;
      taken = next;
    }
    return reversed;
  }

 private:
  std::atomic<T*> head_{nullptr};
};

}  // namespace reticle

#endif  // RETICLE_BASE_MPSC_STACK_H_
