// The options of the driver (hardwired_device.h lists them) as a struct.
#ifndef RETICLE_BACKENDS_HARDWIRED_DRIVER_DRIVER_OPTIONS_H_
#define RETICLE_BACKENDS_HARDWIRED_DRIVER_DRIVER_OPTIONS_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "backends/abi/reticle_device.h"
#include "backends/hardwired/card/card_config.h"

namespace reticle::backends::hardwired {

enum class CardPlace { kInline, kThread, kProcess, kSocket };

struct DriverOptions {
  CardConfig card;
  CardPlace place = CardPlace::kThread;
  std::string card_program = "/proc/self/exe";
  std::string card_socket;
  // place kSocket: what the host tells the card; all else is the card's own.
  std::vector<std::pair<std::string, std::string>> host_options;
  std::string virtual_clock;  // empty: the device's own time
  uint32_t watchdog_ms = 1000;
  std::string fault_file;
  std::string name;
  uint32_t device_index = 0;

  // INVALID_ARGUMENT for an unknown name, a value out of range, or options that exclude each other.
  static absl::StatusOr<DriverOptions> FromConfig(const reticle_device_config& config);
};

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_DRIVER_DRIVER_OPTIONS_H_
