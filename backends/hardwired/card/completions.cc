#include "backends/hardwired/card/completions.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>

namespace reticle::backends::hardwired {
namespace {

// A record that is bad this often in a row is a broken link.
constexpr uint32_t kMaxAttempts = 8;

// As CheckWord of the cell without its check, in four chains that do not wait for each other.
uint32_t CheckOf(const CompletionCell& cell) {
  constexpr uint64_t kFactor = 0x9E3779B97F4A7C15u;
  constexpr size_t kChains = 4;
  constexpr size_t kWords = sizeof(cell) / sizeof(uint64_t);
  constexpr size_t kCheckWord = offsetof(CompletionCell, check) / sizeof(uint64_t);
  static_assert(offsetof(CompletionCell, check) % sizeof(uint64_t) == 0);
  static_assert(std::endian::native == std::endian::little);
  uint64_t words[kWords];
  std::memcpy(words, &cell, sizeof(words));
  words[kCheckWord] &= ~uint64_t{UINT32_MAX};
  uint64_t chains[kChains] = {0x243F6A8885A308D3u, 0x13198A2E03707344u, 0xA4093822299F31D0u,
                              0x082EFA98EC4E6C89u};
  for (size_t i = 0; i < kWords; i += kChains) {
    for (size_t c = 0; c < kChains; ++c) {
      chains[c] = std::rotl((chains[c] ^ words[i + c]) * kFactor, 29);
    }
  }
  const uint64_t even = (chains[0] ^ std::rotl(chains[1], 17)) * kFactor;
  const uint64_t odd = (chains[2] ^ std::rotl(chains[3], 23)) * kFactor;
  return static_cast<uint32_t>((even ^ std::rotl(odd, 31)) >> 32);
}

uint32_t CheckOf(const CompletionCell& cell, const void* extra, size_t extra_bytes) {
  const uint32_t check = CheckOf(cell);
  return extra_bytes == 0 ? check : check ^ CheckWord(extra, extra_bytes);
}

}  // namespace

// ---- Card ----

CompletionWriter::CompletionWriter(std::shared_ptr<CardMemory> memory)
    : memory_(std::move(memory)), sent_(memory_->completions().size()) {}

void CompletionWriter::Push(const CompletionCell& cell, std::span<const reticle_token_logprob> top,
                            std::string_view message) {
  CompletionCell record[1 + kMaxExtraCells];
  top = top.first(std::min(top.size(), kMaxExtraBytes / sizeof(reticle_token_logprob)));
  message = message.substr(0, std::min<size_t>(kMaxExtraBytes - top.size_bytes(), 512));
  const size_t extra_bytes = top.size_bytes() + message.size();
  const size_t extra_cells = (extra_bytes + sizeof(CompletionCell) - 1) / sizeof(CompletionCell);
  if (extra_bytes > 0) {
    auto* const extra = reinterpret_cast<std::byte*>(&record[1]);
    std::memset(extra, 0, extra_cells * sizeof(CompletionCell));
    // Unlike memcpy, it takes the null of what is empty.
    std::byte* const behind = std::ranges::copy(std::as_bytes(top), extra).out;
    std::ranges::copy(std::as_bytes(std::span(message)), behind);
  }
  CompletionCell& head = record[0];
  head = cell;
  head.number = number_;
  head.extra_cells = static_cast<uint16_t>(extra_cells);
  head.top_count = static_cast<uint16_t>(top.size());
  head.message_length = static_cast<uint16_t>(message.size());
  head.check = CheckOf(head, &record[1], extra_cells * sizeof(CompletionCell));
  number_ += 1 + extra_cells;
  const std::span<const CompletionCell> whole(record, 1 + extra_cells);
  if (waiting_head_ == waiting_.size() && Room() >= whole.size()) {
    WriteRecord(whole);
  } else {
    waiting_.insert(waiting_.end(), whole.begin(), whole.end());
  }
}

uint64_t CompletionWriter::Room() {
  const uint64_t head = memory_->registers().completion_head.load(std::memory_order_acquire);
  if (head > tail_ || tail_ - head > sent_.size()) {
    broken_ = true;
    return 0;
  }
  return sent_.size() - (tail_ - head);
}

void CompletionWriter::WriteRecord(std::span<const CompletionCell> record) {
  for (size_t i = 0; i < record.size(); ++i) sent_[(tail_ + i) & (sent_.size() - 1)] = record[i];
  WriteCells(tail_, record);
  tail_ += record.size();
  memory_->registers().completion_tail.store(tail_, std::memory_order_release);
  news_ = true;
}

void CompletionWriter::WriteCells(uint64_t at, std::span<const CompletionCell> record) {
  const std::span<CompletionCell> ring = memory_->completions();
  if (link_faults_ > 0) {
    if (link_faults_ != UINT64_MAX) --link_faults_;
    if (++faults_made_ % 2 == 0) return;  // dropped: the cell keeps what it held
    CompletionCell garbled = record[0];
    garbled.token ^= 0x40;
    garbled.device_time_ns ^= uint64_t{1} << (faults_made_ % 60);
    ring[at & (ring.size() - 1)] = garbled;
    return;
  }
  for (size_t i = 0; i < record.size(); ++i) ring[(at + i) & (ring.size() - 1)] = record[i];
}

void CompletionWriter::Flush() {
  CardRegisters& registers = memory_->registers();
  const uint64_t request = registers.resend_request.load(std::memory_order_acquire);
  if (request != registers.resent.load(std::memory_order_relaxed)) {
    Resend(registers.resend_cell.load(std::memory_order_relaxed));
    registers.resent.store(request, std::memory_order_release);
    news_ = true;
  }
  while (waiting_head_ < waiting_.size()) {
    const size_t size = 1 + waiting_[waiting_head_].extra_cells;
    if (Room() < size) return;
    WriteRecord({&waiting_[waiting_head_], size});
    waiting_head_ += size;
  }
  waiting_.clear();
  waiting_head_ = 0;
}

void CompletionWriter::Resend(uint64_t at) {
  const uint64_t oldest = tail_ > sent_.size() ? tail_ - sent_.size() : 0;
  if (at < oldest || at >= tail_) return;
  CompletionCell record[1 + kMaxExtraCells];
  record[0] = sent_[at & (sent_.size() - 1)];
  if (record[0].number != at || record[0].extra_cells > kMaxExtraCells) return;
  const size_t size = 1 + record[0].extra_cells;
  for (size_t i = 1; i < size; ++i) record[i] = sent_[(at + i) & (sent_.size() - 1)];
  WriteCells(at, {record, size});
}

// ---- Host ----

bool CompletionReader::pending() const {
  return memory_->registers().completion_tail.load(std::memory_order_seq_cst) != head_;
}

bool CompletionReader::Read(ReadCompletion* completion) {
  if (broken_) return false;
  CardRegisters& registers = memory_->registers();
  if (resend_ != 0) {
    if (registers.resent.load(std::memory_order_acquire) != resend_) return false;
    resend_ = 0;
  }
  const uint64_t tail = registers.completion_tail.load(std::memory_order_acquire);
  if (tail == head_) return false;
  const std::span<const CompletionCell> ring = memory_->completions();
  const uint64_t there = tail - head_;
  if (tail < head_ || there > ring.size()) {
    broken_ = true;
    return false;
  }
  CompletionCell& cell = completion->cell;
  cell = ring[head_ & (ring.size() - 1)];
  const size_t extra_cells = cell.extra_cells;
  const size_t top_bytes = cell.top_count * sizeof(reticle_token_logprob);
  if (cell.number != head_ || extra_cells > kMaxExtraCells || 1 + extra_cells > there ||
      top_bytes + cell.message_length > extra_cells * sizeof(CompletionCell)) {
    return AskAgain();
  }
  for (size_t i = 0; i < extra_cells; ++i) {
    std::memcpy(extra_ + i * sizeof(CompletionCell), &ring[(head_ + 1 + i) & (ring.size() - 1)],
                sizeof(CompletionCell));
  }
  if (CheckOf(cell, extra_, extra_cells * sizeof(CompletionCell)) != cell.check) return AskAgain();
  completion->top = {reinterpret_cast<const reticle_token_logprob*>(extra_), cell.top_count};
  completion->message = {reinterpret_cast<const char*>(extra_) + top_bytes, cell.message_length};
  attempts_ = 0;
  head_ += 1 + extra_cells;
  registers.completion_head.store(head_, std::memory_order_release);
  return true;
}

bool CompletionReader::AskAgain() {
  ++errors_;
  if (++attempts_ > kMaxAttempts) {
    broken_ = true;
    return false;
  }
  CardRegisters& registers = memory_->registers();
  resend_ = ++requests_;
  registers.resend_cell.store(head_, std::memory_order_relaxed);
  registers.resend_request.store(resend_, std::memory_order_release);
  return false;
}

}  // namespace reticle::backends::hardwired
