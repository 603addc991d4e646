// Orders of the host to the card, and the two ends of the submission ring.
#ifndef RETICLE_BACKENDS_HARDWIRED_CARD_ORDERS_H_
#define RETICLE_BACKENDS_HARDWIRED_CARD_ORDERS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "backends/abi/reticle_device.h"
#include "backends/hardwired/card/card_memory.h"

namespace reticle::backends::hardwired {

enum class OrderKind : uint32_t { kWork = 1, kCancel = 2, kLoadAdapter = 3, kUnloadAdapter = 4 };

// An order that was read. Its pointers lead into the reader's buffer, until the next Read.
struct Order {
  OrderKind kind = OrderKind::kWork;
  uint64_t sequence = 0;
  int64_t sent_ns = 0;  // the host's clock
  reticle_work work{};  // kWork; work.sampling is &sampling or null
  reticle_sampling sampling{};
  uint64_t adapter = 0;  // adapter orders
  float scale = 0;
  std::string_view path;
};

// The host's end. Not thread-safe.
class OrderWriter {
 public:
  explicit OrderWriter(std::shared_ptr<CardMemory> memory) : memory_(std::move(memory)) {}

  // False when the ring has no room (now), or when the card's index makes no sense: then broken().
  // `sampling` stands for work.sampling.
  bool WriteWork(const reticle_work& work, const reticle_sampling* sampling, uint32_t vocab_size,
                 int64_t now_ns);
  bool WriteCancel(uint64_t sequence, int64_t now_ns);
  bool WriteAdapter(OrderKind kind, uint64_t adapter, std::string_view path, float scale,
                    int64_t now_ns);
  bool broken() const { return broken_; }
  // The card has not read all of it.
  bool pending() const;

 private:
  bool Write(OrderKind kind, uint64_t sequence, int64_t now_ns);
  void Append(const void* bytes, size_t size);

  const std::shared_ptr<CardMemory> memory_;
  uint64_t tail_ = 0;
  uint64_t number_ = 0;
  bool broken_ = false;
  std::vector<std::byte> buffer_;  // the record being built
};

// The card's end. Not thread-safe.
class OrderReader {
 public:
  explicit OrderReader(std::shared_ptr<CardMemory> memory) : memory_(std::move(memory)) {}

  // True: *order is filled. False: there is none, or what is there makes no sense: then broken(),
  // for good. `vocab_size` is needed for the length of a mask.
  bool Read(uint32_t vocab_size, Order* order);
  bool broken() const { return broken_; }
  bool pending() const;

 private:
  bool Parse(uint32_t vocab_size, Order* order);

  const std::shared_ptr<CardMemory> memory_;
  uint64_t head_ = 0;
  uint64_t number_ = 0;
  bool broken_ = false;
  std::vector<std::byte> buffer_;
};

// The bytes of the longest order for a device of these limits, rounded up: the ring holds two.
uint64_t LongestOrderBytes(const reticle_capabilities& capabilities);

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_CARD_ORDERS_H_
