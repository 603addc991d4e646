#include "backends/hardwired/card/fault.h"

#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/time/time.h"
#include "base/status.h"

namespace reticle::backends::hardwired {
namespace {

struct KindInfo {
  FaultKind kind;
  std::string_view name;
  bool takes_value;
  double default_value;
  double min;
  double max;
};

constexpr KindInfo kKinds[] = {
    {FaultKind::kHang, "hang", false, 0, 0, 0},
    {FaultKind::kCrash, "crash", false, 0, 0, 0},
    {FaultKind::kSlow, "slow", true, 4, 1, 1000},
    {FaultKind::kThermal, "thermal", true, 0.5, 0.01, 1},
    {FaultKind::kLink, "link", true, 1, 0, 1e9},
    {FaultKind::kCorrected, "corrected", true, 1, 1, 1e9},
    {FaultKind::kUncorrected, "uncorrected", false, 0, 0, 0},
    {FaultKind::kImage, "image", false, 0, 0, 0},
    {FaultKind::kClear, "clear", false, 0, 0, 0},
};

std::string Names() {
  std::string names;
  for (const KindInfo& info : kKinds) {
    if (!names.empty()) names += ", ";
    names += info.name;
  }
  return names;
}

}  // namespace

std::string_view FaultName(FaultKind kind) {
  for (const KindInfo& info : kKinds) {
    if (info.kind == kind) return info.name;
  }
  return "none";
}

absl::StatusOr<FaultSpec> ParseFault(std::string_view text) {
  std::string_view rest = text;
  FaultSpec fault;
  if (const size_t comma = rest.find(','); comma != std::string_view::npos) {
    const std::string_view option = rest.substr(comma + 1);
    rest = rest.substr(0, comma);
    absl::Duration duration;
    if (!option.starts_with("for=") ||
        !absl::ParseDuration(std::string(option.substr(4)), &duration) ||
        duration <= absl::ZeroDuration() || duration > absl::Hours(24 * 365)) {
      return InvalidArgumentError("fault '%s': '%s' must be for=DURATION, such as for=2s", text,
                                  option);
    }
    fault.duration_ns = static_cast<uint64_t>(absl::ToInt64Nanoseconds(duration));
  }
  const size_t equals = rest.find('=');
  const std::string_view name = rest.substr(0, equals);
  for (const KindInfo& info : kKinds) {
    if (name != info.name) continue;
    fault.kind = info.kind;
    fault.value = info.default_value;
    if (equals == std::string_view::npos) return fault;
    if (!info.takes_value) return InvalidArgumentError("fault '%s': %s takes no value", text, name);
    double value = 0;
    if (!absl::SimpleAtod(std::string(rest.substr(equals + 1)), &value) || !(value >= info.min) ||
        !(value <= info.max)) {
      return InvalidArgumentError("fault '%s': the value must be a number in %g .. %g", text,
                                  info.min, info.max);
    }
    fault.value = value;
    return fault;
  }
  return InvalidArgumentError("fault '%s' is not known; it must be %s", text, Names());
}

std::string FormatFault(const FaultSpec& fault) {
  std::string text(FaultName(fault.kind));
  for (const KindInfo& info : kKinds) {
    if (info.kind == fault.kind && info.takes_value) text += absl::StrFormat("=%g", fault.value);
  }
  if (fault.duration_ns > 0) {
    text +=
        ",for=" + absl::FormatDuration(absl::Nanoseconds(static_cast<int64_t>(fault.duration_ns)));
  }
  return text;
}

}  // namespace reticle::backends::hardwired
