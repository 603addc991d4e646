// Random numbers and the distributions that workloads draw from; the same seed gives the same
// workload on every machine.
#ifndef RETICLE_LOADTEST_DISTRIBUTION_H_
#define RETICLE_LOADTEST_DISTRIBUTION_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace reticle::loadtest {

// xoshiro256** (Blackman and Vigna), seeded by splitmix64. Not thread-safe. The standard library's
// distributions differ between implementations, so they are written out here.
class Random {
 public:
  // `stream` separates generators of one seed: (seed, stream) pairs are independent.
  explicit Random(uint64_t seed, uint64_t stream = 0);

  uint64_t Next();
  // In [0, 1).
  double Uniform();
  // In [low, high], both included; low <= high.
  int64_t Integer(int64_t low, int64_t high);
  // Mean 1.
  double Exponential();
  // Mean 0, variance 1.
  double Normal();
  // Mean shape, scale 1; shape > 0 (Marsaglia and Tsang).
  double Gamma(double shape);

 private:
  uint64_t state_[4];
};

// A distribution of lengths (tokens) or of times. Text form, which Parse reads and ToString writes:
//
//   128                    always 128
//   uniform:10:200         10 to 200, both included
//   normal:512:128         mean 512, standard deviation 128
//   lognormal:512:0.8      median 512, sigma of the logarithm 0.8
//   exponential:2000       mean 2000
//   ...@16-4096            any of them, clamped to 16 to 4096
//
// Samples are never negative.
class Distribution {
 public:
  Distribution() = default;
  static Distribution Fixed(double value);
  // INVALID_ARGUMENT says what is wrong with the text.
  static absl::StatusOr<Distribution> Parse(std::string_view text);

  double Sample(Random& random) const;
  // Rounded to a whole number.
  int64_t SampleInteger(Random& random) const;
  // The largest value that it can give; infinite for an unbounded one.
  double Upper() const;
  // The mean before clamping.
  double Mean() const;
  bool IsZero() const { return kind_ == Kind::kFixed && a_ == 0; }
  std::string ToString() const;

 private:
  enum class Kind { kFixed, kUniform, kNormal, kLognormal, kExponential };
  Kind kind_ = Kind::kFixed;
  double a_ = 0;
  double b_ = 0;
  bool clamped_ = false;
  double low_ = 0;
  double high_ = 0;
};

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_DISTRIBUTION_H_
