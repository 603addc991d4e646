// `reticle devices`: the device profiles, number by number with their provenance.
#ifndef RETICLE_SERVER_CLI_DEVICES_H_
#define RETICLE_SERVER_CLI_DEVICES_H_

#include <string>
#include <vector>

#include "backends/hardwired/profiles/profile.h"

namespace reticle::server::cli {

// `arguments`: those behind "devices". Prints and returns the exit status.
int RunDevices(const std::vector<std::string>& arguments);

// The parts, for tests. A table of the built-in profiles, a row each:
std::string DevicesTable(const std::vector<backends::hardwired::Profile>& profiles);
// Everything about one:
std::string DeviceText(const backends::hardwired::Profile& profile);
std::string DeviceJson(const backends::hardwired::Profile& profile);

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_DEVICES_H_
