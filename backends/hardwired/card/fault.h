// Faults that can be injected into a card.
//
// As text: KIND[=VALUE][,for=DURATION], such as "hang", "slow=4,for=2s", "link=3", "thermal=0.5".
#ifndef RETICLE_BACKENDS_HARDWIRED_CARD_FAULT_H_
#define RETICLE_BACKENDS_HARDWIRED_CARD_FAULT_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace reticle::backends::hardwired {

enum class FaultKind : uint32_t {
  kNone = 0,
  kHang,         // the firmware stops; so does its heartbeat
  kCrash,        // the card process is killed; in process: the firmware is gone
  kSlow,         // everything takes `value` times as long (default 4)
  kThermal,      // throttles to `value` of full speed (default 0.5) and reads hot
  kLink,         // the next `value` completions are dropped or garbled (default 1; 0: all from now)
  kCorrected,    // `value` memory errors that ECC corrects (default 1)
  kUncorrected,  // a memory error that it cannot correct: the card stops
  kImage,        // a bit of the image flips; the next scrub finds it
  kClear,        // ends slow, thermal and link
};
inline constexpr uint32_t kFaultKinds = static_cast<uint32_t>(FaultKind::kClear) + 1;

struct FaultSpec {
  FaultKind kind = FaultKind::kNone;
  double value = 0;          // as above; filled with the default by ParseFault
  uint64_t duration_ns = 0;  // of slow, thermal and link; 0: until clear or reset
};

// "hang", "crash", "slow", "thermal", "link", "corrected", "uncorrected", "image", "clear".
std::string_view FaultName(FaultKind kind);
// INVALID_ARGUMENT names the text and what it may be.
absl::StatusOr<FaultSpec> ParseFault(std::string_view text);
std::string FormatFault(const FaultSpec& fault);

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_CARD_FAULT_H_
