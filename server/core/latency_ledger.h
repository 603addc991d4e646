// What the server adds to each token of a stream: the time between the device having it and its
// bytes being handed to the socket, and where it went.
#ifndef RETICLE_SERVER_CORE_LATENCY_LEDGER_H_
#define RETICLE_SERVER_CORE_LATENCY_LEDGER_H_

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace reticle::server {

enum class LatencyStage : uint8_t {
  kPoll,      // on the device, until the engine has polled it
  kWake,      // in the engine, until the connection's thread is told
  kHandOver,  // until that thread takes it; also the wait for a client that is behind
  kFrame,     // detokenising, stop strings, JSON
  kWrite,     // until the socket has taken the bytes
};
inline constexpr size_t kLatencyStages = 5;
// "poll", "wake", "hand_over", "frame", "write".
std::string_view LatencyStageName(LatencyStage stage);

// The added latency of a number of tokens.
struct AddedLatency {
  // Four buckets for each doubling from 1,024 ns on; the last is for all above.
  static constexpr int kFirstOctave = 10;
  static constexpr int kOctaves = 22;
  static constexpr size_t kBuckets = 1 + 4 * kOctaves + 1;

  static size_t Bucket(int64_t ns) {
    if (ns < int64_t{1} << kFirstOctave) return 0;
    const int octave = std::bit_width(static_cast<uint64_t>(ns)) - 1;
    if (octave >= kFirstOctave + kOctaves) return kBuckets - 1;
    return 1 + 4 * static_cast<size_t>(octave - kFirstOctave) +
           ((static_cast<uint64_t>(ns) >> (octave - 2)) & 3);
  }
  // Its upper bound, ns; of any bucket but the last.
  static int64_t UpperBound(size_t bucket) {
    if (bucket == 0) return int64_t{1} << kFirstOctave;
    const int octave = kFirstOctave + static_cast<int>((bucket - 1) / 4);
    return static_cast<int64_t>(4 + (bucket - 1) % 4 + 1) << (octave - 2);
  }

  std::string_view device;  // the group of cards that they came from; valid during the call
  uint64_t tokens = 0;
  int64_t total_ns = 0;
  std::array<int64_t, kLatencyStages> stage_ns{};  // their sum is total_ns
  std::array<uint32_t, kBuckets> buckets{};        // of tokens, by their sum over the stages
};

class ServerProbe;

// One stream's ledger. Times are ns on the server's clock. Used by one thread at a time; allocates
// only until it has room for all tokens that wait for the socket at once.
class LatencyLedger {
 public:
  // `device`: the group of cards that the tokens come from; must outlive the ledger.
  explicit LatencyLedger(std::string_view device = {}) : device_(device) {}

  // A token was taken from the engine's ring at `taken_ns`, whose wake-up was sent at `woken_ns`
  // (0: none was).
  void OnTaken(int64_t device_ns, int64_t ready_ns, int64_t woken_ns, int64_t taken_ns);
  // What was taken since the last call is framed.
  void OnFramed(int64_t framed_ns);
  // All that was framed is the socket's. Tells `probe` now and then.
  void OnHandedOver(int64_t now_ns, ServerProbe& probe);
  // Tells the rest.
  void Flush(ServerProbe& probe);

 private:
  const std::string_view device_;
  AddedLatency done_;
  int64_t told_ns_ = 0;
  // Of what was taken and not handed over: the devices' times, and the stages so far.
  std::vector<int64_t> waiting_;
  uint64_t crowd_ = 0;  // tokens beyond those, when a client is far behind, and the sum of theirs
  int64_t crowd_sum_ns_ = 0;
  std::array<int64_t, kLatencyStages> waiting_ns_{};
  int64_t unframed_ = 0;  // tokens of it, and the sum of the times at which they were taken
  int64_t taken_sum_ns_ = 0;
};

}  // namespace reticle::server

#endif  // RETICLE_SERVER_CORE_LATENCY_LEDGER_H_
