#include "loadtest/distribution.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "base/status.h"
#include "loadtest/text.h"

namespace reticle::loadtest {

Random::Random(uint64_t seed, uint64_t stream) {
  uint64_t x = seed ^ (stream * 0xd1342543de82ef95u + 0x2545f4914f6cdd1du);
  for (uint64_t& word : state_) {
    x += 0x9e3779b97f4a7c15u;
    uint64_t z = x;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    word = z ^ (z >> 31);
  }
}

uint64_t Random::Next() {
  const auto rotate = [](uint64_t v, int by) { return (v << by) | (v >> (64 - by)); };
  const uint64_t result = rotate(state_[1] * 5, 7) * 9;
  const uint64_t t = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= t;
  state_[3] = rotate(state_[3], 45);
  return result;
}

double Random::Uniform() { return static_cast<double>(Next() >> 11) * 0x1.0p-53; }

int64_t Random::Integer(int64_t low, int64_t high) {
  const uint64_t span = static_cast<uint64_t>(high) - static_cast<uint64_t>(low) + 1;
  if (span == 0) return static_cast<int64_t>(Next());
  const uint64_t reject_above = std::numeric_limits<uint64_t>::max() / span * span;
  uint64_t draw = Next();
  while (draw >= reject_above) draw = Next();
  return low + static_cast<int64_t>(draw % span);
}

double Random::Exponential() { return -std::log1p(-Uniform()); }

double Random::Normal() {
  const double radius = std::sqrt(2 * Exponential());
  return radius * std::cos(2 * std::numbers::pi * Uniform());
}

double Random::Gamma(double shape) {
  if (shape < 1) {
    const double power = std::pow(1 - Uniform(), 1 / shape);
    return Gamma(shape + 1) * power;
  }
  const double d = shape - 1.0 / 3;
  const double c = 1 / std::sqrt(9 * d);
  while (true) {
    const double x = Normal();
    const double root = 1 + c * x;
    if (root <= 0) continue;
    const double v = root * root * root;
    if (std::log1p(-Uniform()) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
  }
}

Distribution Distribution::Fixed(double value) {
  Distribution result;
  result.a_ = value;
  return result;
}

absl::StatusOr<Distribution> Distribution::Parse(std::string_view text) {
  Distribution result;
  std::string_view body = text;
  if (const size_t at = text.find('@'); at != std::string_view::npos) {
    const std::vector<std::string_view> ends = Split(text.substr(at + 1), '-');
    if (ends.size() != 2 || !ParseDouble(ends[0], result.low_) ||
        !ParseDouble(ends[1], result.high_) || result.low_ > result.high_) {
      return InvalidArgumentError("\"%s\": what follows @ must be LOW-HIGH, as in @16-4096", text);
    }
    result.clamped_ = true;
    body = text.substr(0, at);
  }
  const std::vector<std::string_view> parts = Split(body, ':');
  size_t numbers = 0;
  if (parts.size() > 1) {
    struct Form {
      std::string_view name;
      Kind kind;
      size_t numbers;
    };
    constexpr Form kForms[] = {{"fixed", Kind::kFixed, 1},
                               {"uniform", Kind::kUniform, 2},
                               {"normal", Kind::kNormal, 2},
                               {"lognormal", Kind::kLognormal, 2},
                               {"exponential", Kind::kExponential, 1}};
    for (const Form& form : kForms) {
      if (form.name == parts[0]) {
        result.kind_ = form.kind;
        numbers = form.numbers;
      }
    }
    if (numbers == 0 || parts.size() != numbers + 1) {
      return InvalidArgumentError(
          "\"%s\" is no distribution; write N, uniform:LOW:HIGH, normal:MEAN:DEVIATION, "
          "lognormal:MEDIAN:SIGMA or exponential:MEAN",
          text);
    }
  }
  double* const targets[] = {&result.a_, &result.b_};
  for (size_t i = parts.size() > 1 ? 1 : 0, t = 0; i < parts.size(); ++i, ++t) {
    if (!ParseDouble(parts[i], *targets[t]) || *targets[t] < 0) {
      return InvalidArgumentError("\"%s\": \"%s\" is no number from 0 on", text, parts[i]);
    }
  }
  if (result.kind_ == Kind::kUniform && result.a_ > result.b_) {
    return InvalidArgumentError("\"%s\": the lower end is above the upper one", text);
  }
  if (result.kind_ == Kind::kLognormal && result.a_ == 0) {
    return InvalidArgumentError("\"%s\": the median must be above 0", text);
  }
  return result;
}

double Distribution::Sample(Random& random) const {
  double value = a_;
  switch (kind_) {
    case Kind::kFixed:
      break;
    case Kind::kUniform:
      value = a_ + (b_ - a_ + 1) * random.Uniform();
      value = std::min(std::floor(value), b_);
      break;
    case Kind::kNormal:
      value = a_ + b_ * random.Normal();
      break;
    case Kind::kLognormal:
      value = a_ * std::exp(b_ * random.Normal());
      break;
    case Kind::kExponential:
      value = a_ * random.Exponential();
      break;
  }
  if (clamped_) value = std::clamp(value, low_, high_);
  return std::max(value, 0.0);
}

int64_t Distribution::SampleInteger(Random& random) const {
  return std::llround(std::min(Sample(random), 1e15));
}

double Distribution::Upper() const {
  double upper = std::numeric_limits<double>::infinity();
  if (kind_ == Kind::kFixed) upper = a_;
  if (kind_ == Kind::kUniform) upper = b_;
  return clamped_ ? std::clamp(upper, low_, high_) : upper;
}

double Distribution::Mean() const {
  switch (kind_) {
    case Kind::kUniform:
      return (a_ + b_) / 2;
    case Kind::kLognormal:
      return a_ * std::exp(b_ * b_ / 2);
    default:
      return a_;
  }
}

std::string Distribution::ToString() const {
  std::string text;
  switch (kind_) {
    case Kind::kFixed:
      text = absl::StrFormat("%g", a_);
      break;
    case Kind::kUniform:
      text = absl::StrFormat("uniform:%g:%g", a_, b_);
      break;
    case Kind::kNormal:
      text = absl::StrFormat("normal:%g:%g", a_, b_);
      break;
    case Kind::kLognormal:
      text = absl::StrFormat("lognormal:%g:%g", a_, b_);
      break;
    case Kind::kExponential:
      text = absl::StrFormat("exponential:%g", a_);
      break;
  }
  if (clamped_) text += absl::StrFormat("@%g-%g", low_, high_);
  return text;
}

}  // namespace reticle::loadtest
