#include "loadtest/arrivals.h"

#include <cmath>

#include "base/check.h"

namespace reticle::loadtest {
namespace {

constexpr uint64_t kArrivalStream = 0xa221;

}  // namespace

Arrivals::Arrivals(const Scenario& scenario, const Trace* trace)
    : mode_(scenario.mode),
      rate_(scenario.rate),
      rate_end_(scenario.rate_end),
      shape_(1 / (scenario.cv * scenario.cv)),
      duration_s_(static_cast<double>(scenario.duration_ns) / 1e9),
      speed_(scenario.trace_speed),
      trace_(trace),
      random_(static_cast<uint64_t>(scenario.seed), kArrivalStream) {
  RETICLE_CHECK(mode_ != ArrivalMode::kClosed);
  RETICLE_CHECK(mode_ != ArrivalMode::kTrace || trace_ != nullptr);
}

std::optional<int64_t> Arrivals::Next() {
  const uint64_t index = count_++;
  switch (mode_) {
    case ArrivalMode::kConstant:
      at_s_ = static_cast<double>(index) / rate_;
      break;
    case ArrivalMode::kPoisson:
      at_s_ += random_.Exponential() / rate_;
      break;
    case ArrivalMode::kGamma:
      at_s_ += random_.Gamma(shape_) / shape_ / rate_;
      break;
    case ArrivalMode::kRamp: {
      // Arrivals expected up to t: r t + (r_end - r) t^2 / 2D. A unit Poisson process is mapped
      // through its inverse.
      expected_ += random_.Exponential();
      const double a = (rate_end_ - rate_) / (2 * duration_s_);
      const double root = rate_ * rate_ + 4 * a * expected_;
      if (root < 0) return std::nullopt;
      at_s_ = 2 * expected_ / (rate_ + std::sqrt(root));
      break;
    }
    case ArrivalMode::kTrace:
      if (index >= trace_->entries.size()) return std::nullopt;
      at_s_ = trace_->entries[index].timestamp_ms / 1e3 / speed_;
      break;
    case ArrivalMode::kClosed:
      return std::nullopt;
  }
  if (at_s_ >= duration_s_) return std::nullopt;
  return static_cast<int64_t>(at_s_ * 1e9);
}

}  // namespace reticle::loadtest
