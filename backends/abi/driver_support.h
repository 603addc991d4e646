// What drivers written in C++ share: errors, structs of other versions, and a completion queue that
// keeps the promises of poll and arm. Header-only; drivers in C need none of it.
#ifndef RETICLE_BACKENDS_ABI_DRIVER_SUPPORT_H_
#define RETICLE_BACKENDS_ABI_DRIVER_SUPPORT_H_

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "backends/abi/reticle_device.h"

namespace reticle::backends {

// ---- Errors ----

// Fills *error (unless null) with `code` and `message`, cut between two UTF-8 characters to what
// fits, and returns `code`.
inline int32_t FillError(reticle_error* error, int32_t code, std::string_view message) {
  if (error == nullptr || error->struct_size <= offsetof(reticle_error, message)) return code;
  const size_t room =
      std::min(error->struct_size, sizeof(reticle_error)) - offsetof(reticle_error, message);
  size_t length = std::min(message.size(), room - 1);
  if (length < message.size()) {
    while (length > 0 && (static_cast<unsigned char>(message[length]) & 0xC0) == 0x80) --length;
  }
  error->struct_size = offsetof(reticle_error, message) + room;
  error->code = code;
  std::memcpy(error->message, message.data(), length);
  error->message[length] = '\0';
  return code;
}

// The same from a status; an OK status leaves *error alone and returns RETICLE_OK.
inline int32_t FillError(reticle_error* error, const absl::Status& status) {
  if (status.ok()) return RETICLE_OK;
  return FillError(error, static_cast<int32_t>(status.code()),
                   std::string_view(status.message().data(), status.message().size()));
}

// ---- Structs of other versions ----

// *from as a struct of this version: itself when it is whole, else `storage` filled with its fields
// and zeros. `room` caps what may be read: the stride of an array, else SIZE_MAX.
template <typename T>
const T& WholeStruct(const T* from, T& storage, size_t room = SIZE_MAX) {
  const size_t size = std::min(from->struct_size, room);
  if (size >= sizeof(T)) return *from;
  storage = T{};
  std::memcpy(&storage, from, size);
  return storage;
}

// Writes `value` into the host's struct of `room` bytes and sets its struct_size to what it wrote.
template <typename T>
void WriteStruct(const T& value, T* to, size_t room) {
  const size_t size = std::min(room, sizeof(T));
  std::memcpy(static_cast<void*>(to), &value, size);
  if (size >= sizeof(size_t)) std::memcpy(static_cast<void*>(to), &size, sizeof(size));
}
template <typename T>
void WriteStruct(const T& value, T* to) {
  WriteStruct(value, to, to->struct_size);
}

// Element `index` of an array that was allocated with `stride`.
template <typename T>
T* StridedAt(T* base, size_t stride, size_t index) {
  using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
  return reinterpret_cast<T*>(reinterpret_cast<Byte*>(base) + stride * index);
}

// One work item, made whole with its sampling parameters. Refers to `from`.
class WholeWork {
 public:
  WholeWork(const reticle_work* from, size_t stride)
      : work_(WholeStruct(from, work_storage_, stride)),
        sampling_(work_.sampling == nullptr ? nullptr
                                            : &WholeStruct(work_.sampling, sampling_storage_)) {}
  WholeWork(const WholeWork&) = delete;
  WholeWork& operator=(const WholeWork&) = delete;

  const reticle_work& work() const { return work_; }
  // Use this in place of work().sampling.
  const reticle_sampling* sampling() const { return sampling_; }

 private:
  reticle_work work_storage_;
  reticle_sampling sampling_storage_;
  const reticle_work& work_;
  const reticle_sampling* sampling_;
};

// ---- Completions ----

// Completions on their way to the host. Keeps `top` and `message` alive until the next Poll and
// signals an armed event_fd. Not synchronised: the driver's own lock guards it. Allocates nothing
// in the steady state.
class CompletionQueue {
 public:
  // Without an event descriptor (or when none can be made) event_fd() is -1 and Arm returns true.
  explicit CompletionQueue(bool with_event_fd)
      : event_fd_(with_event_fd ? eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC) : -1) {}
  ~CompletionQueue() {
    if (event_fd_ >= 0) close(event_fd_);
  }
  CompletionQueue(const CompletionQueue&) = delete;
  CompletionQueue& operator=(const CompletionQueue&) = delete;

  int32_t event_fd() const { return event_fd_; }
  bool empty() const { return head_ + delivered_ == tail_; }
  size_t size() const { return tail_ - head_ - delivered_; }

  // Appends a completion; `top`, top_count and `message` are taken from the arguments and copied.
  void Push(const reticle_completion& completion, std::span<const reticle_token_logprob> top = {},
            std::string_view message = {}) {
    if (tail_ - head_ == entries_.size()) Grow();
    Entry& entry = entries_[tail_++ & (entries_.size() - 1)];
    entry.completion = completion;
    entry.completion.struct_size = sizeof(reticle_completion);
    entry.completion.top_count = static_cast<uint32_t>(top.size());
    entry.completion.top = nullptr;
    if (!top.empty()) {
      entry.top.assign(top.begin(), top.end());
      entry.completion.top = entry.top.data();
    }
    entry.completion.message = nullptr;
    if (!message.empty()) {
      entry.message.assign(message.begin(), message.end());
      entry.message.push_back('\0');
      entry.completion.message = entry.message.data();
    }
    if (armed_) Signal();
  }

  // Moves up to `capacity` completions out; the body of the ABI's poll.
  size_t Poll(reticle_completion* completions, size_t stride, size_t capacity) {
    head_ += delivered_;
    delivered_ = std::min(capacity, tail_ - head_);
    for (size_t i = 0; i < delivered_; ++i) {
      WriteStruct(entries_[(head_ + i) & (entries_.size() - 1)].completion,
                  StridedAt(completions, stride, i), stride);
    }
    return delivered_;
  }

  // One of the completions of the last Poll.
  const reticle_completion& delivered(size_t index) const {
    return entries_[(head_ + index) & (entries_.size() - 1)].completion;
  }

  // The body of the ABI's arm.
  bool Arm() {
    if (event_fd_ < 0 || !empty()) return true;
    armed_ = true;
    return false;
  }

  // Wakes an armed host although no completion is there, as when the device is lost.
  void Wake() {
    if (armed_) Signal();
  }

 private:
  struct Entry {
    reticle_completion completion;
    std::vector<reticle_token_logprob> top;  // moves keep its address, so Grow keeps `top` valid
    std::vector<char> message;
  };

  void Grow() {
    std::vector<Entry> larger(std::max<size_t>(2048, entries_.size() * 2));
    for (size_t i = head_; i < tail_; ++i) {
      larger[i & (larger.size() - 1)] = std::move(entries_[i & (entries_.size() - 1)]);
    }
    entries_.swap(larger);
  }

  void Signal() {
    armed_ = false;
    const uint64_t one = 1;
    // A full counter means that the host is signalled already.
    [[maybe_unused]] const ssize_t written = write(event_fd_, &one, sizeof(one));
  }

  const int32_t event_fd_;
  bool armed_ = false;
  // A ring whose size is a power of two: [head_, head_ + delivered_) is with the host until the
  // next Poll, [head_ + delivered_, tail_) waits.
  std::vector<Entry> entries_;
  size_t head_ = 0;
  size_t delivered_ = 0;
  size_t tail_ = 0;
};

}  // namespace reticle::backends

#endif  // RETICLE_BACKENDS_ABI_DRIVER_SUPPORT_H_
