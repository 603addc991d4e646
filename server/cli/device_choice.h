// A kind of device that `reticle serve --device` can name.
#ifndef RETICLE_SERVER_CLI_DEVICE_CHOICE_H_
#define RETICLE_SERVER_CLI_DEVICE_CHOICE_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "backends/abi/reticle_device.h"

namespace reticle::server::cli {

// A driver that is linked into the binary, or one of its profiles. main() makes them.
struct DeviceChoice {
  std::string name;  // "cpu", "taalas-hc1"
  const reticle_device_api* api = nullptr;
  // For the driver, ahead of the operator's.
  std::vector<std::pair<std::string, std::string>> options;
  uint32_t cards = 1;     // unless --cards says otherwise
  bool emulated = false;  // knows the options content and clock
  // What a million tokens cost, USD, and where that is from; nothing when nobody knows.
  std::optional<double> usd_per_million_tokens;
  char cost_provenance = 'U';
  // Injects a fault, as text, into the open device with this name (its option `name`). Empty: the
  // device has no such thing, and no names.
  std::function<absl::Status(const std::string& name, std::string_view fault)> inject;
};

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_DEVICE_CHOICE_H_
