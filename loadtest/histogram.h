// A log-linear histogram: values are kept to a fixed relative precision over the whole range, so
// that percentiles up to p99.99 and beyond are as exact as the median.
#ifndef RETICLE_LOADTEST_HISTOGRAM_H_
#define RETICLE_LOADTEST_HISTOGRAM_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace reticle::loadtest {

// Counts of non-negative integers, for times in ns. Not thread-safe; one per thread, merged at the
// end. Recording neither allocates nor branches on what was recorded before.
class Histogram {
 public:
  // `precision_bits`: a value is known to 1 part in 2^(bits-1) or better; 1 to 14. `range_bits`:
  // values from 2^range_bits on are counted as the largest one; up to 62. The default holds 4.8
  // hours in ns to 0.1 %, in 290 KB.
  explicit Histogram(int precision_bits = 11, int range_bits = 44);

  // A negative value counts as 0.
  void Record(int64_t value, uint64_t count = 1) {
    if (value < 0) value = 0;
    if (value > limit_) value = limit_;
    counts_[Index(static_cast<uint64_t>(value))] += count;
    total_ += count;
    sum_ += static_cast<double>(value) * static_cast<double>(count);
    if (value > max_ && count > 0) max_ = value;
    if (value < min_ && count > 0) min_ = value;
  }
  // `other` must have the same precision and range.
  void Merge(const Histogram& other);
  void Clear();

  uint64_t count() const { return total_; }
  // The exact extremes and mean; 0 when nothing was recorded.
  int64_t min() const { return total_ == 0 ? 0 : min_; }
  int64_t max() const { return max_; }
  double mean() const { return total_ == 0 ? 0 : sum_ / static_cast<double>(total_); }
  double sum() const { return sum_; }

  // The smallest value that at least `percent` of the values do not exceed: the upper end of its
  // bucket, never above max(). 0 when nothing was recorded.
  int64_t Percentile(double percent) const;
  // The share of values that are at most `value`, to the precision of a bucket; 1 when empty.
  double ShareAtMost(int64_t value) const;
  // (upper end of the bucket, count) of every bucket that holds something, ascending.
  std::vector<std::pair<int64_t, uint64_t>> Buckets() const;

 private:
  size_t Index(uint64_t value) const {
    const int shift = std::bit_width(value >> precision_bits_);
    return static_cast<size_t>(shift) * half_ + static_cast<size_t>(value >> shift);
  }
  int64_t UpperEnd(size_t index) const;

  int precision_bits_;
  size_t half_;
  int64_t limit_;
  uint64_t total_ = 0;
  double sum_ = 0;
  int64_t max_ = 0;
  int64_t min_ = INT64_MAX;
  std::vector<uint64_t> counts_;
};

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_HISTOGRAM_H_
