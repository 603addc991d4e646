// The firmware of a card: takes orders off the submission ring, lets device time pass as the
// profile says, and puts completions on the completion ring.
//
// A plain object that somebody steps: the host's own calls (inline), a thread, or a card process.
//
//   firmware.Step(now_ns);           // does what is due
//   firmware.next_event_ns();        // when to step again at the latest
//
// Time. Device time is the host's clock less what the emulation is behind (wall clock), or
// simulated time. Every completion has its deadline in device time; deadlines follow from one
// another, never from when somebody looked, so lateness does not add up. Content that computes is
// computed as early as possible (Options::computes_ahead) and shown at its deadline. When the host
// computes more slowly than the device, the clock of the device is held back (stretched) by as much
// as computing made completions late.
#ifndef RETICLE_BACKENDS_HARDWIRED_CARD_FIRMWARE_H_
#define RETICLE_BACKENDS_HARDWIRED_CARD_FIRMWARE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "backends/abi/reticle_device.h"
#include "backends/hardwired/card/card_memory.h"
#include "backends/hardwired/card/completions.h"
#include "backends/hardwired/card/content.h"
#include "backends/hardwired/card/fault.h"
#include "backends/hardwired/card/orders.h"
#include "backends/hardwired/card/stream.h"
#include "backends/hardwired/profiles/profile.h"
#include "backends/hardwired/timing/energy_meter.h"
#include "backends/hardwired/timing/timing_model.h"

namespace reticle::backends::hardwired {

// Not thread-safe: one thread steps it.
class Firmware {
 public:
  struct Options {
    reticle_capabilities capabilities;
    // top_k of the device's own sampler, 0: any. What is wider costs the host's sampling time.
    uint32_t device_top_k = 0;
    // Computes tokens before they are due. Off: when they are due, within Step.
    bool computes_ahead = false;
    // Wall clock: computing that takes longer than the device stretches device time.
    bool stretches = false;
    int64_t scrub_ns = 0;  // how often the image's seal is checked; 0: never
    // The host's clock, for the cost of computing; empty: content does not compute.
    std::function<int64_t()> now_ns;
    // Called after something became visible while the host had armed its event.
    std::function<void()> notify_host;
  };

  // `content` must outlive it.
  Firmware(Options options, const Profile& profile, const TimingModel& timing, Content& content,
           std::shared_ptr<CardMemory> memory);
  Firmware(const Firmware&) = delete;
  Firmware& operator=(const Firmware&) = delete;

  // Does what is due at `now_ns`; with computes_ahead also the next bit of computing. Returns
  // whether it did anything. Allocates nothing in the steady state.
  bool Step(int64_t now_ns);
  // On the clock of Step: when something will be due; INT64_MAX: not before an order comes.
  // INT64_MIN: there is something to compute.
  int64_t next_event_ns() const;
  // An injected crash: nothing will ever happen again.
  bool gone() const { return gone_; }
  // An injected hang: only a restart helps.
  bool hung() const { return hung_; }
  bool idle() const { return streams_.empty(); }

 private:
  // ---- Orders
  bool ReadOrders(int64_t now_ns);
  void TakeWork(const Order& order, int64_t now_ns);
  CardStream* Begin(const reticle_work& work);
  void Queue(CardStream& stream, const reticle_work& work, DeviceTime arrival);
  void TakeAdapterOrder(const Order& order);
  bool SampledOnHost(const reticle_sampling& sampling) const;

  // ---- Time
  DeviceTime DeviceNow(int64_t now_ns) const;
  // Device time since the card was started, as its registers tell it.
  int64_t Uptime(int64_t now_ns) const { return DeviceNow(now_ns).nanos() - start_ns_; }
  DeviceLoad Load() const;
  DeviceTime Paced(DeviceTime time) const;
  DeviceTime SwapTime(const CardStream& stream);
  void StartItem(CardStream& stream, DeviceTime at);
  void StartDecode(CardStream& stream, DeviceTime at);
  void Schedule(CardStream& stream, CardStream::Phase phase, DeviceTime due);
  void Unschedule(CardStream& stream);
  void SetPhase(CardStream& stream, CardStream::Phase phase, DeviceTime at);
  // What comes after an event of the stream: queued items, credits, or rest.
  void GoOn(CardStream& stream, DeviceTime at);

  // ---- Events
  bool RunEvents(int64_t now_ns);
  CardStream* NextToCompute(DeviceTime now) const;
  void Compute(CardStream& stream);
  void ComputeItem(CardStream& stream);
  void ComputeToken(CardStream& stream);
  bool FeedOwnToken(CardStream& stream);
  void SampleInto(CardStream& stream);
  void Publish(CardStream& stream, DeviceTime at);
  void PublishToken(CardStream& stream, DeviceTime at);
  void Stretch(int64_t now_ns, DeviceTime due);
  bool Visible(const CardStream& stream, DeviceTime now) const;

  // ---- Completions
  CompletionCell CellFor(CardStream& stream, uint8_t kind, DeviceTime at);
  void End(CardStream& stream, uint32_t finish, int32_t status, std::string_view message,
           DeviceTime at);
  void Refuse(uint64_t sequence, uint64_t tag, const absl::Status& status, DeviceTime at);
  void Release(CardStream& stream);

  // ---- Faults and sensors
  void TakeFaults(int64_t now_ns);
  void Apply(const FaultSpec& fault, int64_t now_ns);
  void SetPace();
  void Scrub(int64_t now_ns);
  void Fail(CardFailure failure);
  void ShowStatus(int64_t now_ns);

  const Options options_;
  const TimingModel timing_;
  Content& content_;
  const std::shared_ptr<CardMemory> memory_;
  CardRegisters& registers_;
  OrderReader orders_;
  CompletionWriter completions_;
  EnergyMeter meter_;
  Order order_;  // scratch

  absl::flat_hash_map<uint64_t, CardStream*> streams_;
  std::vector<std::unique_ptr<CardStream>> pool_;
  std::vector<CardStream*> free_;
  std::vector<uint32_t> free_slots_;
  std::vector<CardStream*> heap_;  // scheduled ones, the earliest first
  uint64_t next_order_ = 0;
  uint32_t decoding_ = 0;
  uint32_t prefilling_ = 0;
  uint32_t prefill_tokens_ = 0;  // of the prompt that was started last
  DeviceTime prefill_free_;      // batched: when the prompts in turn are done
  uint64_t kv_tokens_ = 0;
  uint64_t current_adapter_ = 0;

  uint32_t bit_tokens_ = 64;  // of a prompt that are computed at once; follows the host's speed
  bool started_ = false;
  int64_t start_ns_ = 0;  // device time of the first step
  int64_t stretch_ns_ = 0;
  int64_t compute_debt_ns_ = 0;  // computing since the firmware was last on time

  uint64_t faults_seen_ = 0;
  double slow_ = 1;
  double thermal_ = 1;
  uint64_t pace_ = 1024;  // times are multiplied by pace_ / 1024
  int64_t fault_end_ns_ = INT64_MAX;
  int64_t next_scrub_ns_ = 0;
  int64_t next_show_ns_ = 0;
  bool image_is_corrupt_ = false;
  bool hung_ = false;
  bool gone_ = false;
  bool failed_ = false;

  uint64_t prefill_tokens_total_ = 0;
  uint64_t decode_tokens_total_ = 0;
  uint64_t steps_ = 0;
  uint64_t adapter_swaps_ = 0;
};

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_CARD_FIRMWARE_H_
