// Device time finer than a nanosecond, so that 16,960 tokens a second (58,962.26... ns each) add up
// to exactly the right time.
#ifndef RETICLE_BACKENDS_HARDWIRED_TIMING_DEVICE_TIME_H_
#define RETICLE_BACKENDS_HARDWIRED_TIMING_DEVICE_TIME_H_

#include <compare>
#include <cstdint>

namespace reticle::backends::hardwired {

// A time or a duration in units of 2^-32 ns. Plain value; never negative in use.
class DeviceTime {
 public:
  constexpr DeviceTime() = default;
  static constexpr DeviceTime FromNanos(int64_t ns) {
    return DeviceTime(static_cast<__int128>(ns) << kFractionBits);
  }
  // The nearest representable to `ns` nanoseconds.
  static constexpr DeviceTime FromNanos(long double ns) {
    return DeviceTime(static_cast<__int128>(ns * (1ull << kFractionBits) + 0.5L));
  }

  // The nearest whole nanosecond; halves go up.
  constexpr int64_t nanos() const {
    return static_cast<int64_t>((units_ + (__int128{1} << (kFractionBits - 1))) >> kFractionBits);
  }
  constexpr double nanos_as_double() const {
    return static_cast<double>(units_) * (1.0 / (1ull << kFractionBits));
  }
  constexpr bool is_zero() const { return units_ == 0; }

  constexpr DeviceTime operator+(DeviceTime other) const {
    return DeviceTime(units_ + other.units_);
  }
  constexpr DeviceTime operator-(DeviceTime other) const {
    return DeviceTime(units_ - other.units_);
  }
  constexpr DeviceTime operator*(uint64_t factor) const {
    return DeviceTime(units_ * static_cast<__int128>(factor));
  }
  constexpr DeviceTime operator/(uint64_t divisor) const {
    return DeviceTime(units_ / static_cast<__int128>(divisor));
  }
  constexpr DeviceTime& operator+=(DeviceTime other) { return *this = *this + other; }
  friend constexpr auto operator<=>(DeviceTime a, DeviceTime b) = default;

 private:
  static constexpr int kFractionBits = 32;
  constexpr explicit DeviceTime(__int128 units) : units_(units) {}
  __int128 units_ = 0;
};

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_TIMING_DEVICE_TIME_H_
