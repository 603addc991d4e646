// The two ends of the completion ring.
#ifndef RETICLE_BACKENDS_HARDWIRED_CARD_COMPLETIONS_H_
#define RETICLE_BACKENDS_HARDWIRED_CARD_COMPLETIONS_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/abi/reticle_device.h"
#include "backends/hardwired/card/card_memory.h"

namespace reticle::backends::hardwired {

// The card's end. Keeps what the host has not read, to send it again; what the ring has no room for
// waits here. Not thread-safe.
class CompletionWriter {
 public:
  explicit CompletionWriter(std::shared_ptr<CardMemory> memory);

  // number, check, extra_cells, top_count and message_length of `cell` are filled in. A message is
  // cut to the room that `top` leaves.
  void Push(const CompletionCell& cell, std::span<const reticle_token_logprob> top = {},
            std::string_view message = {});
  // Moves what waits into the ring and answers requests to resend.
  void Flush();
  // The host's index makes no sense; for good.
  bool broken() const { return broken_; }
  // Something became visible to the host since the last call.
  bool TakeNews() { return std::exchange(news_, false); }
  // Bad luck on the link: the next `records` do not arrive as they should; UINT64_MAX: none does.
  void set_link_faults(uint64_t records) { link_faults_ = records; }

 private:
  uint64_t Room();
  void WriteRecord(std::span<const CompletionCell> record);
  void WriteCells(uint64_t at, std::span<const CompletionCell> record);
  void Resend(uint64_t at);

  const std::shared_ptr<CardMemory> memory_;
  std::vector<CompletionCell> sent_;     // what the ring should hold
  std::vector<CompletionCell> waiting_;  // whole records, from waiting_head_ on
  size_t waiting_head_ = 0;
  uint64_t number_ = 0;  // of the next cell to be made
  uint64_t tail_ = 0;    // cells in the ring since the beginning
  uint64_t link_faults_ = 0;
  uint64_t faults_made_ = 0;
  bool broken_ = false;
  bool news_ = false;
};

// A completion as the host reads it. `top` and `message` lead into the reader.
struct ReadCompletion {
  CompletionCell cell;
  std::span<const reticle_token_logprob> top;
  std::string_view message;
};

// The host's end. Not thread-safe.
class CompletionReader {
 public:
  explicit CompletionReader(std::shared_ptr<CardMemory> memory) : memory_(std::move(memory)) {}

  // True: *completion is filled. False: nothing is there, or a record is being resent.
  bool Read(ReadCompletion* completion);
  // The card's index makes no sense, or a record stays bad; for good.
  bool broken() const { return broken_; }
  bool waits_for_resend() const { return resend_ != 0; }
  // Records that were not as they should be.
  uint64_t errors() const { return errors_; }
  // Something is in the ring.
  bool pending() const;

 private:
  bool AskAgain();

  const std::shared_ptr<CardMemory> memory_;
  uint64_t head_ = 0;
  uint64_t errors_ = 0;
  uint64_t resend_ = 0;  // the request that is open
  uint64_t requests_ = 0;
  uint32_t attempts_ = 0;
  bool broken_ = false;
  alignas(8) std::byte extra_[kMaxExtraBytes];
};

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_CARD_COMPLETIONS_H_
