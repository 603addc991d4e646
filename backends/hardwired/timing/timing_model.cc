#include "backends/hardwired/timing/timing_model.h"

#include <algorithm>

#include "base/status.h"

namespace reticle::backends::hardwired {
namespace {

constexpr long double kNanosPerSecond = 1e9L;

DeviceTime Micros(const Quantity& quantity) {
  return DeviceTime::FromNanos(static_cast<long double>(quantity.simulated_or(0)) * 1000.0L);
}

DeviceTime IntervalOf(double rate) {
  return DeviceTime::FromNanos(kNanosPerSecond / static_cast<long double>(rate));
}

absl::StatusOr<double> Need(const Profile& profile, Key key) {
  if (const std::optional<double> value = profile[key].simulated()) return *value;
  return InvalidArgumentError("profile %s: %s is unknown; a profile that is %s needs it",
                              profile.name, InfoOf(key).name, BatchingName(profile.batching));
}

}  // namespace

absl::StatusOr<TimingModel> TimingModel::Create(const Profile& profile) {
  TimingModel model;
  model.batching_ = profile.batching;
  if (profile.batching == Batching::kUnlimited) {
    model.pipeline_depth_ = static_cast<uint32_t>(profile[Key::kMaxSequences].simulated_or(1));
    return model;
  }
  ASSIGN_OR_RETURN(const double rate, Need(profile, Key::kDecodeRate));
  model.token_ = IntervalOf(rate);
  if (profile.batching == Batching::kBatched) {
    ASSIGN_OR_RETURN(const double aggregate, Need(profile, Key::kAggregateRate));
    if (aggregate < rate) {
      return InvalidArgumentError(
          "profile %s: timing.aggregate_rate is %g; it must be at least timing.decode_rate, %g",
          profile.name, aggregate, rate);
    }
    model.token_of_each_ = IntervalOf(aggregate);
    model.token_ = model.token_ - model.token_of_each_;
  }
  model.pipeline_depth_ = static_cast<uint32_t>(profile[Key::kPipelineDepth].simulated_or(1));
  model.prefill_chunk_ = static_cast<uint32_t>(profile[Key::kPrefillChunk].simulated_or(512));
  model.context_term_ =
      DeviceTime::FromNanos(static_cast<long double>(profile[Key::kContextTerm].simulated_or(0)));
  model.prefill_fixed_ = Micros(profile[Key::kPrefillFixed]);
  model.prefill_per_token_ = Micros(profile[Key::kPrefillPerToken]);
  model.adapter_swap_ = Micros(profile[Key::kAdapterSwap]);
  model.link_latency_ = Micros(profile[Key::kLinkLatency]);
  model.host_sampling_ = Micros(profile[Key::kHostSampling]) + model.link_latency_ * 2;
  return model;
}

DeviceTime TimingModel::DecodeInterval(const DeviceLoad& load, uint32_t position) const {
  switch (batching_) {
    case Batching::kUnlimited:
      break;
    case Batching::kPipelined: {
      const DeviceTime alone = token_ + context_term_ * position;
      const uint32_t streams = load.streams();
      return streams <= pipeline_depth_ ? alone : alone * streams / pipeline_depth_;
    }
    case Batching::kBatched:
      return token_ + token_of_each_ * std::max(load.decoding, 1u) + context_term_ * position +
             prefill_per_token_ * std::min(load.prefill_tokens, prefill_chunk_);
  }
  return DeviceTime();
}

DeviceTime TimingModel::PrefillTime(const DeviceLoad& load, uint32_t position,
                                    uint32_t tokens) const {
  if (tokens == 1 && position > 0) {
    DeviceLoad step = load;
    step.decoding += batching_ == Batching::kBatched ? 1 : 0;
    return DecodeInterval(step, position);
  }
  DeviceTime time = prefill_per_token_ * tokens;
  if (position == 0) time += prefill_fixed_;
  switch (batching_) {
    case Batching::kUnlimited:
      return DeviceTime();
    case Batching::kPipelined: {
      const uint32_t streams = load.streams();
      return streams <= pipeline_depth_ ? time : time * streams / pipeline_depth_;
    }
    case Batching::kBatched:
      break;
  }
  const uint32_t steps = (tokens + prefill_chunk_ - 1) / prefill_chunk_;
  return time + (token_ + token_of_each_ * std::max(load.decoding, 1u)) * steps;
}

double TimingModel::Activity(uint32_t streams) const {
  if (streams == 0) return 0;
  if (batching_ != Batching::kPipelined) return 1;
  return std::min(1.0, static_cast<double>(streams) / pipeline_depth_);
}

double TimingModel::PerUserRate(uint32_t streams) const {
  const DeviceTime interval = DecodeInterval({std::max(streams, 1u), 0, 0}, 0);
  return interval.is_zero() ? 0 : static_cast<double>(kNanosPerSecond) / interval.nanos_as_double();
}

double TimingModel::AggregateRate(uint32_t streams) const {
  return PerUserRate(streams) * std::max(streams, 1u);
}

}  // namespace reticle::backends::hardwired
