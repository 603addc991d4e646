#include "scheduler/token_stream.h"

#include <algorithm>
#include <bit>
#include <thread>

#include "base/check.h"
#include "scheduler/engine_signal.h"

namespace reticle::scheduler {
namespace {

// An address that differs between threads.
const void* ThisThread() {
  thread_local char mark;
  return &mark;
}

}  // namespace

TokenStream::TokenStream(size_t capacity, StreamListener* listener)
    : mask_(std::bit_ceil(std::max<size_t>(capacity, 1)) - 1),
      listener_(listener),
      ring_(std::make_unique<TokenEvent[]>(mask_ + 1)) {}

TokenStream::~TokenStream() = default;

size_t TokenStream::Pop(std::span<TokenEvent> out) {
  const size_t head = head_.load(std::memory_order_relaxed);
  if (seen_tail_ - head < out.size()) seen_tail_ = tail_.load(std::memory_order_acquire);
  const size_t count = std::min(seen_tail_ - head, out.size());
  if (count == 0) return 0;
  for (size_t i = 0; i < count; ++i) out[i] = std::move(ring_[(head + i) & mask_]);
  // Sequentially consistent, as is AwaitRoom: either this thread sees the wish or the producer
  // sees the room.
  head_.store(head + count, std::memory_order_seq_cst);
  if (wants_room_.load(std::memory_order_seq_cst) &&
      wants_room_.exchange(false, std::memory_order_acq_rel)) {
    if (EngineSignal* const signal = signal_.load(std::memory_order_acquire)) {
      signal->Notify(EngineSignal::kRoom);
    }
  }
  return count;
}

const SequenceEnd* TokenStream::end() const {
  if (!finished_.load(std::memory_order_acquire)) return nullptr;
  const bool drained =
      head_.load(std::memory_order_relaxed) == tail_.load(std::memory_order_relaxed);
  return drained ? &end_ : nullptr;
}

bool TokenStream::SomethingThere() const {
  return tail_.load(std::memory_order_acquire) != head_.load(std::memory_order_relaxed) ||
         finished_.load(std::memory_order_acquire);
}

bool TokenStream::Arm() {
  wake_.fetch_or(kArmed, std::memory_order_acq_rel);
  if (!SomethingThere()) return true;
  // When the producer has taken the wish back already, its call is the answer.
  return (wake_.fetch_and(~kArmed, std::memory_order_acq_rel) & kArmed) == 0;
}

void TokenStream::Detach() {
  uint32_t state = wake_.fetch_or(kDetached, std::memory_order_acq_rel);
  while ((state & kCalling) != 0 && caller_.load(std::memory_order_relaxed) != ThisThread()) {
    std::this_thread::yield();
    state = wake_.load(std::memory_order_acquire);
  }
}

void TokenStream::Cancel() {
  // Sequentially consistent, as are Attach and cancelled(): either this thread sees the engine or
  // the engine, which looks after it has attached, sees the wish.
  if (cancelled_.exchange(true, std::memory_order_seq_cst)) return;
  if (EngineSignal* const signal = signal_.load(std::memory_order_seq_cst)) {
    signal->Notify(EngineSignal::kCancelled);
  }
}

bool TokenStream::Attach(std::shared_ptr<EngineSignal> signal) {
  if (signal_.load(std::memory_order_relaxed) != nullptr) return false;
  MoveTo(std::move(signal));
  return true;
}

void TokenStream::MoveTo(std::shared_ptr<EngineSignal> signal) {
  RETICLE_CHECK(!unflushed_);
  EngineSignal* const raw = signal.get();
  if (std::find(signal_owners_.begin(), signal_owners_.end(), signal) == signal_owners_.end()) {
    signal_owners_.push_back(std::move(signal));
  }
  signal_.store(raw, std::memory_order_seq_cst);
}

size_t TokenStream::FreeSlots() const {
  return capacity() -
         (tail_.load(std::memory_order_relaxed) - head_.load(std::memory_order_acquire));
}

bool TokenStream::AwaitRoom(size_t reserved) {
  if (FreeSlots() > reserved) return true;
  wants_room_.store(true, std::memory_order_seq_cst);
  return capacity() -
             (tail_.load(std::memory_order_relaxed) - head_.load(std::memory_order_seq_cst)) >
         reserved;
}

void TokenStream::Push(TokenEvent event) {
  const size_t tail = tail_.load(std::memory_order_relaxed);
  RETICLE_CHECK(FreeSlots() > 0 && !finished_.load(std::memory_order_relaxed));
  ring_[tail & mask_] = std::move(event);
  tail_.store(tail + 1, std::memory_order_release);
  unflushed_ = true;
}

void TokenStream::Finish(SequenceEnd end) {
  RETICLE_CHECK(!finished_.load(std::memory_order_relaxed));
  end_ = std::move(end);
  finished_.store(true, std::memory_order_release);
  unflushed_ = true;
}

void TokenStream::Flush() {
  if (!unflushed_) return;
  unflushed_ = false;
  if (listener_ == nullptr) return;
  // A read-modify-write even when nothing is armed: it orders the push before a later Arm.
  uint32_t state = wake_.fetch_and(~kArmed, std::memory_order_acq_rel);
  if ((state & kArmed) == 0 || (state & kDetached) != 0) return;
  caller_.store(ThisThread(), std::memory_order_relaxed);
  state = wake_.fetch_or(kCalling, std::memory_order_acq_rel);
  if ((state & kDetached) == 0) listener_->OnStreamReady();
  wake_.fetch_and(~kCalling, std::memory_order_release);
}

}  // namespace reticle::scheduler
