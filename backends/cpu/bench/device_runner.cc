#include "backends/cpu/bench/device_runner.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <string>

#include "base/clock.h"
#include "base/status.h"

namespace reticle::backends::cpu::bench {
namespace {

constexpr int kPatienceMs = 600'000;

uint64_t Now() { return static_cast<uint64_t>(Clock::Monotonic().NowNanos()); }

reticle_sampling Greedy(uint32_t prompt_tokens) {
  reticle_sampling sampling{};
  sampling.struct_size = sizeof(sampling);
  sampling.top_p = 1.0f;
  sampling.repetition_penalty = 1.0f;
  sampling.prompt_tokens = prompt_tokens;
  return sampling;
}

}  // namespace

ResidentMemory ReadResidentMemory() {
  ResidentMemory memory;
  for (const char* path : {"/proc/self/status", "/proc/self/smaps_rollup"}) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
      unsigned long long kib = 0;
      if (std::sscanf(line.c_str(), "RssAnon: %llu", &kib) == 1) memory.anonymous = kib * 1024;
      if (std::sscanf(line.c_str(), "RssFile: %llu", &kib) == 1) memory.files += kib * 1024;
      if (std::sscanf(line.c_str(), "AnonHugePages: %llu", &kib) == 1) memory.huge = kib * 1024;
      if (std::sscanf(line.c_str(), "RssShmem: %llu", &kib) == 1) {
        memory.shared = kib * 1024;
        memory.files += kib * 1024;
      }
    }
  }
  return memory;
}

absl::StatusOr<std::unique_ptr<DeviceRunner>> DeviceRunner::Open(Driver driver,
                                                                 const DeviceConfig& config) {
  const uint64_t begin = Now();
  ASSIGN_OR_RETURN(std::unique_ptr<Device> device, Device::Open(driver, config));
  const double seconds = static_cast<double>(Now() - begin) * 1e-9;
  if (device->capabilities().kv_mode != RETICLE_KV_HOST_PAGED) {
    return UnimplementedError("device %s keeps its KV by itself; host-paged devices are measured",
                              device->capabilities().device_name);
  }
  return std::unique_ptr<DeviceRunner>(new DeviceRunner(std::move(device), seconds));
}

absl::Status DeviceRunner::Begin(Sequence& sequence, uint32_t position, uint32_t tokens,
                                 uint32_t count) {
  const reticle_capabilities& caps = capabilities();
  const uint32_t end = position + tokens + count;
  if (end > caps.context_limit) {
    return OutOfRangeError("%d positions are measured; the device's context is %d", end,
                           caps.context_limit);
  }
  sequence.id = next_id_++;
  sequence.times.reserve(count);
  const uint32_t blocks = (end + caps.kv_block_tokens - 1) / caps.kv_block_tokens;
  if (next_block_ + blocks > caps.kv_block_count) {
    return ResourceExhaustedError("%d KV blocks are measured; the device has %d",
                                  next_block_ + blocks, caps.kv_block_count);
  }
  for (uint32_t i = 0; i < blocks; ++i) sequence.blocks.push_back(next_block_++);

  std::vector<uint32_t> prompt(tokens);
  for (uint32_t t = 0; t < tokens; ++t) {
    prompt[t] = static_cast<uint32_t>((sequence.id * 7919 + t * 104729) % caps.vocab_size);
  }
  const reticle_sampling sampling = Greedy(position + tokens);
  for (uint32_t fed = 0; fed < tokens;) {
    const uint32_t chunk = std::min(tokens - fed, caps.max_prefill_chunk);
    const bool last = fed + chunk == tokens;
    reticle_work work{};
    work.struct_size = sizeof(work);
    work.sequence = sequence.id;
    work.position = position + fed;
    work.tokens = prompt.data() + fed;
    work.token_count = chunk;
    work.kv_blocks = sequence.blocks.data();
    work.kv_block_count = blocks;
    if (last) {
      work.decode_credits = std::min(count, caps.max_decode_credits);
      work.sampling = &sampling;
      sequence.granted = work.decode_credits;
      sequence.credits_to_grant = count - work.decode_credits;
    }
    absl::Status refusal;
    if (device_->Submit({&work, 1}, &refusal) == 0) return refusal;
    fed += chunk;
  }
  return absl::OkStatus();
}

absl::Status DeviceRunner::TopUp(Sequence& sequence) {
  const uint32_t most = capabilities().max_decode_credits;
  const uint32_t held = sequence.granted - static_cast<uint32_t>(sequence.times.size());
  if (held > most / 2) return absl::OkStatus();
  const uint32_t credits = std::min(sequence.credits_to_grant, most - held);
  if (credits == 0) return absl::OkStatus();
  reticle_work work{};
  work.struct_size = sizeof(work);
  work.sequence = sequence.id;
  work.decode_credits = credits;
  absl::Status refusal;
  if (device_->Submit({&work, 1}, &refusal) == 0) return refusal;
  sequence.credits_to_grant -= credits;
  sequence.granted += credits;
  return absl::OkStatus();
}

absl::StatusOr<size_t> DeviceRunner::WaitForCompletions() {
  const int event = capabilities().event_fd;
  for (;;) {
    ASSIGN_OR_RETURN(const size_t count, device_->Poll(completions_));
    if (count > 0 || event < 0) return count;
    if (device_->Arm()) continue;
    pollfd waited = {.fd = event, .events = POLLIN, .revents = 0};
    const int ready = poll(&waited, 1, kPatienceMs);
    if (ready == 0) {
      return DeadlineExceededError("the device had nothing to say for %d s", kPatienceMs / 1000);
    }
    uint64_t events = 0;
    if (ready > 0 && read(event, &events, sizeof(events)) < 0 && errno != EAGAIN &&
        errno != EINTR) {
      return InternalError("the device's event cannot be read");
    }
  }
}

absl::Status DeviceRunner::RunToEnd(std::vector<Sequence>& sequences, uint32_t count) {
  const uint64_t first_id = sequences.front().id;
  size_t alive = sequences.size();
  while (alive > 0) {
    ASSIGN_OR_RETURN(const size_t found, WaitForCompletions());
    for (size_t i = 0; i < found; ++i) {
      const reticle_completion& completion = completions_[i];
      Sequence& sequence = sequences[completion.sequence - first_id];
      if (completion.kind == RETICLE_COMPLETION_TOKEN) {
        sequence.times.push_back(completion.device_time_ns);
        RETURN_IF_ERROR(TopUp(sequence));
      }
      if (completion.finish == RETICLE_FINISH_ERROR) {
        return InternalError("a sequence ended with an error: %s",
                             completion.message == nullptr ? "" : completion.message);
      }
      if (completion.finish != RETICLE_FINISH_NONE) {
        sequence.ended = true;
        --alive;
      } else if (sequence.times.size() == count && completion.kind == RETICLE_COMPLETION_TOKEN) {
        RETURN_IF_ERROR(device_->Cancel(sequence.id));
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<double> DeviceRunner::Prefill(uint32_t tokens) {
  next_block_ = 0;
  std::vector<Sequence> sequences(1);
  const uint64_t begin = Now();
  RETURN_IF_ERROR(Begin(sequences[0], 0, tokens, 1));
  RETURN_IF_ERROR(RunToEnd(sequences, 1));
  return static_cast<double>(sequences[0].times.front() - begin) * 1e-9;
}

absl::StatusOr<double> DeviceRunner::Decode(uint32_t sequences, uint32_t context, uint32_t tokens) {
  next_block_ = 0;
  std::vector<Sequence> all(sequences);
  for (Sequence& sequence : all) RETURN_IF_ERROR(Begin(sequence, context, 1, tokens));
  RETURN_IF_ERROR(RunToEnd(all, tokens));
  uint64_t from = 0;
  uint64_t to = UINT64_MAX;
  for (const Sequence& sequence : all) {
    from = std::max(from, sequence.times.front());
    to = std::min(to, sequence.times.back());
  }
  uint64_t counted = 0;
  for (const Sequence& sequence : all) {
    counted += static_cast<uint64_t>(
        std::count_if(sequence.times.begin(), sequence.times.end(),
                      [&](uint64_t time) { return time > from && time <= to; }));
  }
  if (to <= from || counted == 0) {
    return InternalError("%d sequences of %d tokens did not decode at the same time", sequences,
                         tokens);
  }
  return static_cast<double>(counted) * 1e9 / static_cast<double>(to - from);
}

}  // namespace reticle::backends::cpu::bench
