// Memory for asynchronous operations that come again and again, so that waiting for a socket or a
// descriptor allocates nothing. Internal to server/http: includes Asio.
#ifndef RETICLE_SERVER_HTTP_OPERATION_MEMORY_H_
#define RETICLE_SERVER_HTTP_OPERATION_MEMORY_H_

#include <boost/asio/bind_allocator.hpp>
#include <cstddef>
#include <new>
#include <utility>

namespace reticle::server::http {

// Room for one operation under way; one that does not fit, and a second one, get memory of their
// own. Used by one thread.
class OperationMemory {
 public:
  OperationMemory() = default;
  OperationMemory(const OperationMemory&) = delete;
  OperationMemory& operator=(const OperationMemory&) = delete;

  void* Take(size_t size) {
    if (taken_ || size > sizeof(room_)) return ::operator new(size);
    taken_ = true;
    return room_;
  }
  void GiveBack(void* memory) {
    if (memory == room_) {
      taken_ = false;
    } else {
      ::operator delete(memory);
    }
  }

 private:
  alignas(std::max_align_t) std::byte room_[320];
  bool taken_ = false;
};

template <typename T>
class OperationAllocator {
 public:
  using value_type = T;
  explicit OperationAllocator(OperationMemory& memory) : memory_(&memory) {}
  template <typename Other>
  OperationAllocator(const OperationAllocator<Other>& other) : memory_(other.memory_) {}
  T* allocate(size_t count) { return static_cast<T*>(memory_->Take(count * sizeof(T))); }
  void deallocate(T* pointer, size_t) { memory_->GiveBack(pointer); }
  bool operator==(const OperationAllocator& other) const { return memory_ == other.memory_; }

 private:
  template <typename Other>
  friend class OperationAllocator;
  OperationMemory* memory_;
};

// `handler`, whose operation is kept in `memory`; that must live until the operation is over.
template <typename Handler>
auto KeptIn(OperationMemory& memory, Handler handler) {
  return boost::asio::bind_allocator(OperationAllocator<char>(memory), std::move(handler));
}

}  // namespace reticle::server::http

#endif  // RETICLE_SERVER_HTTP_OPERATION_MEMORY_H_
