// The memory that host and card share: registers, submission ring, completion ring.
//
//   registers     capabilities, doorbells, status, sensors, the fault port
//   submissions   a byte ring of orders (orders.h); the host writes, the card reads
//   completions   a ring of 128-byte cells (CompletionCell); the card writes, the host reads
//
// The layout is fixed and versioned. Neither side believes the other: every index is checked
// against a private copy, every record is copied out before it is looked at, every length is
// bounded. So a corrupted peer can break the link, which both report, but not crash the other side.
//
// Orders and completions carry consecutive numbers and a check word. A completion that does not
// match is asked for again (resend_*), like a retransmission on a link.
#ifndef RETICLE_BACKENDS_HARDWIRED_CARD_CARD_MEMORY_H_
#define RETICLE_BACKENDS_HARDWIRED_CARD_CARD_MEMORY_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "backends/abi/reticle_device.h"

namespace reticle::backends::hardwired {

inline constexpr uint32_t kCardMagic = 0x44435452;  // "RTCD"
inline constexpr uint32_t kCardVersion = 1;
inline constexpr uint32_t kFaultSlots = 8;

// Bits of CardRegisters::flags.
inline constexpr uint32_t kCardReplays = 1;
inline constexpr uint32_t kCardHasVirtualClock = 2;

// Values of CardRegisters::state.
enum class CardState : uint32_t {
  kBooting = 0,
  kRunning = 1,
  kFailed = 2,  // stopped by an error; `failure` says which
  kGone = 3     // the firmware ended
};

// Values of CardRegisters::failure.
enum class CardFailure : uint32_t {
  kNone = 0,
  kMemory = 1,  // uncorrected memory error
  kImage = 2,   // the image's seal does not match
  kLink = 3     // the host's side of the rings makes no sense
};

struct FaultSlot {
  std::atomic<uint32_t> kind;
  std::atomic<uint64_t> value_bits;  // of a double
  std::atomic<uint64_t> duration_ns;
};

// Who writes each line is said at its head; the other side only reads.
struct CardRegisters {
  // ---- card, before state leaves kBooting
  uint32_t magic;
  uint32_t version;
  uint64_t submission_bytes;          // a power of two
  uint32_t completion_cells;          // a power of two
  uint32_t flags;                     // kCard*
  reticle_capabilities capabilities;  // event_fd is the host's own matter

  // ---- doorbells
  alignas(64) std::atomic<uint64_t> submission_tail;  // host: bytes written since the beginning
  alignas(64) std::atomic<uint64_t> submission_head;  // card: bytes read
  std::atomic<uint32_t> card_sleeps;  // card: ring its descriptor after a submission
  alignas(64) std::atomic<uint64_t> completion_tail;  // card: cells written
  std::atomic<uint64_t> resent;                       // card: the last resend_request it has served
  alignas(64) std::atomic<uint64_t> completion_head;  // host: cells read
  std::atomic<uint64_t> resend_request;               // host: counts requests
  std::atomic<uint64_t> resend_cell;                  // host: the first cell of the bad record
  alignas(64) std::atomic<uint32_t> armed;            // host sets, card clears: signal at the next
  std::atomic<uint64_t> advance_request;              // host, virtual clock: nothing more to submit
  alignas(64) std::atomic<uint64_t> advanced;  // card: the last advance_request it has served

  // ---- card: status and sensors
  alignas(64) std::atomic<uint32_t> state;
  std::atomic<uint32_t> failure;
  std::atomic<uint64_t> heartbeat;
  std::atomic<int64_t> next_event_ns;  // on the host's clock; INT64_MAX: none
  std::atomic<uint32_t> sequences;
  std::atomic<uint32_t> throttled;       // full speed is 1024
  std::atomic<uint64_t> device_time_ns;  // since the card was started
  std::atomic<uint64_t> busy_ns;
  std::atomic<uint64_t> prefill_tokens;
  std::atomic<uint64_t> decode_tokens;
  std::atomic<uint64_t> steps;
  std::atomic<uint64_t> energy_uj;
  std::atomic<uint64_t> power_mw;
  std::atomic<uint64_t> temperature_mc;
  std::atomic<uint64_t> utilization_ppm;
  std::atomic<uint64_t> stretched_ns;  // by which the emulation is behind the device
  std::atomic<uint64_t> corrected_errors;
  std::atomic<uint64_t> last_corrected_ns;  // on the clock of device_time_ns
  std::atomic<uint64_t> uncorrected_errors;
  std::atomic<uint64_t> adapter_swaps;

  // ---- the fault port (host or operator)
  alignas(64) std::atomic<uint64_t> fault_doorbell;  // faults rung since the beginning
  FaultSlot faults[kFaultSlots];
};
static_assert(std::atomic<uint64_t>::is_always_lock_free);

// One completion, or raw bytes that belong to the one before. Plain data.
struct CompletionCell {
  uint64_t number;  // of this cell since the beginning
  uint32_t check;   // over the record, with this field zero
  uint16_t extra_cells;
  uint8_t kind;  // RETICLE_COMPLETION_* or kAdapterResult
  uint8_t finish;
  uint64_t sequence;
  uint64_t tag;
  uint32_t token;
  uint32_t position;
  uint32_t token_count;
  uint32_t credits_left;
  uint64_t device_time_ns;
  uint64_t busy_ns;
  uint64_t energy_nj;
  float logprob;
  uint32_t rank;
  uint16_t top_count;       // reticle_token_logprob in the extra cells
  uint16_t message_length;  // bytes behind them
  int32_t status;
  uint32_t fed;  // positions that the sequence has in KV memory
  uint32_t reserved[9];
};
static_assert(sizeof(CompletionCell) == 128);
inline constexpr uint8_t kAdapterResult = 200;  // answers an adapter order; status and message
inline constexpr uint32_t kMaxExtraCells = 15;
inline constexpr size_t kMaxExtraBytes = kMaxExtraCells * sizeof(CompletionCell);

// A word over `bytes` that changes when any bit of them does (but for one in 2^32).
uint32_t CheckWord(const void* bytes, size_t size);

// Owns the mapping. The sizes are private copies: what the peer does to the registers later has no
// effect on them.
class CardMemory {
 public:
  // The card's side: new memory, zeroed, in an anonymous file that cannot change its size.
  // `submission_bytes` and `completion_cells` are rounded up to powers of two.
  static absl::StatusOr<std::shared_ptr<CardMemory>> Create(uint64_t submission_bytes,
                                                            uint32_t completion_cells);
  // The host's side, of a card that is past booting. Takes the descriptor. DATA_LOSS when the
  // memory is not what it should be.
  static absl::StatusOr<std::shared_ptr<CardMemory>> Attach(int fd);
  ~CardMemory();
  CardMemory(const CardMemory&) = delete;
  CardMemory& operator=(const CardMemory&) = delete;

  int fd() const { return fd_; }
  CardRegisters& registers() const { return *static_cast<CardRegisters*>(base_); }
  std::span<std::byte> submissions() const;
  std::span<CompletionCell> completions() const;

 private:
  CardMemory(int fd, void* base, size_t size, uint64_t submission_bytes, uint32_t cells)
      : fd_(fd), base_(base), size_(size), submission_bytes_(submission_bytes), cells_(cells) {}

  const int fd_;
  void* const base_;
  const size_t size_;
  const uint64_t submission_bytes_;
  const uint32_t cells_;
};

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_CARD_CARD_MEMORY_H_
