#include "loadtest/histogram.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace reticle::loadtest {

// Values below 2^p have a bucket each. From there on every power of two is cut into 2^(p-1)
// buckets: value v is shifted right by s = bits(v) - p and stands at s * 2^(p-1) + (v >> s).
Histogram::Histogram(int precision_bits, int range_bits)
    : precision_bits_(precision_bits),
      half_(size_t{1} << (precision_bits - 1)),
      limit_((int64_t{1} << range_bits) - 1) {
  RETICLE_CHECK(precision_bits >= 1 && precision_bits <= 14);
  RETICLE_CHECK(range_bits >= precision_bits && range_bits <= 62);
  counts_.resize(Index(static_cast<uint64_t>(limit_)) + 1);
}

void Histogram::Merge(const Histogram& other) {
  RETICLE_CHECK(counts_.size() == other.counts_.size() && half_ == other.half_);
  for (size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
  total_ += other.total_;
  sum_ += other.sum_;
  max_ = std::max(max_, other.max_);
  min_ = std::min(min_, other.min_);
}

void Histogram::Clear() {
  std::fill(counts_.begin(), counts_.end(), 0);
  total_ = 0;
  sum_ = 0;
  max_ = 0;
  min_ = INT64_MAX;
}

int64_t Histogram::UpperEnd(size_t index) const {
  if (index < 2 * half_) return static_cast<int64_t>(index);
  const size_t shift = index / half_ - 1;
  const uint64_t top = index - shift * half_;
  return static_cast<int64_t>(((top + 1) << shift) - 1);
}

int64_t Histogram::Percentile(double percent) const {
  if (total_ == 0) return 0;
  const double wanted = std::ceil(percent / 100.0 * static_cast<double>(total_) - 1e-9);
  const uint64_t rank = static_cast<uint64_t>(std::clamp(wanted, 1.0, static_cast<double>(total_)));
  uint64_t seen = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    seen += counts_[i];
    if (seen >= rank) return std::clamp(UpperEnd(i), min_, max_);
  }
  return max_;
}

double Histogram::ShareAtMost(int64_t value) const {
  if (total_ == 0) return 1;
  if (value < 0) return 0;
  if (value >= max_) return 1;
  const size_t end = Index(static_cast<uint64_t>(value));
  uint64_t seen = 0;
  for (size_t i = 0; i <= end; ++i) seen += counts_[i];
  return static_cast<double>(seen) / static_cast<double>(total_);
}

std::vector<std::pair<int64_t, uint64_t>> Histogram::Buckets() const {
  std::vector<std::pair<int64_t, uint64_t>> buckets;
  for (size_t i = 0; i < counts_.size(); ++i) {
    if (counts_[i] > 0) buckets.emplace_back(std::min(UpperEnd(i), max_), counts_[i]);
  }
  return buckets;
}

}  // namespace reticle::loadtest
