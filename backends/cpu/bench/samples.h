// Repeated measurements of one thing.
#ifndef RETICLE_BACKENDS_CPU_BENCH_SAMPLES_H_
#define RETICLE_BACKENDS_CPU_BENCH_SAMPLES_H_

#include <algorithm>
#include <cstddef>
#include <vector>

namespace reticle::backends::cpu::bench {

// Of an empty one everything is 0.
class Samples {
 public:
  void Add(double value) {
    values_.insert(std::upper_bound(values_.begin(), values_.end(), value), value);
  }
  size_t size() const { return values_.size(); }
  bool empty() const { return values_.empty(); }
  // The middle value, or the mean of the two in the middle.
  double median() const {
    if (values_.empty()) return 0;
    const size_t half = values_.size() / 2;
    return values_.size() % 2 == 1 ? values_[half] : (values_[half - 1] + values_[half]) / 2;
  }
  double lowest() const { return values_.empty() ? 0 : values_.front(); }
  double highest() const { return values_.empty() ? 0 : values_.back(); }

 private:
  std::vector<double> values_;  // rising
};

}  // namespace reticle::backends::cpu::bench

#endif  // RETICLE_BACKENDS_CPU_BENCH_SAMPLES_H_
