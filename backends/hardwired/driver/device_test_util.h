// A small host for tests and benchmarks of the card's driver: it keeps streams supplied with
// credits and records what comes back.
#ifndef RETICLE_BACKENDS_HARDWIRED_DRIVER_DEVICE_TEST_UTIL_H_
#define RETICLE_BACKENDS_HARDWIRED_DRIVER_DEVICE_TEST_UTIL_H_

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backends/abi/device.h"
#include "backends/hardwired/driver/hardwired_device.h"
#include "base/check.h"

namespace reticle::backends::hardwired {

using OptionList = std::vector<std::pair<std::string, std::string>>;

inline absl::StatusOr<std::unique_ptr<Device>> OpenCard(const OptionList& options,
                                                        uint32_t device_index = 0) {
  DeviceConfig config;
  config.options = options;
  config.device_index = device_index;
  const auto driver = Driver::FromApi(HardwiredDeviceApi());
  RETICLE_CHECK(driver.ok());
  return Device::Open(*driver, config);
}

inline reticle_sampling GreedySampling() {
  reticle_sampling sampling{};
  sampling.struct_size = sizeof(sampling);
  sampling.top_p = 1;
  sampling.repetition_penalty = 1;
  return sampling;
}

// What is kept of a completion.
struct Seen {
  uint64_t sequence = 0;
  uint32_t kind = 0;
  uint32_t finish = 0;
  uint32_t token = 0;
  uint32_t position = 0;
  uint64_t time_ns = 0;
  uint64_t busy_ns = 0;
  uint64_t energy_nj = 0;
  int32_t status = 0;
  bool operator==(const Seen&) const = default;
};

class TestHost {
 public:
  struct Stream {
    uint32_t wanted = 0;
    uint32_t granted = 0;
    uint32_t received = 0;
    uint64_t adapter = 0;
    uint32_t ends = 0;
    uint32_t finish = 0;
    int32_t status = 0;
    uint64_t first_ns = 0;
    uint64_t last_ns = 0;
    std::vector<uint32_t> tokens;
  };

  explicit TestHost(std::unique_ptr<Device> device, bool records = true)
      : device_(std::move(device)), records_(records), completions_(256) {}

  Device& device() { return *device_; }
  const std::map<uint64_t, Stream>& streams() const { return streams_; }
  const Stream& stream(uint64_t id) const { return streams_.at(id); }
  const std::vector<Seen>& seen() const { return seen_; }
  const absl::Status& loss() const { return loss_; }
  void ForgetLoss() { loss_ = absl::OkStatus(); }

  // Begins a stream of `wanted` tokens behind a prompt of `prompt` tokens.
  absl::Status Begin(uint64_t id, uint32_t prompt, uint32_t wanted,
                     const reticle_sampling& sampling = GreedySampling(), uint64_t adapter = 0) {
    std::vector<uint32_t> tokens(prompt);
    for (uint32_t i = 0; i < prompt; ++i) {
      tokens[i] = (i * 7 + static_cast<uint32_t>(id % 31)) % device_->capabilities().vocab_size;
    }
    reticle_sampling with_prompt = sampling;
    with_prompt.prompt_tokens = prompt;
    reticle_work work{};
    work.struct_size = sizeof(work);
    work.sequence = id;
    work.tag = id;
    work.tokens = tokens.data();
    work.token_count = prompt;
    work.decode_credits = std::min(wanted, device_->capabilities().max_decode_credits);
    work.sampling = &with_prompt;
    work.adapter = adapter;
    work.next_token = RETICLE_NO_TOKEN;
    absl::Status refusal;
    if (device_->Submit({&work, 1}, &refusal) == 1) {
      Stream& stream = streams_[id];
      stream.wanted = wanted;
      stream.granted = work.decode_credits;
      stream.adapter = adapter;
      if (!records_) stream.tokens.reserve(wanted);
    }
    return refusal;
  }

  // Polls once and tops up; a stream that has what it wanted is cancelled. Returns completions.
  size_t Poll() {
    const auto count = device_->Poll(completions_);
    if (!count.ok()) {
      loss_ = count.status();
      return 0;
    }
    for (size_t i = 0; i < *count; ++i) OnCompletion(completions_[i]);
    return *count;
  }

  // Polls until every stream has ended or the device is lost.
  void Run() {
    while (loss_.ok() && !AllEnded()) Poll();
  }
  bool AllEnded() const {
    return std::all_of(streams_.begin(), streams_.end(),
                       [](const auto& entry) { return entry.second.ends > 0; });
  }

 private:
  void OnCompletion(const reticle_completion& completion) {
    if (records_) {
      seen_.push_back({completion.sequence, completion.kind, completion.finish, completion.token,
                       completion.position, completion.device_time_ns, completion.busy_ns,
                       completion.energy_nj, completion.status});
    }
    Stream& stream = streams_.at(completion.sequence);
    if (completion.finish != RETICLE_FINISH_NONE) {
      ++stream.ends;
      stream.finish = completion.finish;
      stream.status = completion.status;
    }
    if (completion.kind != RETICLE_COMPLETION_TOKEN) return;
    if (stream.received++ == 0) stream.first_ns = completion.device_time_ns;
    stream.last_ns = completion.device_time_ns;
    stream.tokens.push_back(completion.token);
    if (completion.finish != RETICLE_FINISH_NONE) return;
    if (stream.received == stream.wanted) {
      // Its end may be among the completions that were polled with this one.
      const absl::Status cancelled = device_->Cancel(completion.sequence);
      RETICLE_CHECK(cancelled.ok() || cancelled.code() == absl::StatusCode::kNotFound);
      return;
    }
    const uint32_t most = device_->capabilities().max_decode_credits;
    const uint32_t left = stream.wanted - stream.granted;
    if (left == 0 || completion.credits_left > most / 2) return;
    reticle_work work{};
    work.struct_size = sizeof(work);
    work.sequence = completion.sequence;
    work.tag = completion.sequence;
    work.decode_credits = std::min(left, most - (stream.granted - stream.received));
    work.adapter = stream.adapter;
    absl::Status refusal;
    if (device_->Submit({&work, 1}, &refusal) == 1) stream.granted += work.decode_credits;
  }

  const std::unique_ptr<Device> device_;
  const bool records_;
  std::vector<reticle_completion> completions_;
  std::map<uint64_t, Stream> streams_;
  std::vector<Seen> seen_;
  absl::Status loss_;
};

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_DRIVER_DEVICE_TEST_UTIL_H_
