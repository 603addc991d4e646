// Requests on several cards while cards are killed and hang: does every stream say what it would
// have said undisturbed?
#ifndef RETICLE_TESTS_FAILOVER_FIRE_H_
#define RETICLE_TESTS_FAILOVER_FIRE_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "server/cli/device_choice.h"

namespace reticle::failover {

struct FireOptions {
  server::cli::DeviceChoice device;
  std::string model_path;
  std::vector<std::pair<std::string, std::string>> device_options;
  uint32_t cards = 4;
  uint32_t streams = 32;
  uint32_t losses = 50;  // injected "crash" faults; with card=process that is kill -9
  uint32_t hangs = 10;   // injected "hang" faults
  uint32_t max_tokens = 300;
  int64_t watchdog_ns = 300'000'000;
  uint64_t seed = 1;
};

struct FireReport {
  uint32_t losses = 0;
  uint32_t hangs = 0;
  uint64_t requests = 0;  // that ended well and were compared
  uint64_t tokens = 0;
  uint64_t recoveries = 0;  // of sequences
  uint64_t wrong = 0;       // streams that differ from the undisturbed run
  uint64_t failed = 0;      // streams that ended with an error
  std::string first_failure;
  double seconds = 0;
  // From an injected crash to the engine's noticing, ms.
  double crash_detection_ms_mean = 0;
  double crash_detection_ms_max = 0;
  // From the fault to the card's taking work again, ms.
  double recovery_ms_mean = 0;
  double recovery_ms_max = 0;
};

// Errors are those of opening the devices; what the streams say is in the report.
absl::StatusOr<FireReport> RunUnderFire(const FireOptions& options);

}  // namespace reticle::failover

#endif  // RETICLE_TESTS_FAILOVER_FIRE_H_
