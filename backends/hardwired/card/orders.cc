#include "backends/hardwired/card/orders.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace reticle::backends::hardwired {
namespace {

constexpr size_t kAlign = 8;
constexpr uint32_t kMaxPath = 4096;

struct OrderHeader {
  uint32_t length;  // of all, a multiple of 8
  uint32_t check;   // over all, with this field zero
  uint64_t number;
  uint32_t kind;
  uint32_t reserved;
  uint64_t sequence;
  int64_t sent_ns;
};

// Behind it: tokens, stop ids, biases, history, mask.
struct WorkBody {
  uint64_t tag;
  uint64_t adapter;
  uint32_t flags;
  uint32_t position;
  uint32_t token_count;
  uint32_t decode_credits;
  uint32_t prompt_logprobs;
  uint32_t next_token;
  uint32_t has_sampling;
  uint32_t has_mask;
  float temperature;
  uint32_t top_k;
  float top_p;
  float min_p;
  float repetition_penalty;
  float frequency_penalty;
  float presence_penalty;
  uint32_t logprobs;
  uint64_t seed;
  uint32_t prompt_tokens;
  uint32_t min_tokens;
  uint32_t stop_id_count;
  uint32_t logit_bias_count;
  uint32_t history_count;
  uint32_t reserved;
};

struct AdapterBody {
  uint64_t adapter;
  float scale;
  uint32_t path_length;
};

void CopyIn(std::span<std::byte> ring, uint64_t at, const std::byte* from, size_t size) {
  const size_t offset = at & (ring.size() - 1);
  const size_t first = std::min(size, ring.size() - offset);
  std::memcpy(ring.data() + offset, from, first);
  std::memcpy(ring.data(), from + first, size - first);
}

void CopyOut(std::span<const std::byte> ring, uint64_t at, std::byte* to, size_t size) {
  const size_t offset = at & (ring.size() - 1);
  const size_t first = std::min(size, ring.size() - offset);
  std::memcpy(to, ring.data() + offset, first);
  std::memcpy(to + first, ring.data(), size - first);
}

// Takes arrays off a record whose lengths are not to be trusted.
class Parser {
 public:
  explicit Parser(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <typename T>
  bool Take(T* value) {
    if (bytes_.size() < sizeof(T)) return false;
    std::memcpy(static_cast<void*>(value), bytes_.data(), sizeof(T));
    bytes_ = bytes_.subspan(sizeof(T));
    return true;
  }
  // All elements are of 4 bytes and so stay aligned.
  template <typename T>
  bool TakeArray(uint64_t count, const T** array) {
    static_assert(sizeof(T) % 4 == 0 && alignof(T) <= 4);
    if (count > bytes_.size() / sizeof(T)) return false;
    *array = count == 0 ? nullptr : reinterpret_cast<const T*>(bytes_.data());
    bytes_ = bytes_.subspan(count * sizeof(T));
    return true;
  }
  std::span<const std::byte> rest() const { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace

uint64_t LongestOrderBytes(const reticle_capabilities& capabilities) {
  return 4096 + sizeof(OrderHeader) + sizeof(WorkBody) +
         4 * (uint64_t{capabilities.max_prefill_chunk} + capabilities.max_stop_ids +
              capabilities.context_limit) +
         8 * uint64_t{capabilities.vocab_size} + capabilities.vocab_size / 8;
}

// ---- Host ----

void OrderWriter::Append(const void* bytes, size_t size) {
  if (size == 0) return;
  const size_t at = buffer_.size();
  buffer_.resize(at + size);
  std::memcpy(buffer_.data() + at, bytes, size);
}

bool OrderWriter::WriteWork(const reticle_work& work, const reticle_sampling* sampling,
                            uint32_t vocab_size, int64_t now_ns) {
  WorkBody body{};
  body.tag = work.tag;
  body.adapter = work.adapter;
  body.flags = work.flags;
  body.position = work.position;
  body.token_count = work.token_count;
  body.decode_credits = work.decode_credits;
  body.prompt_logprobs = work.prompt_logprobs;
  body.next_token = work.next_token;
  body.has_mask = work.token_mask != nullptr ? 1 : 0;
  if (sampling != nullptr) {
    body.has_sampling = 1;
    body.temperature = sampling->temperature;
    body.top_k = sampling->top_k;
    body.top_p = sampling->top_p;
    body.min_p = sampling->min_p;
    body.repetition_penalty = sampling->repetition_penalty;
    body.frequency_penalty = sampling->frequency_penalty;
    body.presence_penalty = sampling->presence_penalty;
    body.logprobs = sampling->logprobs;
    body.seed = sampling->seed;
    body.prompt_tokens = sampling->prompt_tokens;
    body.min_tokens = sampling->min_tokens;
    body.stop_id_count = sampling->stop_id_count;
    body.logit_bias_count = sampling->logit_bias_count;
    body.history_count = sampling->history != nullptr ? sampling->history_count : 0;
  }
  buffer_.clear();
  buffer_.resize(sizeof(OrderHeader));
  Append(&body, sizeof(body));
  Append(work.tokens, size_t{work.token_count} * sizeof(uint32_t));
  if (sampling != nullptr) {
    Append(sampling->stop_ids, size_t{body.stop_id_count} * sizeof(uint32_t));
    Append(sampling->logit_bias, size_t{body.logit_bias_count} * sizeof(reticle_logit_bias));
    Append(sampling->history, size_t{body.history_count} * sizeof(uint32_t));
  }
  if (work.token_mask != nullptr) {
    Append(work.token_mask, size_t{(vocab_size + 31) / 32} * sizeof(uint32_t));
  }
  return Write(OrderKind::kWork, work.sequence, now_ns);
}

bool OrderWriter::WriteCancel(uint64_t sequence, int64_t now_ns) {
  buffer_.clear();
  buffer_.resize(sizeof(OrderHeader));
  return Write(OrderKind::kCancel, sequence, now_ns);
}

bool OrderWriter::WriteAdapter(OrderKind kind, uint64_t adapter, std::string_view path, float scale,
                               int64_t now_ns) {
  const AdapterBody body{adapter, scale, static_cast<uint32_t>(path.size())};
  buffer_.clear();
  buffer_.resize(sizeof(OrderHeader));
  Append(&body, sizeof(body));
  Append(path.data(), path.size());
  return Write(kind, 0, now_ns);
}

bool OrderWriter::Write(OrderKind kind, uint64_t sequence, int64_t now_ns) {
  buffer_.resize((buffer_.size() + kAlign - 1) / kAlign * kAlign);
  const std::span<std::byte> ring = memory_->submissions();
  CardRegisters& registers = memory_->registers();
  const uint64_t head = registers.submission_head.load(std::memory_order_acquire);
  if (head > tail_ || tail_ - head > ring.size()) {
    broken_ = true;
    return false;
  }
  if (buffer_.size() > ring.size() - (tail_ - head)) return false;
  OrderHeader header{};
  header.length = static_cast<uint32_t>(buffer_.size());
  header.number = number_;
  header.kind = static_cast<uint32_t>(kind);
  header.sequence = sequence;
  header.sent_ns = now_ns;
  std::memcpy(buffer_.data(), &header, sizeof(header));
  header.check = CheckWord(buffer_.data(), buffer_.size());
  std::memcpy(buffer_.data(), &header, sizeof(header));
  CopyIn(ring, tail_, buffer_.data(), buffer_.size());
  tail_ += buffer_.size();
  ++number_;
  registers.submission_tail.store(tail_, std::memory_order_seq_cst);
  return true;
}

bool OrderWriter::pending() const {
  return memory_->registers().submission_head.load(std::memory_order_acquire) != tail_;
}

// ---- Card ----

bool OrderReader::pending() const {
  return memory_->registers().submission_tail.load(std::memory_order_acquire) != head_;
}

bool OrderReader::Read(uint32_t vocab_size, Order* order) {
  if (broken_) return false;
  const std::span<const std::byte> ring = memory_->submissions();
  CardRegisters& registers = memory_->registers();
  const uint64_t tail = registers.submission_tail.load(std::memory_order_acquire);
  if (tail == head_) return false;
  const uint64_t there = tail - head_;
  broken_ = true;  // until the record has proved to be good
  if (tail < head_ || there > ring.size() || there < sizeof(OrderHeader)) return false;
  OrderHeader header{};
  CopyOut(ring, head_, reinterpret_cast<std::byte*>(&header), sizeof(header));
  if (header.length < sizeof(header) || header.length > there || header.length % kAlign != 0) {
    return false;
  }
  buffer_.resize(header.length);
  CopyOut(ring, head_, buffer_.data(), header.length);
  // The length that was checked counts, whatever the ring says by now.
  OrderHeader unchecked = header;
  unchecked.check = 0;
  std::memcpy(buffer_.data(), &unchecked, sizeof(unchecked));
  if (header.number != number_ || CheckWord(buffer_.data(), buffer_.size()) != header.check) {
    return false;
  }
  order->kind = static_cast<OrderKind>(header.kind);
  order->sequence = header.sequence;
  order->sent_ns = header.sent_ns;
  if (!Parse(vocab_size, order)) return false;
  broken_ = false;
  head_ += header.length;
  ++number_;
  registers.submission_head.store(head_, std::memory_order_release);
  return true;
}

bool OrderReader::Parse(uint32_t vocab_size, Order* order) {
  Parser parser(std::span<const std::byte>(buffer_).subspan(sizeof(OrderHeader)));
  if (order->kind == OrderKind::kCancel) return true;
  if (order->kind == OrderKind::kLoadAdapter || order->kind == OrderKind::kUnloadAdapter) {
    AdapterBody body{};
    if (!parser.Take(&body) || body.path_length > kMaxPath ||
        body.path_length > parser.rest().size()) {
      return false;
    }
    order->adapter = body.adapter;
    order->scale = body.scale;
    order->path = {reinterpret_cast<const char*>(parser.rest().data()), body.path_length};
    return true;
  }
  if (order->kind != OrderKind::kWork) return false;
  WorkBody body{};
  if (!parser.Take(&body)) return false;
  reticle_work& work = order->work;
  work = reticle_work{};
  work.struct_size = sizeof(work);
  work.sequence = order->sequence;
  work.tag = body.tag;
  work.adapter = body.adapter;
  work.flags = body.flags;
  work.position = body.position;
  work.token_count = body.token_count;
  work.decode_credits = body.decode_credits;
  work.prompt_logprobs = body.prompt_logprobs;
  work.next_token = body.next_token;
  if (!parser.TakeArray(body.token_count, &work.tokens)) return false;
  reticle_sampling& sampling = order->sampling;
  sampling = reticle_sampling{};
  if (body.has_sampling != 0) {
    sampling.struct_size = sizeof(sampling);
    sampling.temperature = body.temperature;
    sampling.top_k = body.top_k;
    sampling.top_p = body.top_p;
    sampling.min_p = body.min_p;
    sampling.repetition_penalty = body.repetition_penalty;
    sampling.frequency_penalty = body.frequency_penalty;
    sampling.presence_penalty = body.presence_penalty;
    sampling.logprobs = body.logprobs;
    sampling.seed = body.seed;
    sampling.prompt_tokens = body.prompt_tokens;
    sampling.min_tokens = body.min_tokens;
    sampling.stop_id_count = body.stop_id_count;
    sampling.logit_bias_count = body.logit_bias_count;
    sampling.history_count = body.history_count;
    if (!parser.TakeArray(body.stop_id_count, &sampling.stop_ids) ||
        !parser.TakeArray(body.logit_bias_count, &sampling.logit_bias) ||
        !parser.TakeArray(body.history_count, &sampling.history)) {
      return false;
    }
    work.sampling = &sampling;
  }
  return body.has_mask == 0 || parser.TakeArray((uint64_t{vocab_size} + 31) / 32, &work.token_mask);
}

}  // namespace reticle::backends::hardwired
