#include "backends/sampling/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "backends/sampling/exp.h"
#include "backends/sampling/philox.h"
#include "base/check.h"
#include "base/status.h"

namespace reticle::backends::sampling {
namespace {

constexpr float kNegativeInfinity = -std::numeric_limits<float>::infinity();
constexpr size_t kMaxBlock = 64;         // logits whose maximum is one entry of block_max_
constexpr size_t kSumBlock = 512;        // weights whose sum is one entry of block_sums_
constexpr uint32_t kNucleusGuess = 256;  // likeliest tokens tried before the whole vocabulary
constexpr size_t kBuckets = 4096;        // of logit distance, for a large nucleus
constexpr float kBucketsPerUnit = kBuckets / 88.0f;  // weights vanish at a distance of 87

// The largest value, -infinity without any; NaN is ignored.
float MaxOf(std::span<const float> values) {
  constexpr size_t kLanes = 16;
  float lanes[kLanes];
  std::fill(lanes, lanes + kLanes, kNegativeInfinity);
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const float value = values[i + lane];
      lanes[lane] = value > lanes[lane] ? value : lanes[lane];
    }
  }
  float max = kNegativeInfinity;
  for (; i < values.size(); ++i) max = values[i] > max ? values[i] : max;
  for (const float lane : lanes) max = lane > max ? lane : max;
  return max;
}

// The maximum of each block of kMaxBlock values; returns the maximum of all.
float FillBlockMax(std::span<const float> values, std::vector<float>& block_max) {
  for (size_t block = 0; block < block_max.size(); ++block) {
    const size_t begin = block * kMaxBlock;
    block_max[block] = MaxOf(values.subspan(begin, std::min(kMaxBlock, values.size() - begin)));
  }
  return MaxOf(block_max);
}

float WeightOf(float logit, float max, float temperature) {
  return ExpOfNonPositive(logit == max ? 0.0f : (logit - max) / temperature);
}

void FillWeights(std::span<const float> logits, float max, float temperature,
                 std::vector<float>& weights) {
  const float* from = logits.data();
  float* to = weights.data();
  for (size_t i = 0; i < logits.size(); ++i) to[i] = WeightOf(from[i], max, temperature);
}

// Eight interleaved partial sums, added in order: a fixed order that vectorises.
double SumOf(std::span<const float> values) {
  constexpr size_t kLanes = 8;
  double lanes[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += values[i + lane];
  }
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  for (; i < values.size(); ++i) sum += values[i];
  return sum;
}

size_t BucketOf(float logit, float max, float temperature) {
  const float distance = logit == max ? 0.0f : (max - logit) / temperature;
  return std::min(kBuckets - 1, static_cast<size_t>(distance * kBucketsPerUnit));
}

constexpr auto kLikelier = [](const auto& a, const auto& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
};

}  // namespace

Sampler::Sampler(uint32_t vocab_size)
    : vocab_size_(vocab_size),
      adjusted_(vocab_size),
      weights_(vocab_size),
      block_sums_((vocab_size + kSumBlock - 1) / kSumBlock),
      block_max_((vocab_size + kMaxBlock - 1) / kMaxBlock),
      block_max_sorted_(block_max_.size()),
      bucket_sums_(kBuckets) {}

absl::StatusOr<SampledToken> Sampler::Sample(std::span<const float> logits,
                                             const SequenceSampling& sequence, uint32_t position,
                                             const uint32_t* token_mask) {
  RETICLE_CHECK(logits.size() == vocab_size_);
  const reticle_sampling& params = sequence.params();
  const std::span<const float> adjusted = Adjust(logits, sequence, position, token_mask);
  const float max = FillBlockMax(adjusted, block_max_);
  if (max == kNegativeInfinity) {
    return FailedPreconditionError(
        "no token is left to sample at position %u: the logits are not numbers, or logit_bias, "
        "token_mask and min_tokens together exclude all %u",
        position, vocab_size_);
  }
  uint32_t token = 0;
  if (params.temperature > 0) {
    token = Draw(adjusted, params, position);
  } else {
    const size_t block = std::find(block_max_.begin(), block_max_.end(), max) - block_max_.begin();
    const auto begin = adjusted.begin() + block * kMaxBlock;
    token = static_cast<uint32_t>(std::find(begin, adjusted.end(), max) - adjusted.begin());
  }
  SampledToken sampled;
  if (params.logprobs > 0) sampled = Score(logits, token, params.logprobs - 1);
  sampled.token = token;
  sampled.is_stop_id = sequence.IsStopId(token);
  return sampled;
}

SampledToken Sampler::Score(std::span<const float> logits, uint32_t token, uint32_t top_count) {
  RETICLE_CHECK(logits.size() == vocab_size_ && token < vocab_size_);
  const float max = FillBlockMax(logits, block_max_);
  FillWeights(logits, max, 1.0f, weights_);
  const double log_total = std::log(SumWeights());
  const auto logprob = [&](float logit) {
    return logit == max ? static_cast<float>(-log_total)
                        : static_cast<float>(static_cast<double>(logit) - max - log_total);
  };
  const float chosen = logits[token];
  uint32_t likelier = 0;
  for (const float logit : logits) likelier += logit > chosen ? 1 : 0;
  for (uint32_t i = 0; i < token; ++i) likelier += logits[i] == chosen ? 1 : 0;
  top_.clear();
  if (top_count > 0) {
    SelectTop(logits, top_count);
    std::sort(candidates_.begin(), candidates_.end(), kLikelier);
    for (const Candidate& candidate : candidates_) {
      top_.push_back({candidate.token, logprob(candidate.logit)});
    }
  }
  SampledToken scored;
  scored.token = token;
  scored.logprob = logprob(chosen);
  scored.rank = likelier + 1;
  scored.top = top_;
  return scored;
}

std::span<const float> Sampler::Adjust(std::span<const float> logits,
                                       const SequenceSampling& sequence, uint32_t position,
                                       const uint32_t* token_mask) {
  const reticle_sampling& params = sequence.params();
  const bool ban_stop_ids = !sequence.stop_ids().empty() && sequence.StopIdsBanned(position);
  if (sequence.logit_bias().empty() && token_mask == nullptr && !ban_stop_ids &&
      !sequence.has_penalties()) {
    return logits;
  }
  if (token_mask == nullptr) {
    std::copy(logits.begin(), logits.end(), adjusted_.begin());
  } else {
    CopyMasked(logits, token_mask);
  }
  for (const reticle_logit_bias& entry : sequence.logit_bias())
    adjusted_[entry.token] += entry.bias;
  if (ban_stop_ids) {
    for (const uint32_t token : sequence.stop_ids()) adjusted_[token] = kNegativeInfinity;
  }
  for (const SequenceSampling::TokenCount& count : sequence.counts()) {
    float& logit = adjusted_[count.token];
    logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    logit -= params.frequency_penalty * static_cast<float>(count.in_output);
    if (count.in_output > 0) logit -= params.presence_penalty;
  }
  return adjusted_;
}

void Sampler::CopyMasked(std::span<const float> logits, const uint32_t* token_mask) {
  std::fill(adjusted_.begin(), adjusted_.end(), kNegativeInfinity);
  for (uint32_t begin = 0; begin < vocab_size_; begin += 32) {
    const uint32_t width = std::min(32u, vocab_size_ - begin);
    uint32_t word = token_mask[begin / 32];
    if (width < 32) word &= (1u << width) - 1;
    if (word == ~0u) {
      std::memcpy(&adjusted_[begin], &logits[begin], 32 * sizeof(float));
      continue;
    }
    for (; word != 0; word &= word - 1) {
      const uint32_t token = begin + std::countr_zero(word);
      adjusted_[token] = logits[token];
    }
  }
}

void Sampler::SelectTop(std::span<const float> logits, uint32_t count) {
  FillBlockMax(logits, block_max_);
  // `count` blocks each hold a value of at least the count-th largest block maximum, so nothing
  // below it can be among the `count` largest.
  float threshold = kNegativeInfinity;
  if (count < block_max_.size()) {
    block_max_sorted_ = block_max_;
    std::nth_element(block_max_sorted_.begin(), block_max_sorted_.begin() + (count - 1),
                     block_max_sorted_.end(), std::greater<>());
    threshold = block_max_sorted_[count - 1];
  }
  candidates_.clear();
  for (size_t block = 0; block < block_max_.size(); ++block) {
    if (block_max_[block] < threshold || block_max_[block] == kNegativeInfinity) continue;
    const size_t end = std::min<size_t>((block + 1) * kMaxBlock, vocab_size_);
    for (size_t i = block * kMaxBlock; i < end; ++i) {
      if (logits[i] >= threshold && logits[i] > kNegativeInfinity) {
        candidates_.push_back({logits[i], static_cast<uint32_t>(i), 0});
      }
    }
  }
  if (candidates_.size() > count) {
    std::nth_element(candidates_.begin(), candidates_.begin() + count, candidates_.end(),
                     kLikelier);
    candidates_.resize(count);
  }
}

uint32_t Sampler::Draw(std::span<const float> logits, const reticle_sampling& params,
                       uint32_t position) {
  const double uniform = UniformAt(params.seed, position);
  const float max = MaxOf(block_max_);
  const bool few = params.top_k > 0 && params.top_k < vocab_size_;
  double total = 0;
  if (!few) {
    FillWeights(logits, max, params.temperature, weights_);
    total = SumWeights();
  }
  if (few || params.top_p < 1) {
    SelectTop(logits, few ? params.top_k : kNucleusGuess);
    std::sort(candidates_.begin(), candidates_.end(), kLikelier);
    double candidate_total = 0;
    for (Candidate& candidate : candidates_) {
      candidate.weight = WeightOf(candidate.logit, max, params.temperature);
      candidate_total += candidate.weight;
    }
    if (few) total = candidate_total;
    const bool inside = params.top_p >= 1 || CutToNucleus(params.top_p, total);
    if (few || inside) {
      std::erase_if(candidates_, [&](const Candidate& c) { return c.weight < params.min_p; });
      return DrawFromCandidates(uniform);
    }
    ZeroOutsideNucleus(logits, max, params);
  }
  if (params.min_p > 0) {
    for (float& weight : weights_) weight = weight < params.min_p ? 0.0f : weight;
  }
  return DrawFromWeights(uniform);
}

bool Sampler::CutToNucleus(float top_p, double total) {
  const double target = top_p * total;
  double sum = 0;
  for (size_t i = 0; i < candidates_.size(); ++i) {
    sum += candidates_[i].weight;
    if (sum >= target) {
      candidates_.resize(i + 1);
      return true;
    }
  }
  return false;
}

void Sampler::ZeroOutsideNucleus(std::span<const float> logits, float max,
                                 const reticle_sampling& params) {
  std::fill(bucket_sums_.begin(), bucket_sums_.end(), 0.0);
  double total = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (weights_[i] == 0) continue;
    bucket_sums_[BucketOf(logits[i], max, params.temperature)] += weights_[i];
  }
  for (const double sum : bucket_sums_) total += sum;
  const double target = params.top_p * total;
  size_t border = 0;
  double sum = 0;
  while (border + 1 < kBuckets && sum + bucket_sums_[border] < target) {
    sum += bucket_sums_[border++];
  }
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (weights_[i] == 0) continue;
    const size_t bucket = BucketOf(logits[i], max, params.temperature);
    if (bucket > border) weights_[i] = 0;
    if (bucket == border) candidates_.push_back({logits[i], static_cast<uint32_t>(i), weights_[i]});
  }
  std::sort(candidates_.begin(), candidates_.end(), kLikelier);
  for (const Candidate& candidate : candidates_) {
    if (sum >= target) weights_[candidate.token] = 0;
    sum += candidate.weight;
  }
}

uint32_t Sampler::DrawFromCandidates(double uniform) {
  std::sort(candidates_.begin(), candidates_.end(),
            [](const Candidate& a, const Candidate& b) { return a.token < b.token; });
  double total = 0;
  for (const Candidate& candidate : candidates_) total += candidate.weight;
  const double target = uniform * total;
  double sum = 0;
  uint32_t last = candidates_.front().token;
  for (const Candidate& candidate : candidates_) {
    if (candidate.weight == 0) continue;
    sum += candidate.weight;
    last = candidate.token;
    if (sum > target) break;
  }
  return last;
}

uint32_t Sampler::DrawFromWeights(double uniform) {
  const double target = uniform * SumWeights();
  double sum = 0;         // of the weights before last_block
  double next_sum = 0;    // and with it
  size_t last_block = 0;  // with a weight in it
  for (size_t block = 0; block < block_sums_.size() && next_sum <= target; ++block) {
    if (block_sums_[block] == 0) continue;
    last_block = block;
    sum = next_sum;
    next_sum += block_sums_[block];
  }
  const size_t end = std::min<size_t>((last_block + 1) * kSumBlock, vocab_size_);
  size_t last = 0;
  for (size_t i = last_block * kSumBlock; i < end; ++i) {
    if (weights_[i] == 0) continue;
    sum += weights_[i];
    last = i;
    if (sum > target) break;
  }
  return static_cast<uint32_t>(last);
}

double Sampler::SumWeights() {
  double total = 0;
  for (size_t block = 0; block < block_sums_.size(); ++block) {
    const size_t begin = block * kSumBlock;
    block_sums_[block] =
        SumOf(std::span(weights_).subspan(begin, std::min<size_t>(kSumBlock, vocab_size_ - begin)));
    total += block_sums_[block];
  }
  return total;
}

}  // namespace reticle::backends::sampling
